"""A registry on a web server: files are read by their names, and nothing is listed or written."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from ...manifests.findings import registry as codes
from ...manifests.findings import sources as source_codes
from ...manifests.findings.errors import SourceError
from ..sources.encodings import encoding_of
from ..sources.failures import scrub, source_error
from ..sources.http import HttpFolder
from ..sources.pace import Limits
from ..sources.request import SourceRequest

_MISSING = frozenset({404, 410})
_LARGEST = 1 << 40
"""Bytes of a file."""
_PAGES = frozenset({"text/html", "application/xhtml+xml"})


class _Site(HttpFolder):
    """Small files of a web server, by name. Redirections, proxies and logins are a source's."""

    def fetch(self, path: str, limit: int) -> bytes | None:
        """At most ``limit`` bytes of a file; ``None`` where there is none."""
        return self._patiently(lambda: self._await(self._fetch_in_time, path, limit), path)

    async def _fetch_in_time(self, path: str, limit: int) -> bytes | None:
        limits = Limits.from_environment(self._where)
        # as long as a source's file of that size may take, at the lowest rate that it may have
        allowed = limits.silence + (limit / limits.rate if limits.rate else limits.time_for(limit))
        return await asyncio.wait_for(self._fetch(path, limit), allowed)

    async def _fetch(self, path: str, limit: int) -> bytes | None:
        response = await self._send("GET", path, None)
        try:
            if response.status in _MISSING:
                return None
            if response.status != 200:
                response.raise_for_status()
                raise self._bad(path, f"HTTP {response.status}", "HTTP 200")
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if kind in _PAGES:
                return None  # a page that says that nothing is here
            if encoding_of(response.headers) != "identity":
                raise self._bad(path, encoding_of(response.headers), "an answer without encoding")
            return await _at_most(response, limit)
        finally:
            response.close()

    def _bad(self, path: str, found: str, expected: str) -> Exception:
        return source_error(
            source_codes.BAD_ANSWER,
            f"Cannot read {self._shown(path)}: {self._host()} sent an unexpected answer",
            self._where,
            found=found,
            expected=expected,
        )


class HttpStorage:
    """See :class:`Storage`. An exact version, an alias and the journal are read by name."""

    def __init__(self, request: SourceRequest) -> None:
        self._site = _Site(request)
        self._where = request.where
        self._url = scrub(str(request.source))

    @property
    def url(self) -> str:
        return self._url

    @property
    def creates(self) -> bool:
        return False

    @property
    def lists(self) -> bool:
        return False

    def read(self, path: str, limit: int) -> bytes:
        found = self._site.fetch(path, limit)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "No such file", f"{self._url}/{path}")
        return found

    def chunks(self, path: str) -> Iterator[bytes]:
        yield self.read(path, _LARGEST)

    def find(self, folder: str) -> Mapping[str, int]:
        raise self._lists_nothing(folder)

    def times(self, folder: str) -> Mapping[str, float]:
        raise self._lists_nothing(folder)

    def _lists_nothing(self, folder: str) -> SourceError:
        return source_error(
            codes.STORAGE_LISTS_NOTHING, f"Cannot list {self._url}/{folder}", self._where
        )

    def create(self, path: str, content: bytes | Path) -> None:
        self._refuse("write", path)

    def remove(self, path: str) -> None:
        self._refuse("remove", path)

    def _refuse(self, doing: str, path: str) -> NoReturn:
        raise source_error(
            codes.STORAGE_READ_ONLY,
            f"Cannot {doing} {self._url}/{path}: a registry on a web server can only be read",
            self._where,
            expected="a local folder, s3://, az:// or gs://",
        )


async def _at_most(response: Any, limit: int) -> bytes:
    """A body, of which no more than ``limit`` bytes are kept. The rest is not waited for."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) >= limit:
            break
    return bytes(body[:limit])
