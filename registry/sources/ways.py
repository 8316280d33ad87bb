"""Where the storage options of a source send its requests, and whether the user chose that place.

The user's credentials (a Hub token, AWS keys, ``~/.netrc``, ...) go where the user's environment
sends them. A manifest's option can name another host, a proxy, or a connection that is not
verified: a *way*. An option counts as a way unless it is listed here as harmless, so that an option
unknown to this table cannot leak a credential.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from ...manifests.language.source import Source
from ...manifests.reading.secrets import is_secret_name

Vouches = Callable[[str], bool]
"""Whether the user (and not only a manifest) chose this place: a URL, or an option's value."""

S3 = frozenset({"s3", "s3a"})
HTTP = frozenset({"http", "https"})
GOOGLE = frozenset({"gs", "gcs"})
AZURE = frozenset({"az", "abfs", "abfss", "adl"})

_FSSPEC = frozenset(
    {
        *("anon", "block_size", "default_block_size", "default_cache_type", "default_fill_cache"),
        *("cache_type", "cache_options", "use_listings_cache", "listings_expiry_time", "max_paths"),
        *("version_aware", "max_concurrency", "requester_pays", "timeout"),
    }
)
_S3_OPTIONS = _FSSPEC | {
    *("profile", "cache_regions", "fixed_upload_size", "s3_additional_kwargs"),
    *("local_expiry_check", "client_kwargs.region_name", "config_kwargs.region_name"),
    *("config_kwargs.connect_timeout", "config_kwargs.read_timeout", "config_kwargs.retries"),
    *("config_kwargs.max_pool_connections", "config_kwargs.tcp_keepalive"),
    *("config_kwargs.signature_version", "config_kwargs.parameter_validation"),
    *("config_kwargs.s3.addressing_style", "config_kwargs.s3.payload_signing_enabled"),
    *("config_kwargs.request_checksum_calculation",),
    *("config_kwargs.response_checksum_validation",),
}
_HTTP_OPTIONS = _FSSPEC | {
    *("headers", "cookies", "auth", "simple_links", "same_scheme", "size_policy", "encoded"),
    *("allow_redirects", "max_redirects", "client_kwargs.headers", "client_kwargs.cookies"),
    *("client_kwargs.auth", "client_kwargs.timeout"),
}
_GOOGLE_OPTIONS = _FSSPEC | {
    *("project", "access", "consistency", "cache_timeout", "default_location"),
    *("check_connection", "token"),
}
_HARMLESS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(S3, _S3_OPTIONS),
    **dict.fromkeys(HTTP, _HTTP_OPTIONS),
    **dict.fromkeys(GOOGLE, _GOOGLE_OPTIONS),
}
"""By scheme, the options that do not decide where requests go; fsspec's own for other schemes."""
_PLACES = frozenset({"endpoint_url", "client_kwargs", "config_kwargs", "use_ssl"})
_SAFE_WHEN_TRUE = frozenset(
    {"use_ssl", "ssl", "client_kwargs.use_ssl", "client_kwargs.verify", "client_kwargs.trust_env"}
)
_AWS = re.compile(
    r"https://s3(?:[.-](?:fips|dualstack))*(?:[.-][a-z]{2}(?:-[a-z]+)+-\d)?\.amazonaws\.com(?:\.cn)?"
)
"""AWS's own endpoints of S3, which the user's AWS credentials are for."""
_LOGS_IN = frozenset({"smb"})
"""Schemes whose driver logs in, as the user, at whatever host the URL names."""
_URL_ITSELF = "the URL"
_BARE = frozenset({"file", "memory"})


def options_of(scheme: str) -> frozenset[str]:
    """Names of storage options of this scheme, for who misspelt one: those that are known here."""
    known = frozenset(name.partition(".")[0] for name in _HARMLESS.get(scheme, _FSSPEC))
    return known | _PLACES if scheme in S3 else known


@dataclass(frozen=True)
class Way:
    """One option that decides where requests go: its dotted name, its value, and the URL that it
    means, without user and query (``None`` for options without one, such as ``verify: false``)."""

    option: str
    text: str
    url: str | None

    @property
    def is_url_itself(self) -> bool:
        """Whether the source's own URL names the host, not an option."""
        return self.option == _URL_ITSELF

    @property
    def origin(self) -> str | None:
        return None if self.url is None else origin_of(self.url)


def ways_of(source: Source, options: Mapping[str, Any]) -> tuple[Way, ...]:
    """The options (and for some schemes the URL itself) that decide where requests go."""
    if source.scheme in _BARE:
        return ()
    found = [_way(source.scheme, name, value) for name, value in _leaves(options)]
    host = source.location.partition("/")[0].rpartition("@")
    if source.scheme in _LOGS_IN:
        found.append(Way(_URL_ITSELF, host[2], f"{source.scheme}://{host[2]}"))
    elif source.scheme in AZURE and host[1]:
        found.append(Way(_URL_ITSELF, host[2], _clean(f"https://{host[2]}")))
    return tuple(way for way in found if way is not None)


def strange_ways(source: Source, options: Mapping[str, Any], vouches: Vouches) -> tuple[Way, ...]:
    """The ways that are known neither to ``vouches`` nor to the user's environment."""

    def chosen(way: Way) -> bool:
        return vouches(way.text) or (way.url is not None and vouches(way.url))

    ways = [way for way in ways_of(source, options) if not chosen(way)]
    if not ways:
        return ()
    known = _of_environment(source, options)
    return tuple(
        way
        for way in ways
        if way.origin not in known
        and not (source.scheme in S3 and _AWS.fullmatch(way.origin or ""))
    )


def reached_at(source: Source, options: Mapping[str, Any]) -> str | None:
    """The URL that ``source`` is read at, where that is not its kind's usual host: the endpoint
    that the options name, else the environment. Without user and query."""
    ways = [way.url for way in ways_of(source, options) if way.url is not None]
    url = ways[0] if ways else None
    if url is None and source.is_hub:
        url = _clean(os.environ.get("HF_ENDPOINT", ""))
    elif url is None and source.scheme in S3:
        url = next(map(_clean, _aws_endpoints(options)), None)
    if url is None or (source.is_hub and origin_of(url) == "https://huggingface.co"):
        return None
    return below(url, source)


def below(url: str, source: Source) -> str:
    """A source's place under an endpoint's URL: what a policy's globs are matched against."""
    path = f"/{source.path}" if source.path else ""
    return f"{url.rstrip('/')}/{source.location}{path}"


def origin_of(url: str) -> str | None:
    """``scheme://host`` or ``scheme://host:port``, in lower case and without a usual port."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not parts.scheme or not host:
        return None
    scheme = parts.scheme.lower()
    shown = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}.get(scheme)
    return f"{scheme}://{shown}" + ("" if port in (None, usual) else f":{port}")


def _leaves(options: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        name = f"{above}{key}"
        if name in ("client_kwargs", "config_kwargs", "config_kwargs.s3") and isinstance(
            value, Mapping
        ):
            yield from _leaves(cast("Mapping[str, Any]", value), f"{name}.")
        elif value is not None:
            yield name, value


def _way(scheme: str, name: str, value: object) -> Way | None:
    if name in _HARMLESS.get(scheme, _FSSPEC) or is_secret_name(name.rpartition(".")[2]):
        return None
    if name in _SAFE_WHEN_TRUE and value is True:
        return None
    text = value if isinstance(value, str) else f"{name}: {value}"
    if scheme in AZURE and name == "account_name" and isinstance(value, str):
        return Way(name, text, _clean(f"https://{value}.blob.core.windows.net"))
    return Way(name, text, _clean(text) if isinstance(value, str) else None)


def _clean(url: str) -> str | None:
    """A URL in one spelling, without user, query and fragment; ``None`` for an invalid URL, and
    for a path with ``.`` or ``..`` steps."""
    origin = origin_of(url)
    if origin is None:
        return None
    path = urlsplit(url).path.rstrip("/")
    if any(step in (".", "..") for step in unquote(path).replace("\\", "/").split("/")):
        return None
    return origin + path


def _of_environment(source: Source, options: Mapping[str, Any]) -> frozenset[str | None]:
    """The origins that the user's own settings send this kind of request to."""
    if source.is_hub:
        from huggingface_hub import constants

        return frozenset({origin_of(os.environ.get("HF_ENDPOINT") or constants.ENDPOINT)})
    if source.scheme in S3:
        return frozenset(map(origin_of, _aws_endpoints(options)))
    if source.scheme in AZURE and (account := os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")):
        hosts = ("blob.core.windows.net", "dfs.core.windows.net")
        return frozenset(f"https://{account.lower()}.{host}" for host in hosts)
    return frozenset()


def _aws_endpoints(options: Mapping[str, Any]) -> list[str]:
    """The S3 endpoint of the environment, else of the profile in ``~/.aws/config`` (each may set
    it for S3 only): https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            return [os.environ[name]]
    try:
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session
    except ImportError:
        return []  # opening the source says which package is missing
    try:
        session = Session(profile=options.get("profile"))
        profile = cast("dict[str, Any]", session.get_scoped_config())
        services = cast("dict[str, Any]", session.full_config).get("services", {})
    except (BotoCoreError, TypeError):
        return []
    own = services.get(profile.get("services"), {}).get("s3", {})
    said = own.get("endpoint_url") if isinstance(own, dict) else None
    return [url for url in (said or profile.get("endpoint_url"),) if isinstance(url, str)]
