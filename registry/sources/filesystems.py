"""Opening fsspec filesystems: the right package, options that it takes, and bounded waiting."""

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
from .ways import HTTP, S3

CONNECT_TIMEOUT = 5
"""Seconds. A try is repeated once at most, so that a dead endpoint answers within some 20 s."""

_PIP = {
    "s3": "pip install 'adapterdock[s3]'",
    "s3a": "pip install 'adapterdock[s3]'",
    "http": "pip install 'adapterdock[http]'",
    "https": "pip install 'adapterdock[http]'",
    "gs": "pip install gcsfs",
    "gcs": "pip install gcsfs",
    "abfs": "pip install adlfs",
    "abfss": "pip install adlfs",
    "az": "pip install adlfs",
    "adl": "pip install adlfs",
    "sftp": "pip install paramiko",
    "ssh": "pip install paramiko",
    "oci": "pip install ocifs",
    "oss": "pip install ossfs",
    "webdav": "pip install webdav4",
    "github": "pip install requests",
}


def open_filesystem(source: Source, options: Mapping[str, Any], where: Where) -> tuple[Any, str]:
    """The fsspec filesystem of ``source`` and the folder's path in it.

    A new instance, so that neither credentials nor listings of an earlier one are used. Raises
    ``SourceError`` for an unknown scheme, a package that is
    not installed, and options that the filesystem refuses.
    """
    subject = scrub(str(source))
    if source.scheme == "local":
        raise source_error(
            codes.UNKNOWN_SCHEME,
            f"{subject}: a local folder is written as a path",
            where,
            expected=f"/{source.location.lstrip('/')}",
        )
    from fsspec.core import url_to_fs

    try:
        given = {**options, **_defaults(source.scheme, options)}
        found = url_to_fs(str(source), skip_instance_cache=True, **given)
    except ImportError as error:
        raise source_error(
            codes.DRIVER_MISSING,
            f"{subject}: the package that opens {source.scheme}:// is not installed",
            where,
            found=_first_line(error),
            hint=_PIP.get(source.scheme, _first_line(error)),
        ) from error
    except ValueError as error:
        if "rotocol not known" not in str(error):
            raise _refused(subject, error, where) from error
        raise source_error(
            codes.UNKNOWN_SCHEME, f"{subject}: nothing opens {source.scheme}://", where
        ) from error
    except (TypeError, KeyError) as error:
        raise _refused(subject, error, where) from error
    except Exception as error:
        raise explain(error, subject, where) from error
    fs, root = cast("tuple[Any, str]", found)
    if source.scheme in S3:
        fs.retries = 1  # s3fs would repeat what botocore repeats already
    return fs, root.rstrip("/")


@cache
def unredirected() -> type[Any]:
    """The class of aiobotocore's HTTP sessions, less redirections: aiohttp would follow them to any
    host, with the session token among the headers. botocore itself never follows one; a bucket's
    region it finds out by an answer's ``x-amz-bucket-region``, and signs anew. Raises
    ``ImportError`` for a version of aiobotocore that cannot be told so."""
    from aiobotocore.config import AioConfig
    from aiobotocore.httpsession import AIOHTTPSession

    if "http_session_cls" not in signature(AioConfig).parameters or not hasattr(
        AIOHTTPSession, "_get_session"
    ):
        raise ImportError("this aiobotocore follows redirections to other hosts; upgrade it")

    class Unredirected(AIOHTTPSession):
        async def _get_session(self, proxy_url: str | None) -> Any:
            return _Once(await super()._get_session(proxy_url))

    return Unredirected


class ListingTooLongError(Exception):
    """An answer that is longer than any listing."""


class _Once:
    """An aiohttp session that takes a redirection for the answer, and reads no answer to its end
    that has none."""

    def __init__(self, session: Any) -> None:
        self._session: Any = session

    async def request(self, *args: Any, **options: Any) -> Any:
        answer = await self._session.request(*args, **{**options, "allow_redirects": False})
        answer.read = partial(_read_whole, answer)  # what is streamed does not come this way
        return answer


async def _read_whole(answer: Any) -> bytes:
    """The body of a listing or an error, which botocore takes whole."""
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > LISTING_BYTES:
            answer.close()
            raise ListingTooLongError(f"an answer of more than {LISTING_BYTES} bytes")
    return bytes(body)


def _defaults(scheme: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Bounds on waiting, under what the caller's own options say."""
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
                "trust_env": False,  # ours to look up: it would log in at any host by a `default`
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
