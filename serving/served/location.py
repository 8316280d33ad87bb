"""Where the followed manifest is: a file, or any URL."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ...manifests.bounds import LOCK_BYTES, MANIFEST_BYTES
from ...manifests.findings import lock as lock_codes
from ...manifests.findings import serving as codes
from ...manifests.findings.errors import AdapterdockError, LockError, ManifestError, SourceError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.source import Source, SourceSyntaxError
from ...manifests.lock_samples import samples_path
from ...manifests.lockfile import Lock, lock_path
from ...manifests.manifest import ManifestFile
from ...manifests.reading.bounded_file import read_at_most
from ...registry.catalogue.open_storage import open_storage
from ...registry.files.disk import FileMark, file_mark, remove
from ...registry.files.scratch import scratch_folder
from ...registry.locks.project import MANIFEST, lock_of, open_manifest
from ...registry.locks.state import lock_name
from ...registry.sources.failures import scrub
from ...registry.sources.open import open_source
from .last import Content

_URL = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+://", re.IGNORECASE)
_TRIES = 3

Read = Callable[[str, int], bytes | None]
"""``read(name, limit)``: a file beside the manifest, or ``None`` where there is none."""


@dataclass(frozen=True)
class Found:
    """A manifest and its lock, as they were read together.

    Args:
        file: The manifest.
        lock: Its lock; ``None`` where there is none, and none is needed.
        manifest_sha256: Of its bytes.
        lock_sha256: Of the lock's.
        content: All bytes, of a manifest at a URL.
    """

    file: ManifestFile
    lock: Lock | None
    manifest_sha256: str
    lock_sha256: str | None
    content: Content | None = None

    @property
    def locked(self) -> Lock:
        """The lock, of a location that needs one."""
        assert self.lock is not None
        return self.lock


class Location:
    """The place of one manifest. ``text`` is as the caller wrote it, without secrets.

    ``needs_lock`` refuses a local manifest without a lock; one at a URL always needs its lock.
    """

    def __init__(self, text: str, *, offline: bool = False, needs_lock: bool = True) -> None:
        self.text: str = scrub(text) if is_url(text) else text
        self._needs_lock = needs_lock or is_url(text)
        self._url = text
        self._read: Read | None = None
        self._folder: Path | None = None
        self._before: tuple[tuple[str | None, ...] | None, Found] | None = None
        self._offline = offline
        self._path = Path(text) if is_url(text) else local_path(text)
        self._name = text.rstrip("/").rpartition("/")[2] if is_url(text) else self._path.name

    @property
    def is_remote(self) -> bool:
        """Whether it must be asked for, each time."""
        return is_url(self._url)

    @property
    def identity(self) -> str:
        """What tells it from other places, without secrets: a path is absolute."""
        return self.text if self.is_remote else absolute(self._url)

    def read(self) -> Found:
        """The manifest and its lock, read together.

        Raises:
            ManifestError: The manifest is invalid, or it is at a URL and names something beside
                itself.
            LockError: The lock is missing or invalid.
            SourceError: The place cannot be reached (``OfflineError`` without a network).
        """
        with self.showing():
            return self._put(self._from_url()) if self.is_remote else self._from_files(self._path)

    def recall(self, content: Content) -> Found:
        """What :meth:`read` returned before, from its ``content``. Raises what that does."""
        with self.showing():
            return self._put(content)

    def marks(self) -> Mapping[str, FileMark]:
        """What changes when one of the local files does; empty for a URL."""
        if self.is_remote:
            return {}
        path = self._path / MANIFEST if self._path.is_dir() else self._path
        lock = lock_path(path)
        extended = self._before[1].file.files if self._before else ()
        paths = {path, lock, samples_path(lock), *extended}
        return {str(path): file_mark(path) for path in sorted(paths)}

    def close(self) -> None:
        """Remove what was fetched."""
        if self._folder is not None:
            remove(self._folder)
            self._folder = None

    # -- local -----------------------------------------------------------------------------

    def _from_files(self, path: Path) -> Found:
        """Read again where it changed meanwhile: a manifest and the lock of another one do not
        belong together. What did not change is not parsed again."""
        path = path / MANIFEST if path.is_dir() else path
        beside = (path, lock_path(path), samples_path(lock_path(path)))
        for _ in range(_TRIES):
            before = tuple(_digest(one) for one in beside)
            if self._before is not None and self._before[0] == self._key(beside):
                return self._before[1]
            file = open_manifest(path)
            lock = lock_of(file)
            if before == tuple(_digest(one) for one in beside):
                break
        else:
            raise LockError(
                lock_codes.LOCK_UNREADABLE.finding(
                    "The manifest or its lock changed during each read", Where(file=str(path))
                )
            )
        if before[0] is None or (lock is None and self._needs_lock):
            raise LockError(
                lock_codes.LOCK_MISSING.finding("The lock is missing", Where(file=lock_name(file)))
            )
        found = Found(file, lock, before[0], before[1])
        self._before = None, found
        self._before = self._key(beside), found
        return found

    def _key(self, beside: Iterable[Path]) -> tuple[str | None, ...]:
        """What changes with the manifest, its lock, and the files that it extended before."""
        extended = self._before[1].file.files if self._before else ()
        return tuple(_digest(one) for one in (*beside, *extended))

    # -- at a URL --------------------------------------------------------------------------

    def _from_url(self) -> Content:
        read = self._opened()
        raw = read(self._name, MANIFEST_BYTES + 1)
        if raw is None:
            raise SourceError(
                codes.MANIFEST_MISSING.finding("There is no manifest here", Where(file=self.text))
            )
        lock, samples = (read(name, LOCK_BYTES + 1) for name in self._beside())
        return Content(manifest=raw, lock=lock, samples=samples)

    def _beside(self) -> tuple[str, str]:
        lock = lock_path(self._name)
        return lock.name, samples_path(lock).name

    def _put(self, content: Content) -> Found:
        """Read what was fetched, from a folder of this process."""
        folder, raws = self._fetched(), (content.manifest, content.lock, content.samples)
        for name, raw in zip((self._name, *self._beside()), raws, strict=True):
            if raw is None:
                (folder / name).unlink(missing_ok=True)
            else:
                (folder / name).write_bytes(raw)
        found = self._from_files(folder / self._name)
        if beside_itself := list(_not_alone(found.file)):
            raise ManifestError(*beside_itself)
        return replace(found, content=content)

    def _opened(self) -> Read:
        if self._read is None:
            self._read = _reader(self._url, self.text, self._offline)
        return self._read

    def _fetched(self) -> Path:
        if self._folder is None:
            self._folder = scratch_folder()
        return self._folder

    def _shown(self, finding: Finding) -> Finding:
        """The finding with the URL in place of where its file was put."""
        if self._folder is None:
            return finding
        here = str(self._folder)
        there = self.text.rstrip("/").rpartition("/")[0]

        def shown(text: str | None) -> str | None:
            return None if text is None else text.replace(here, there)

        return replace(
            finding,
            message=shown(finding.message) or "",
            where=replace(finding.where, file=shown(finding.where.file)),
            found=shown(finding.found),
            expected=shown(finding.expected),
            hint=shown(finding.hint),
        )

    def shown(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        """Findings on this manifest, with the places that a person knows."""
        return tuple(self._shown(finding) for finding in findings)

    @contextmanager
    def showing(self) -> Generator[None]:
        """Show the places that a person knows in what the block raises."""
        try:
            yield
        except AdapterdockError as error:
            raise type(error)(*self.shown(error.findings)) from error


def is_url(text: str) -> bool:
    """Whether a manifest is asked for, and not read from a disk."""
    return _URL.match(text) is not None


def absolute(text: str) -> str:
    """The same place for a process in another folder: a path becomes absolute."""
    return text if is_url(text) else str(local_path(text).absolute())


def local_path(text: str) -> Path:
    """Of a path, or a ``file:`` URL."""
    return Path(unquote(urlsplit(text).path) if text.lower().startswith("file:") else text)


def _reader(text: str, shown: str, offline: bool) -> Read:
    """Reads files beside the manifest at this URL. Raises :class:`SourceError` for a URL that
    cannot have any."""
    try:
        source = Source.parse(text)
        folder = replace(source, location=source.location.rpartition("/")[0])
        if source.is_hub:
            folder = replace(source, path=posixpath.dirname(source.path))
        known = not (source.is_registry or source.is_oci or source.is_archive)
        known = known and bool(source.path or not source.is_hub)
        reason = "" if known and folder.location else "it does not name a file in a folder"
        Source.parse(str(folder))
    except SourceSyntaxError as error:
        raise _bad_url(shown, str(error)) from error
    if reason:
        raise _bad_url(shown, reason)
    return _hub_reader(folder, offline) if source.is_hub else _file_reader(folder, offline)


def _file_reader(folder: Source, offline: bool) -> Read:
    storage = open_storage(folder, directory=Path.cwd(), offline=offline)

    def read(name: str, limit: int) -> bytes | None:
        with suppress(FileNotFoundError):
            return storage.read(name, limit)
        return None

    return read


def _hub_reader(folder: Source, offline: bool) -> Read:
    def read(name: str, limit: int) -> bytes | None:
        opened = open_source(folder, directory=Path.cwd(), offline=offline)  # at its revision now
        fact = opened.files().get(name)
        return None if fact is None else opened.read(name, 0, min(fact.size, limit))

    return read


def _bad_url(shown: str, reason: str) -> SourceError:
    return SourceError(
        codes.BAD_MANIFEST_URL.finding(
            f"Invalid URL of a manifest: {reason}", Where(file=shown), found=shown
        )
    )


def _not_alone(file: ManifestFile) -> Iterable[Finding]:
    """Findings on what a fetched manifest names beside itself."""
    manifest = file.manifest
    named = {("base", "model"): manifest.base.model} | {
        ("adapters", name, "source"): adapter.source for name, adapter in manifest.adapters.items()
    }
    for path, source in named.items():
        if source is not None and (source.is_local or source.is_archive):
            place = Path(source.location).expanduser()
            if not place.is_absolute():
                yield _beside(f"{'.'.join(path)} is a relative path", file.where(path), source)
    for name, source in manifest.registries.items():
        if source.is_local and not Path(source.location).expanduser().is_absolute():
            path = ("registries", name)
            yield _beside(f"{'.'.join(path)} is a relative path", file.where(path), source)


def _beside(message: str, where: Where, found: object) -> Finding:
    return codes.MANIFEST_NOT_ALONE.finding(
        message, where, found=found, expected="a URL or an absolute path"
    )


def _digest(path: Path) -> str | None:
    """The digest of a small file's bytes, or ``None`` where it cannot be read."""
    try:
        content = read_at_most(path, LOCK_BYTES, regular=True)
        return f"sha256:{hashlib.sha256(content).hexdigest()}"
    except (OSError, ValueError):
        return None
