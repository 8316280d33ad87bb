"""Bodies of large S3 objects by plain requests.

s3fs receives and sends every body on one thread, in small pieces, and that thread is slower than
most networks. So its client only signs a URL, which urllib3 (botocore's own HTTP library) then gets
or puts on the caller's thread. Where the user's settings ask for more than that, s3fs does it all.
"""

from __future__ import annotations

import os
import time
from base64 import b64encode
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any, cast
from urllib.request import getproxies, proxy_bypass
from zlib import crc32

from .filesystems import CONNECT_TIMEOUT
from .pace import Limits

_VALID = 900
"""Seconds for which a signed URL is used; it is valid for twice as long."""
_PIECE = 256 << 10
_SENT = 128 << 10
"""Bytes that are sent together; a connection that does not take them in some seconds is dead."""
_BUNDLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
"""Environment variables that botocore takes certificates from, in this order."""
_CONNECTIONS = 16
_SIGNER = "adapterdock-signed-urls"


class PlainError(Exception):
    """The plain road does not lead there; s3fs may, or says why not."""


class PlainRoad:
    """Of one filesystem of s3fs. Usable from several threads."""

    def __init__(self, fs: Any) -> None:
        self._fs = fs
        self._lock = Lock()
        self._urls: dict[tuple[str, str, str | None], tuple[str, float]] = {}
        self._pool: Any = None
        self._arrived = self._stopped = False
        self.open: bool = _is_plain(fs)

    @contextmanager
    def get(
        self, bucket: str, key: str, version: str | None, headers: Mapping[str, str]
    ) -> Generator[tuple[int, Mapping[str, str], Iterator[bytes]]]:
        """Status, headers and body of the answer to a GET. Raises :class:`PlainError` for an answer
        that is not 206, and ``TimeoutError`` where the server falls silent. A body that breaks off
        ends early."""
        from urllib3.exceptions import HTTPError, ReadTimeoutError

        try:
            url = self._url_of(bucket, key, version)
            answer = self._connections(url).request(
                "GET",
                url,
                headers={**headers, "Accept-Encoding": "identity"},
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
            )
        except Exception as error:
            self.open = False
            raise PlainError(type(error).__name__) from None  # its text has the URL
        try:
            if answer.status != 206:
                raise PlainError(f"HTTP {answer.status}")
            yield answer.status, answer.headers, self._pieces(answer)
        except ReadTimeoutError:
            raise TimeoutError("the server sent nothing") from None
        except HTTPError:
            return  # a body that broke off is too short, and its rest is asked for again
        finally:
            _release(answer)

    def put_part(self, which: Mapping[str, str], number: int, body: memoryview) -> str:
        """The ETag of a part that was sent. ``which`` has its bucket, its key and its upload.
        Raises :class:`PlainError`; the road stays open only if a part had arrived before.

        As with botocore's own requests, the part's CRC-32 goes along, and S3 compares. It is
        signed; the part itself is not (a URL is signed without a body)."""
        sum_of = b64encode(crc32(body).to_bytes(4, "big")).decode()
        parameters = {**which, "PartNumber": number, "ChecksumCRC32": sum_of}
        try:
            url = self._signed("upload_part", "UploadPart", parameters)
            answer = self._connections(url).request(
                "PUT",
                url,
                body=self._slices(body),
                headers={"Content-Length": str(len(body)), "x-amz-checksum-crc32": sum_of},
                preload_content=False,
                redirect=False,
                retries=False,
            )
            try:
                answer.read(_PIECE)
                tag = answer.headers.get("ETag")
                if answer.status != 200 or not tag:
                    raise PlainError(f"HTTP {answer.status}")
            finally:
                _release(answer)
        except Exception as error:
            self.open = self._arrived and not self._stopped
            raise PlainError(type(error).__name__) from None  # its text may have the URL
        self._arrived = True
        return str(tag)

    def stop(self) -> None:
        """Send nothing more."""
        self.open, self._stopped = False, True

    def _slices(self, body: memoryview) -> Iterator[memoryview]:
        for at in range(0, len(body), _SENT):
            if self._stopped:
                raise PlainError("stopped")
            yield body[at : at + _SENT]

    def _pieces(self, answer: Any) -> Iterator[bytes]:
        while piece := answer.read(_PIECE):
            yield piece

    def _url_of(self, bucket: str, key: str, version: str | None) -> str:
        """To get an object."""
        asked = (bucket, key, version)
        with self._lock:
            url, until = self._urls.get(asked, ("", 0.0))
            if time.monotonic() < until:
                return url
            which = {} if version is None else {"VersionId": version}
            url = self._signed("get_object", "GetObject", {"Bucket": bucket, "Key": key, **which})
            self._urls[asked] = (url, time.monotonic() + _VALID)
            return url

    def _signed(self, method: str, operation: str, parameters: Mapping[str, object]) -> str:
        from fsspec.asyn import sync

        return str(cast("Any", sync(self._fs.loop, self._sign, method, operation, parameters)))

    async def _sign(self, method: str, operation: str, parameters: Mapping[str, object]) -> str:
        await self._fs.set_session()
        client = await self._fs.get_s3(parameters["Bucket"])
        client.meta.events.register_first(
            f"choose-signer.s3.{operation}", _same_signature, f"{_SIGNER}-{method}"
        )
        return await client.generate_presigned_url(
            method, Params=dict(parameters), ExpiresIn=2 * _VALID
        )

    def _connections(self, url: str) -> Any:
        import certifi
        from urllib3 import PoolManager, Timeout

        host = url.split("/")[2].rpartition("@")[2].partition(":")[0]
        if getproxies() and not proxy_bypass(host):
            raise PlainError("a proxy")
        with self._lock:
            if self._pool is None:
                silence = Limits.from_environment().silence
                self._pool = PoolManager(
                    maxsize=_CONNECTIONS,
                    timeout=Timeout(connect=CONNECT_TIMEOUT, read=silence),
                    ca_certs=next(filter(None, map(os.environ.get, _BUNDLES)), certifi.where()),
                )
            return self._pool


def _release(answer: Any) -> None:
    """A connection is used again, unless its answer was not read to the end."""
    if answer.length_remaining:
        answer.close()
    answer.release_conn()


def _same_signature(signature_version: object, **_: object) -> object:
    """A URL is signed as requests are. By itself botocore signs URLs in a way (version 2) that
    newer regions refuse."""
    return "s3v4-query" if signature_version in ("v4-query", "s3v4-query") else None


def _is_plain(fs: Any) -> bool:
    """Whether nothing is set that a plain request would not respect."""
    client = dict(getattr(fs, "client_kwargs", None) or {})
    config = dict(getattr(fs, "config_kwargs", None) or {})
    known = {"endpoint_url", "region_name", "aws_access_key_id", "aws_secret_access_key"}
    known |= {"aws_session_token"}
    ours = {"connect_timeout", "read_timeout", "retries", "http_session_cls", "signature_version"}
    ours |= {"max_pool_connections", "s3"}
    return (
        client.keys() <= known
        and config.keys() <= ours
        and not getattr(fs, "s3_additional_kwargs", None)
        and not getattr(fs, "req_kw", None)
    )
