"""Where the storage options of a source send its requests, and who vouches for that place.

The user's own credentials (a Hub token, AWS keys, ``~/.netrc``, ...) go where the user's own
environment sends them. An option of a manifest can name another host, a proxy, or a connection that
is not verified: a *way*. An option counts as one unless it is listed here as harmless, so that an
option that nobody thought of cannot carry a credential away.
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
_HARMLESS: Mapping[str, frozenset[str]] = {
    "s3": _FSSPEC
    | {
        *("profile", "cache_regions", "fixed_upload_size", "s3_additional_kwargs"),
        *("local_expiry_check", "client_kwargs.region_name", "config_kwargs.region_name"),
        *("config_kwargs.connect_timeout", "config_kwargs.read_timeout", "config_kwargs.retries"),
        *("config_kwargs.max_pool_connections", "config_kwargs.tcp_keepalive"),
        *("config_kwargs.signature_version", "config_kwargs.parameter_validation"),
        *("config_kwargs.s3.addressing_style", "config_kwargs.s3.payload_signing_enabled"),
        *("config_kwargs.request_checksum_calculation",),
        *("config_kwargs.response_checksum_validation",),
    },
    "http": _FSSPEC
    | {
        *("headers", "cookies", "auth", "simple_links", "same_scheme", "size_policy", "encoded"),
        *("allow_redirects", "max_redirects", "client_kwargs.headers", "client_kwargs.cookies"),
        *("client_kwargs.auth", "client_kwargs.timeout"),
    },
    "gs": _FSSPEC
    | {
        *("project", "access", "consistency", "cache_timeout", "default_location"),
        *("check_connection", "token"),
    },
}
_SAFE_WHEN_TRUE = frozenset(
    {"use_ssl", "ssl", "client_kwargs.use_ssl", "client_kwargs.verify", "client_kwargs.trust_env"}
)
_AWS = re.compile(
    r"https://s3(?:[.-](?:fips|dualstack))*(?:[.-][a-z]{2}(?:-[a-z]+)+-\d)?\.amazonaws\.com(?:\.cn)?"
)
_LOGS_IN = frozenset({"smb"})
"""Schemes whose driver logs in, as the user, at whatever host the URL names."""
_URL_ITSELF = "the URL"
_BARE = frozenset({"file", "memory"})


@dataclass(frozen=True)
class Way:
    """One option that decides where requests go: its dotted name, its value, and the URL that it
    stands for, without user and query (``None`` for what has no URL, such as ``verify: false``)."""

    option: str
    text: str
    url: str | None

    @property
    def is_url_itself(self) -> bool:
        """Whether the source's own URL names the host, and no option."""
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
    """The ways that neither ``vouches`` nor the environment of the user knows."""
    ways = [way for way in ways_of(source, options) if not _vouched(way, vouches)]
    if not ways:
        return ()
    known = _of_environment(source, options)
    return tuple(way for way in ways if way.origin not in known and not _is_own(source, way))


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


def _is_own(source: Source, way: Way) -> bool:
    """Whether this is one of AWS's own endpoints of S3, which the credentials are for."""
    return source.scheme in S3 and _AWS.fullmatch(way.origin or "") is not None


def _vouched(way: Way, vouches: Vouches) -> bool:
    return vouches(way.text) or (way.url is not None and vouches(way.url))


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
    kind = next((k for k, all_ in _KINDS.items() if scheme in all_), None)
    if name in _HARMLESS.get(kind or "", _FSSPEC) or is_secret_name(name.rpartition(".")[2]):
        return None
    if name in _SAFE_WHEN_TRUE and value is True:
        return None
    text = value if isinstance(value, str) else f"{name}: {value}"
    if scheme in AZURE and name == "account_name" and isinstance(value, str):
        return Way(name, text, _clean(f"https://{value}.blob.core.windows.net"))
    return Way(name, text, _clean(text) if isinstance(value, str) else None)


_KINDS = {"s3": S3, "http": HTTP, "gs": GOOGLE}


def _clean(url: str) -> str | None:
    """A URL in one spelling, without user, query and fragment; ``None`` for what is none, and for
    one whose path does not lead where it reads."""
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
    """The S3 endpoint of the environment, else of the profile in ``~/.aws/config`` (both may say
    it for S3 alone): https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            return [os.environ[name]]
    try:
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session
    except ImportError:
        return []  # opening the source says what is missing
    try:
        session = Session(profile=options.get("profile"))
        profile = cast("dict[str, Any]", session.get_scoped_config())
        services = cast("dict[str, Any]", session.full_config).get("services", {})
    except (BotoCoreError, TypeError):
        return []
    own = services.get(profile.get("services"), {}).get("s3", {})
    said = own.get("endpoint_url") if isinstance(own, dict) else None
    return [url for url in (said or profile.get("endpoint_url"),) if isinstance(url, str)]
