"""The cache: files kept once, read-only, under the digest of their content.

::

    objects/sha256/ab/<hex>   one file, mode 0444, never written in place
    trees/<hex>/              a folder for `from_pretrained`: links to objects
    tmp/<owner>/              being written; published by rename
    notes/<hex>               when an object was last used (its time), where it came from
    holds/<owner>             what a live process is using
    verified/                 memos (see `verified`)
    quarantine/               damaged files

There are no locks. A file gets its final name by one atomic rename, after its content was
verified and is on the disk; two processes that publish the same file rename the same bytes. The
remains of a killed process are in `tmp`.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

from ...manifests.findings.errors import IntegrityError, StoreError
from ...manifests.findings.finding import Where
from ...manifests.findings.store import CACHE_UNKNOWN_PLACE, WRONG_DIGEST, WRONG_SIZE
from ...manifests.owner import Owner
from ..files.digests import PREFIX, is_digest, parse_digest, sha256_stream
from ..files.disk import fault, guarded, listing, remove, sync_folder
from .verified import Verified

_log = logging.getLogger(__name__)
_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# A cache of adapterdock; backup programs may skip it (bford.info/cachedir).\n"
)


class Store:
    """A content-addressed cache in the folder ``root``. The constructor touches no disk."""

    def __init__(self, root: Path) -> None:
        self.root: Path = Path(os.path.abspath(root.expanduser()))  # noqa: PTH100 - not resolved
        self.objects: Path = self.root / "objects" / "sha256"
        self.trees: Path = self.root / "trees"
        self.tmp: Path = self.root / "tmp"
        self.notes: Path = self.root / "notes"
        self.holds: Path = self.root / "holds"
        self.quarantine: Path = self.root / "quarantine"
        self.verified: Verified = Verified(self.root / "verified")

    @classmethod
    def default(cls) -> Store:
        """The user's: ``$ADAPTERDOCK_CACHE``, else ``$XDG_CACHE_HOME/adapterdock``, else
        ``~/.cache/adapterdock``."""
        if chosen := os.environ.get("ADAPTERDOCK_CACHE"):
            return cls(Path(chosen))
        # The XDG specification: a relative path is invalid and is ignored.
        xdg = os.environ.get("XDG_CACHE_HOME", "")
        if Path(xdg).is_absolute():
            return cls(Path(xdg) / "adapterdock")
        try:
            return cls(Path.home() / ".cache" / "adapterdock")
        except RuntimeError as error:
            raise StoreError(CACHE_UNKNOWN_PLACE.finding("This user has no home folder")) from error

    def object_path(self, digest: str) -> Path:
        """The path of the object of this digest, which may be absent."""
        name = parse_digest(digest)
        return self.objects / name[:2] / name

    def find(
        self,
        digest: str,
        size: int | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Path | None:
        """The verified file of this digest, or ``None`` where it is absent or damaged.

        It is hashed only if it changed since it was last verified. Finding it counts as a use.
        Raises :class:`StoreError` if it exists and cannot be read.
        """
        path = self.object_path(digest)
        note = self.notes / path.name
        with suppress(OSError):  # before the look, so that gc sees this use or was first
            os.utime(note)
        try:
            status = path.lstat()
            sound = stat.S_ISREG(status.st_mode) and size in (None, status.st_size)
            if sound and self.verified.digest(path, expected=digest, on_bytes=on_bytes) == digest:
                if not note.exists():
                    self._note(path.name, "")
                return path
        except (OSError, StoreError) as error:
            system = error.__cause__ if isinstance(error, StoreError) else error
            if isinstance(system, FileNotFoundError | NotADirectoryError):
                return None  # perhaps removed just now
            if isinstance(error, OSError):
                raise StoreError(fault(error, path)) from error
            raise
        _log.warning("%s is damaged and will not be used", path)
        return None

    def publish(
        self,
        temporary: Path,
        digest: str | None,
        size: int | None = None,
        *,
        origin: str = "",
        where: Where = Where(),  # noqa: B008 - frozen
        known: str | None = None,
        hint: str | None = None,
    ) -> Path:
        """Verify a file made under :meth:`temporary` and give it its final name.

        Without ``digest`` or ``size``, any content is accepted. ``origin`` says where it came from
        (for messages and ``cache ls``; nothing secret). ``known`` is the digest of what this
        process wrote into the file; without it, the file is read and hashed. ``hint`` says what
        to do where the digest differs. Raises
        :class:`IntegrityError` if size or digest differ, and :class:`StoreError` if the disk
        refuses; then nothing is published. A file that already exists is kept.
        """
        what = origin or temporary.name
        with guarded(self.root, where):
            with temporary.open("rb", buffering=0) as stream:
                status = os.fstat(stream.fileno())
                if size not in (None, status.st_size):
                    raise IntegrityError(
                        WRONG_SIZE.finding(
                            f"{what} has the wrong size",
                            where,
                            found=f"{status.st_size} bytes",
                            expected=f"{size} bytes",
                        )
                    )
                found = known or sha256_stream(stream)
                if digest not in (None, found):
                    raise IntegrityError(
                        WRONG_DIGEST.finding(
                            f"{what} has the wrong content",
                            where,
                            found=found,
                            expected=digest,
                            hint=hint,
                        )
                    )
                temporary.chmod(stat.S_IMODE(status.st_mode) & ~0o333)
                os.fsync(stream.fileno())
            if existing := self.find(found, status.st_size):
                temporary.unlink()
                return existing
            path = self.object_path(found)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._note(path.name, origin)
            temporary.replace(path)
            sync_folder(path.parent)
            self.verified.record(path, found)
        return path

    @contextmanager
    def temporary(self) -> Generator[Path]:
        """A path that does not exist yet, for one file or folder on the store's own file system.

        It is removed when the block ends. Raises :class:`StoreError` if the store cannot be
        written to.
        """
        place = self.tmp / Owner.me().new_name()
        sweep(self.tmp)
        try:
            with guarded(self.root):
                if not self.tmp.is_dir():
                    self.tmp.mkdir(parents=True, exist_ok=True)
                    with suppress(FileExistsError), (self.root / "CACHEDIR.TAG").open("x") as tag:
                        tag.write(_TAG)
                place.mkdir()
            yield place / "new"
        finally:
            remove(place)

    @contextmanager
    def hold(self, digests: Iterable[str]) -> Generator[None]:
        """Keep these objects (and trees that link to them) from any process's
        ``maintenance.collect`` while the block runs.

        A read-only store needs no mark: nothing can be removed from it.
        """
        lines = "".join(f"{PREFIX}{parse_digest(digest)}\n" for digest in digests)
        mark = self.holds / Owner.me().new_name()
        sweep(self.holds)
        try:
            try:
                self.holds.mkdir(parents=True, exist_ok=True)
                mark.write_text(lines, encoding="utf-8")
            except OSError as error:
                _log.debug("no mark in %s: %s", self.holds, error)
            yield
        finally:
            with suppress(OSError):
                mark.unlink(missing_ok=True)

    def exists(self) -> bool:
        """Whether the folder is a cache: something was, or started to be, put there."""
        if self.objects.is_dir():
            return True
        try:
            return (self.root / "CACHEDIR.TAG").read_text(encoding="utf-8") == _TAG
        except (OSError, UnicodeDecodeError):
            return False

    def held(self) -> frozenset[str]:
        """The digests that live processes hold."""
        digests: set[str] = set()
        for mark in listing(self.holds):
            owner = Owner.of(mark.name)
            try:
                if owner is None or owner.abandoned(time.time() - mark.stat().st_mtime):
                    continue
                digests.update(mark.read_text(encoding="utf-8").split())
            except (OSError, UnicodeDecodeError):
                continue
        return frozenset(d for d in digests if is_digest(d))

    def last_used(self, path: Path) -> float:
        """When an object or a tree was last found or made (seconds, the file system's clock)."""
        times = [0.0]
        for file in (self.notes / path.name, path):
            with suppress(OSError):
                times.append(file.lstat().st_mtime)
        return max(times)

    def origin(self, digest: str) -> str:
        """Where an object came from, or ``""``."""
        try:
            note = self.notes / parse_digest(digest)
            return note.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    def _note(self, name: str, origin: str) -> None:
        with suppress(OSError):  # only for gc's order and for people
            self.notes.mkdir(parents=True, exist_ok=True)
            (self.notes / name).write_text(origin, encoding="utf-8")


def sweep(folder: Path, now: float | None = None) -> None:
    """Remove the remains of ended processes in the store's ``tmp`` or ``holds``."""
    with suppress(StoreError):  # the next write reports what is wrong
        for left in listing(folder):
            owner = Owner.of(left.name)
            age = (time.time() if now is None else now) - _newest(left)
            if owner is not None and owner.abandoned(age):
                remove(left)


def _newest(path: Path) -> float:
    times = [0.0]
    with suppress(OSError):
        times.append(path.lstat().st_mtime)
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                times.append((Path(folder) / name).lstat().st_mtime)
    return max(times)
