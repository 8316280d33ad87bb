"""The cache: files kept once, read-only, under the name of their content.

::

    objects/sha256/ab/<hex>   one file, mode 0444, never written in place
    trees/<hex>/              a folder for `from_pretrained`: links to objects
    tmp/<owner>/              being written; published by rename
    notes/<hex>               when an object was last used (its time), where it came from
    holds/<owner>             what a live process is using
    verified/                 memos (see `verified`)
    quarantine/               what was found damaged

Nothing here relies on a lock. A file gets its final name by one atomic rename, after its
content was verified and is on the disk; two processes that publish the same file rename the
same bytes. Whatever a killed process leaves behind is in `tmp`.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ...manifests.findings.errors import IntegrityError, StoreError
from ...manifests.findings.finding import Finding, Where
from ...manifests.findings.store import CACHE_UNKNOWN_PLACE, WRONG_DIGEST, WRONG_SIZE
from ...manifests.owner import Owner
from ..files.digests import PREFIX, is_digest, parse_digest, sha256_stream
from ..files.disk import fault, guarded, listing, remove, sync_folder
from . import link_trees as trees
from . import maintenance as upkeep
from .maintenance import Entry, Freed
from .verified import Verified

GRACE = 600.0
"""Seconds for which something that was used stays out of :meth:`Store.gc`'s reach."""

_log = logging.getLogger(__name__)
_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# A cache of adapterdock; backup programs may skip it (bford.info/cachedir).\n"
)


class Store:
    """A content-addressed cache in the folder ``root``. Making one touches no disk."""

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
            raise StoreError(CACHE_UNKNOWN_PLACE.finding("there is no home folder")) from error

    def object_path(self, digest: str) -> Path:
        """Where the object of this digest lies, or would lie."""
        name = parse_digest(digest)
        return self.objects / name[:2] / name

    def find(
        self,
        digest: str,
        size: int | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Path | None:
        """The verified file of this digest, or ``None`` where it is absent or damaged.

        It is hashed only if it was not verified before in this very state. Finding it counts as
        a use. Raises :class:`StoreError` where it is there and cannot be read.
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
                return None  # or it went between two looks at it
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
        on_bytes: Callable[[int], None] | None = None,
    ) -> Path:
        """Verify a file made under :meth:`temporary` and give it its final name.

        With ``digest`` ``None`` its content names it, whatever it is. ``origin`` says where it
        came from (for messages and ``cache ls``; nothing secret). Raises
        :class:`IntegrityError` where size or digest differ, and :class:`StoreError` where the
        disk refuses; then nothing is published. A file that is already there is kept.
        """
        what = origin or temporary.name
        with guarded(self.root, where):
            with temporary.open("rb", buffering=0) as stream:
                status = os.fstat(stream.fileno())
                if size not in (None, status.st_size):
                    raise IntegrityError(
                        WRONG_SIZE.finding(
                            f"{what} has another size than it should have",
                            where,
                            found=f"{status.st_size} bytes",
                            expected=f"{size} bytes",
                        )
                    )
                found = sha256_stream(stream, on_bytes)
                if digest not in (None, found):
                    raise IntegrityError(
                        WRONG_DIGEST.finding(
                            f"{what} has another content than it should have",
                            where,
                            found=found,
                            expected=digest,
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

        Whatever is left there goes when the block ends, however it ends. Raises
        :class:`StoreError` where the store cannot be written to.
        """
        place = self.tmp / Owner.me().new_name()
        upkeep.sweep(self.tmp)
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
        """Keep these objects (and trees that link to them) from any process's :meth:`gc` while
        the block runs. In a store that cannot be written to, nothing can be removed either."""
        lines = "".join(f"{PREFIX}{parse_digest(digest)}\n" for digest in digests)
        mark = self.holds / Owner.me().new_name()
        upkeep.sweep(self.holds)
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

    def materialise(self, files: Mapping[str, Path | str]) -> Path:
        """A read-only folder that holds these files under these names, for ``from_pretrained``.

        Values are digests of objects in the store, or paths of files elsewhere (the Hub's cache),
        which are linked to, not copied. Names may be nested. The folder's own name is the
        folder digest of its content, so the same files give the same folder; it is verified
        each time, through the memos. Raises :class:`StoreError` for a name that would leave the
        folder (all of them at once), a missing object, or a disk that refuses.
        """
        return trees.materialise(self, files)

    def exists(self) -> bool:
        """Whether there is a cache in the folder: something was put there, or begun to be."""
        if self.objects.is_dir():
            return True
        try:
            return (self.root / "CACHEDIR.TAG").read_text(encoding="utf-8") == _TAG
        except (OSError, UnicodeDecodeError):
            return False

    def entries(self) -> list[Entry]:
        """What is in the store, the least recently used first."""
        return upkeep.entries(self)

    def size(self) -> int:
        """Bytes of all objects, and of files in trees that are copies."""
        return upkeep.size(self)

    def verify(self, on_bytes: Callable[[int], None] | None = None) -> list[Finding]:
        """Read every object anew. Damaged ones are reported and moved to ``quarantine/``, so
        that the next pull fetches them again. A folder that is no cache is a finding."""
        return upkeep.verify(self, on_bytes)

    def gc(
        self, max_size: int | None = None, keep: Iterable[str] = (), *, grace: float = GRACE
    ) -> Freed:
        """Remove what killed processes left, folders of links that nobody uses, and then
        objects, the least recently used first, until at most ``max_size`` bytes are left.

        Without ``max_size`` no object is removed. Never removed: digests in ``keep``, what a
        live process holds (:meth:`hold`), and what was used less than ``grace`` seconds ago.
        Each step leaves a valid store. Raises :class:`StoreError` where the disk refuses, and for
        a folder with something in it that is no cache.
        """
        return upkeep.collect(self, max_size, frozenset(keep), grace)

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
        with suppress(OSError):  # it serves gc's order and people, not correctness
            self.notes.mkdir(parents=True, exist_ok=True)
            (self.notes / name).write_text(origin, encoding="utf-8")
