"""Opening fsspec filesystems: the right package, valid options, and limits on waiting."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from inspect import signature
from typing import Any, cast

from ...manifests.bounds import LISTING_BYTES
from ...manifests.findings import sources as codes
from ...manifests.findings.errors import SourceError
from ...manifests.findings.finding import Where
from ...manifests.language.source import Source
from .failures import explain, scrub, source_error
from .pace import Limits
from .ways import AZURE, GOOGLE, HTTP, S3

CONNECT_TIMEOUT = 5
"""Seconds. A try is repeated once at most, so that a dead endpoint answers within some 20 s."""

_PACKAGES: Mapping[str, str] = {
    **dict.fromkeys(S3, "'adapterdock[s3]'"),
    **dict.fromkeys(HTTP, "'adapterdock[http]'"),
    **dict.fromkeys(GOOGLE, "gcsfs"),
    **dict.fromkeys(AZURE, "adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    "oss": "ossfs",
    "webdav": "webdav4",
    "github": "requests",
}
"""By scheme, what pip installs for it."""


def open_filesystem(source: Source, options: Mapping[str, Any], where: Where) -> tuple[Any, str]:
    """The fsspec filesystem of ``source`` and the folder's path in it.

    A new instance, so that neither credentials nor listings of an earlier one are used. Raises
    ``SourceError`` for an unknown scheme, a missing package and invalid options.
    """
    subject = scrub(str(source))
    if source.scheme == "local":
        raise source_error(
            codes.UNKNOWN_SCHEME,
            f"A local folder is written as a path: {subject}",
            where,
            expected=f"/{source.location.lstrip('/')}",
        )
    from fsspec.core import url_to_fs

    try:
        limited = {**options, **_limits(source.scheme, options)}
        found = url_to_fs(str(source), skip_instance_cache=True, **limited)
    except ImportError as error:
        package = _PACKAGES.get(source.scheme)
        raise source_error(
            codes.DRIVER_MISSING,
            f"The package that opens {source.scheme}:// is not installed: {subject}",
            where,
            found=_first_line(error),
            hint=_first_line(error) if package is None else f"pip install {package}",
        ) from error
    except ValueError as error:
        if "rotocol not known" not in str(error):
            raise _refused(subject, error, where) from error
        raise source_error(
            codes.UNKNOWN_SCHEME, f"Unknown scheme {source.scheme}://: {subject}", where
        ) from error
    except (TypeError, KeyError) as error:
        raise _refused(subject, error, where) from error
    except Exception as error:
        raise explain(error, subject, where) from error
    fs, root = cast("tuple[Any, str]", found)
    if source.scheme in S3:
        fs.retries = 1  # botocore retries already
    return fs, root.rstrip("/")


@cache
def unredirected() -> type[Any]:
    """The class of aiobotocore's HTTP sessions, without redirections: aiohttp would follow them to
    any host, with the session token among the headers. botocore itself never follows one; it
    learns a bucket's region from an answer's ``x-amz-bucket-region``, and signs again. Raises
    ``ImportError`` for a version of aiobotocore without that setting."""
    from aiobotocore.config import AioConfig
    from aiobotocore.httpsession import AIOHTTPSession

    if "http_session_cls" not in signature(AioConfig).parameters or not hasattr(
        AIOHTTPSession, "_get_session"
    ):
        raise ImportError("This aiobotocore follows redirections to other hosts; upgrade it")

    class Unredirected(AIOHTTPSession):
        async def _get_session(self, proxy_url: str | None) -> Any:
            return _Once(await super()._get_session(proxy_url))

    return Unredirected


class ListingTooLongError(Exception):
    """The answer is longer than any listing."""


class _Once:
    """An aiohttp session that returns a redirection as the answer, and limits how much of an
    answer is read."""

    def __init__(self, session: Any) -> None:
        self._session: Any = session

    async def request(self, *args: Any, **options: Any) -> Any:
        answer = await self._session.request(*args, **{**options, "allow_redirects": False})
        answer.read = partial(_read, answer)  # not called for what is streamed
        return answer


async def _read(answer: Any) -> bytes:
    """The complete body of a listing or an error."""
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > LISTING_BYTES:
            answer.close()
            raise ListingTooLongError(f"an answer of more than {LISTING_BYTES} bytes")
    return bytes(body)


def _limits(scheme: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Limits on waiting, unless the caller's options set them."""
    if scheme in S3:
        return {
            "config_kwargs": {
                "connect_timeout": CONNECT_TIMEOUT,
                "read_timeout": Limits.from_environment().silence,
                "retries": {"mode": "standard", "total_max_attempts": 2},
                **(options.get("config_kwargs") or {}),
                "http_session_cls": unredirected(),
            }
        }
    if scheme in HTTP:
        from aiohttp import ClientTimeout

        silence = Limits.from_environment().silence
        timeout = ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=silence)
        return {
            "client_kwargs": {
                "timeout": timeout,
                **(options.get("client_kwargs") or {}),
                "trust_env": False,  # it would log in at each host by a `default` in ~/.netrc
            }
        }
    return {}


def _refused(subject: str, error: Exception, where: Where) -> SourceError:
    return source_error(
        codes.BAD_STORAGE_OPTIONS,
        f"{subject} cannot be opened with these storage options",
        where,
        found=f"{type(error).__name__}: {_first_line(error)}",
    )


def _first_line(error: BaseException) -> str:
    return scrub((str(error).strip().splitlines() or [type(error).__name__])[0][:200])
