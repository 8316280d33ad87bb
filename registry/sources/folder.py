"""The interface of an opened source of any kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from ...manifests.language.source import Source
from ..files.facts import FileFact

OnBytes = Callable[[int], None]
"""Called with the number of bytes that just arrived."""


class Folder(Protocol):
    """One folder at one revision, read-only.

    All paths are relative, with forward slashes, and stay inside the folder. Each method raises
    ``SourceError`` (or its ``OfflineError``), never a library's own exception.
    """

    @property
    def source(self) -> Source:
        """The source as declared."""
        ...

    @property
    def pinned(self) -> Source:
        """The same source at an immutable revision if its kind has one (Hub: the commit); else
        the source itself, of which ``FileFact.version`` pins each file."""
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
        """Each file in the folder (recursively), by path; listed once and kept."""
        ...

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """``length`` bytes of one file from ``start`` (without a length, to its end), at the
        revision of ``files()``: a file that has changed since is an error."""
        ...

    def local(self, path: str) -> Path | None:
        """Where the file already is on this machine (a local folder, the Hub's cache), or
        ``None`` if it must be downloaded."""
        ...

    def download(self, path: str, into: Path, on_bytes: OnBytes | None = None) -> Path:
        """Bring the file onto this machine, and return its path.

        ``into`` is a path that does not exist yet. Local folders and the Hub (which has its own
        cache) do not use it and return their own path. Files for the Hub's cache are verified
        first (``IntegrityError``); others are not verified here. ``on_bytes`` is also called
        with 0 now and then."""
        ...


def damaged_hint(source: Source) -> str | None:
    """What to do about other bytes than the digest of a file says; ``None`` is the code's own hint.
    What is published never changes, so nobody can accept other bytes of it."""
    if not source.is_registry:
        return None
    return (
        "Find what is damaged with `adapterdock registry verify`, and restore it from a mirror or "
        "a backup."
    )


@runtime_checkable
class Gated(Protocol):
    """A folder whose owner may ask readers to accept terms first, as on the Hub."""

    gated: bool | None
    """``None`` where that was not asked, as offline."""


@runtime_checkable
class Hashing(Protocol):
    """A folder that hashes what it downloads, while it does."""

    def written(self, into: Path) -> str | None:
        """The ``sha256:HEX`` of what ``download`` wrote into ``into``, to whoever asks first."""
        ...
