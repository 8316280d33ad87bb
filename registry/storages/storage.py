"""Where a registry lies: a folder whose files are created, read, listed and, by gc, removed.

Nothing is ever overwritten, so one primitive is enough on every backend: a file is created only
where there is none of its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import IntegrityError
from ...manifests.findings.finding import Where
from ...manifests.findings.store import LOCAL_FILE_CHANGED
from ..files.digests import sha256_file
from ..sources.failures import source_error

_TRIES = 3


class Storage(Protocol):
    """A registry's folder. Paths are relative, with ``/``. Usable from several threads.

    Whatever the backend refuses is an :class:`AdapterdockError`; only the two exceptions that are
    named below have a meaning of their own.
    """

    @property
    def url(self) -> str:
        """The folder as a source, without secrets."""
        ...

    @property
    def creates(self) -> bool:
        """Whether a file can be created here so that of two writers one wins."""
        ...

    @property
    def lists(self) -> bool:
        """Whether ``find`` works here; a web server lists nothing."""
        ...

    def read(self, path: str, limit: int) -> bytes:
        """A file's bytes, at most ``limit``. Raises ``FileNotFoundError``."""
        ...

    def chunks(self, path: str) -> Iterator[bytes]:
        """A file's bytes in pieces, for files that are too large for the memory. Raises
        ``FileNotFoundError``."""
        ...

    def find(self, folder: str) -> Mapping[str, int]:
        """All files below ``folder`` with their sizes in bytes; none where there is no folder.
        What was created before is always among them."""
        ...

    def times(self, folder: str) -> Mapping[str, float]:
        """When each file below ``folder`` was created, in seconds by the storage's clock: only
        differences mean something."""
        ...

    def create(self, path: str, content: bytes | Path) -> None:
        """Create a file with these bytes, or those of a local file, completely or not at all.
        Raises ``FileExistsError`` where there is one, whatever it holds.

        Of two writers one wins; of a local file only where the storage promises it of uploads in
        parts (AWS does), otherwise both may believe that they won. So a local file's name says its
        content: then it does not matter."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file; one that is gone already is not an error."""
        ...


@runtime_checkable
class VerifyingStorage(Protocol):
    """A storage that hashes a file while it sends it."""

    def create_verified(self, path: str, content: Path, digest: str) -> None:
        """As ``create`` of a local file. Raises :class:`IntegrityError` where its digest is another
        one; then nothing is created."""
        ...


def create_verified(storage: Storage, path: str, content: Path, digest: str) -> None:
    """Create a file with the bytes of a local one, which have this ``sha256:HEX``; see
    :class:`VerifyingStorage`."""
    if isinstance(storage, VerifyingStorage):
        storage.create_verified(path, content, digest)
        return
    if sha256_file(content) != digest:
        raise file_changed(content)
    storage.create(path, content)


def file_changed(path: Path) -> IntegrityError:
    """The error for a file that is not what was validated."""
    return IntegrityError(
        LOCAL_FILE_CHANGED.finding("A file changed while it was published", found=path.name)
    )


def write_once(storage: Storage, path: str, content: bytes) -> bool:
    """Whether ``path`` holds ``content`` now. It does not where somebody else created it with other
    bytes.

    A request whose first answer was lost is repeated by the client, and then finds the file that it
    created itself. So a file that exists is read: equal bytes mean that the write succeeded.
    """
    for _ in range(_TRIES):
        try:
            storage.create(path, content)
        except FileExistsError:
            with suppress(FileNotFoundError):  # removed meanwhile: create it again
                return storage.read(path, len(content) + 1) == content
        else:
            return True
    raise source_error(
        codes.STORAGE_CONTRADICTS,
        f"{storage.url}/{path} exists when it is written, and not when it is read",
        Where(),
    )
