"""The folder of private copies, which engines read.

::

    adapters/<hex>/     one adapter, read-only, under its digest; never changed in place
    records/<hex>       the files of one that was made here: their digests
    holds/<owner>       which of them a live process serves
    tmp/<owner>/        being made; published by rename

What servers remember for their next start is in ``last/`` beside these. The folder is beside the
cache's own, so ``cache gc`` never looks into it. Processes share it: the same content has the same
path in each, also after a restart. There are no locks: a user first writes its hold and then
looks; whoever removes first moves a copy away, in one step, and then reads the holds.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ...manifests.findings.errors import StoreError
from ...manifests.findings.store import CACHE_IO
from ...manifests.owner import Owner
from ...registry.files.digests import PREFIX, is_digest, parse_digest
from ...registry.files.disk import (
    close_folder,
    guarded,
    listing,
    move_folder,
    remove,
    sync_folder,
)
from ...registry.files.facts import FileFact
from ...registry.files.scratch import scratch_folder
from ...registry.sources.fetch import Fetched
from ...registry.store.store import Store, sweep
from ...registry.store.verified import Verified
from .private_file import copy_verified

_log = logging.getLogger("adapterdock")

GRACE = 600.0
"""Seconds that a copy stays after its last use: an engine may still read it."""
SWITCHES = 4
"""Later switches after which a copy may go that this process served."""
_RACES = 10

Build = Callable[[Path], Iterable[FileFact]]
"""Writes the files of an adapter into a new folder; what it wrote."""


class Copies:
    """Private copies in ``folder``; by default in the store's. Where that cannot be written, in a
    temporary folder of this process. Every method may be called from any thread, one at a time."""

    def __init__(self, store: Store, folder: Path | None = None, *, grace: float = GRACE) -> None:
        self._grace = grace
        if folder is None:
            with suppress(StoreError), store.temporary():
                pass  # from now on the folder is known as a cache
        self._root = _writable(Path(os.path.abspath(folder or store.root / "serving")))  # noqa: PTH100
        self._verified = Verified(self._root / "verified")
        self._mark = self._root / "holds" / Owner.me().new_name()
        self._pid = os.getpid()
        self._used: dict[str, tuple[int, float] | None] = {}
        self._facts: dict[str, tuple[FileFact, ...]] = {}
        self._switches = 0
        self._sweep()

    @property
    def root(self) -> Path:
        """Where the copies are."""
        return self._root

    def path(self, digest: str) -> Path:
        """Where the copy of this digest is, or will be."""
        return self._root / "adapters" / parse_digest(digest)

    def copy(self, digest: str, files: Mapping[str, Fetched]) -> Path:
        """The private copy of these verified files, by their paths in the folder; it is made where
        it is missing or damaged. It is held from now on.

        Raises:
            IntegrityError: A file has changed since it was verified.
            StoreError: The disk refuses.
        """
        facts = tuple(one.fact for one in files.values())

        def build(new: Path) -> Iterable[FileFact]:
            for path, fetched in files.items():
                place = new / path
                place.parent.mkdir(parents=True, exist_ok=True)
                copy_verified(fetched.path, place, fetched.fact)
            return facts

        return self._keep(digest, build, facts)

    def make(self, digest: str, build: Build) -> Path:
        """The folder that ``build`` makes, under the digest of what it is made from; it is made
        where it is missing or damaged. It is held from now on. Raises what ``build`` does, and
        :class:`StoreError`."""
        return self._keep(digest, build, None)

    def files(self, digest: str) -> tuple[FileFact, ...]:
        """The files of a copy that :meth:`copy` or :meth:`make` returned."""
        return self._facts[digest]

    def intact(self, digest: str) -> bool:
        """Whether a copy has exactly the files that were copied, with their content. They are read
        again only where they were touched."""
        facts, folder = self._facts.get(digest), self.path(digest)
        return facts is not None and self._is_intact(folder, facts)

    def serve(self, digests: Collection[str]) -> None:
        """Say what is served now. Other copies are kept for :data:`SWITCHES` more switches and the
        grace, and may then be removed by any process that holds none of them."""
        self._switches += 1
        now = time.monotonic()
        for digest, retired in list(self._used.items()):
            if digest in digests:
                self._used[digest] = None
            elif retired is None:
                self._used[digest] = (self._switches, now)
            elif self._switches - retired[0] >= SWITCHES and now - retired[1] >= self._grace:
                del self._used[digest]
                self._facts.pop(digest, None)
        with suppress(OSError):
            self._hold()
        self._sweep()

    # -- making ----------------------------------------------------------------------------

    def _keep(self, digest: str, build: Build, facts: tuple[FileFact, ...] | None) -> Path:
        folder = self.path(digest)
        new = digest not in self._used or self._pid != os.getpid()
        self._used[digest] = None
        with guarded(self._root):
            if new:
                self._hold()  # before the look, so that a sweeper sees this use or was first
            for _ in range(_RACES):
                with suppress(OSError):
                    os.utime(folder)
                known = facts or self._recorded(digest)
                if known is not None and self._is_intact(folder, known):
                    self._facts[digest] = known
                    return folder
                facts = self._publish(digest, folder, build, recorded=facts is None)
        raise StoreError(CACHE_IO.finding(f"Cannot make {folder}: it changed each time"))

    def _publish(
        self, digest: str, folder: Path, build: Build, *, recorded: bool
    ) -> tuple[FileFact, ...]:
        place = self._root / "tmp" / Owner.me().new_name()
        try:
            new = place / "new"
            new.mkdir(parents=True)
            made = tuple(build(new))
            for inside, _, _ in os.walk(new):
                sync_folder(Path(inside))
            if recorded:
                self._record(digest, made, place)
            folder.parent.mkdir(parents=True, exist_ok=True)
            # Another process may have made it meanwhile, and be reading from it.
            if os.path.lexists(folder) and not self._is_intact(folder, made):
                _log.warning("%s was changed; it is made again", folder)
                move_folder(folder, place / "old")
            if move_folder(new, folder):
                for fact in made:
                    assert fact.sha256 is not None
                    self._verified.record(folder / fact.path, fact.sha256)
                close_folder(folder)
                sync_folder(folder.parent)
        finally:
            remove(place)
        return made

    def _is_intact(self, folder: Path, facts: Iterable[FileFact]) -> bool:
        wanted = {fact.path: fact for fact in facts}
        found = {
            (Path(inside) / name).relative_to(folder).as_posix()
            for inside, _, names in os.walk(folder)
            for name in names
        }
        if found != wanted.keys():
            return False
        for path, fact in wanted.items():
            place = folder / path
            try:
                if place.is_symlink() or place.stat().st_size != fact.size:
                    return False
                if self._verified.digest(place, expected=fact.sha256) != fact.sha256:
                    return False
            except (OSError, StoreError):
                return False
        return True

    def _record(self, digest: str, facts: Iterable[FileFact], place: Path) -> None:
        rows = {fact.path: [fact.size, fact.sha256] for fact in facts}
        new = place / "record"
        new.write_text(json.dumps(rows), encoding="utf-8")
        target = self._root / "records" / parse_digest(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        new.replace(target)

    def _recorded(self, digest: str) -> tuple[FileFact, ...] | None:
        """What was made under this digest, or ``None``."""
        try:
            text = (self._root / "records" / parse_digest(digest)).read_text(encoding="utf-8")
            rows = json.loads(text)
            return tuple(FileFact(path, size, sha256) for path, (size, sha256) in rows.items())
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    # -- holds -----------------------------------------------------------------------------

    def _hold(self) -> None:
        if self._pid != os.getpid():  # a fork is another process
            self._mark, self._pid = self._mark.with_name(Owner.me().new_name()), os.getpid()
        self._mark.parent.mkdir(parents=True, exist_ok=True)
        new = self._mark.with_name(Owner.me().new_name())
        new.write_text("".join(f"{digest}\n" for digest in sorted(self._used)), encoding="utf-8")
        new.replace(self._mark)

    def _held(self) -> frozenset[str]:
        found: set[str] = set()
        for mark in listing(self._root / "holds"):
            owner = Owner.of(mark.name)
            with suppress(OSError, UnicodeDecodeError):
                if owner is not None and not owner.abandoned(time.time() - mark.stat().st_mtime):
                    found.update(mark.read_text(encoding="utf-8").split())
        return frozenset(found)

    def _sweep(self) -> None:
        """Remove what ended processes left, and copies that nobody serves any more."""
        for name in ("tmp", "holds"):
            sweep(self._root / name)
        with suppress(OSError, StoreError):
            held = self._held()
            for folder in listing(self._root / "adapters"):
                digest = PREFIX + folder.name
                if is_digest(digest) and digest not in held and digest not in self._used:
                    self._discard(folder, digest)

    def _discard(self, folder: Path, digest: str) -> None:
        used = folder.stat().st_mtime
        if time.time() - used < self._grace:
            return
        place = self._root / "tmp" / Owner.me().new_name()
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if not move_folder(folder, place):
                return
            if place.stat().st_mtime > used or digest in self._held():
                if move_folder(place, folder):
                    close_folder(folder)
                return
            (self._root / "records" / folder.name).unlink(missing_ok=True)
        finally:
            remove(place)


def _writable(folder: Path) -> Path:
    """The folder, or a temporary one where it cannot be written (the cache of an image may be
    read-only)."""
    probe = folder / "tmp" / Owner.me().new_name()
    try:
        probe.mkdir(parents=True)
        probe.rmdir()
    except OSError:
        with guarded(folder):
            place = scratch_folder()
        atexit.register(remove, place)
        return place
    return folder
