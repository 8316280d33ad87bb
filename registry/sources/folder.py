"""What every kind of source can do once it is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from ...manifests.language.source import Source
from ..files.facts import FileFact

OnBytes = Callable[[int], None]
"""Told how many more bytes have arrived."""


class Folder(Protocol):
    """One folder at one revision, read-only.

    All paths are relative, with forward slashes, and stay inside the folder. Every method raises
    ``SourceError`` (or its ``OfflineError``), never a
    library's own exception.
    """

    @property
    def source(self) -> Source:
        """The source as declared."""
        ...

    @property
    def pinned(self) -> Source:
        """The same source at an immutable revision where its kind has one (Hub: the commit);
        else the source itself, whose files are pinned one by one by ``FileFact.version``."""
        ...

    @property
    def revision(self) -> str | None:
        """The Hub's commit hash, else ``None``."""
        ...

    @property
    def bytes_read(self) -> int:
        """Bytes of content that ``read`` and ``download`` have transferred so far."""
        ...

    def files(self) -> Mapping[str, FileFact]:
        """Every file in the folder (recursively), by path; listed once and kept."""
        ...

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """``length`` bytes of one file from ``start`` (to its end without a length), at the
        revision that ``files`` named: a file that has changed since is an error."""
        ...

    def local(self, path: str) -> Path | None:
        """Where the file already is on this machine (a local folder, the Hub's cache), or
        ``None`` where it would have to be downloaded."""
        ...

    def download(self, path: str, into: Path, on_bytes: OnBytes | None = None) -> Path:
        """Bring the file onto this machine and say where it is.

        ``into`` is a path that does not exist yet, for sources that have no place of their own;
        local folders and the Hub (which has its own cache) return their own path and leave
        ``into`` alone. What enters the Hub's cache is verified first (``IntegrityError``); other
        content is not verified here. ``on_bytes`` is also told of 0 bytes now and then."""
        ...
