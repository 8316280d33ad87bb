"""Keeps contents from being removed by a gc until an entry names them.

A publisher creates a hold, which names the contents, and only then lists the runs of gc. A run of
gc creates its list of condemned contents, and only then lists the holds, and after them the
entries. So at least one of the two sees the other:

- gc saw the hold, or the entry that follows it: it spares the contents.
- The publisher saw the run: for each condemned content it creates the file that gc must create
  before it removes one. Of ``keep`` and ``delete`` one wins. After a ``delete`` the publisher waits
  until the run has removed the content, and uploads it again.

None of this depends on how fast anybody is. Only what a killed process left behind is judged by its
age, by the storage's clock: a hold older than gc's grace is ignored, and an announced removal is
over after :data:`REMOVAL`. Living processes stay far below both: a publisher renews its hold, and
gc does not remove what it announced long ago.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import AdapterdockError, StoreError
from ...manifests.findings.finding import Where
from ..files.digests import PREFIX
from ..records.series import canonical
from ..storages.layout import GC, HOLDS, gc_closed, gc_file, gc_mark, gc_removed, hold_file
from ..storages.storage import Storage, write_once

LEAST_GRACE = 3600.0
"""Seconds for which every run of gc respects a hold."""
RENEWED = LEAST_GRACE / 4
"""A publisher's hold is never older (in seconds) when it creates its entry."""
REMOVAL = 900.0
"""Seconds after which a removal that was announced is over, or its gc was killed."""
PATIENCE = 20.0
"""Seconds that a publisher waits for a removal."""
LIMIT = 256 << 20
"""Bytes of a list of digests."""
_PAUSE = 0.25
_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_LIST = re.compile(rf"{GC}/([0-9]{{8}})\.json\Z")

KEEP, DELETE = "keep", "delete"


@dataclass
class Hold:
    """A publisher's hold on contents. Made by :func:`held`."""

    storage: Storage
    digests: Collection[str]
    patience: float
    wait: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _name: str = field(default="", init=False)
    _taken: float = field(default=0.0, init=False)

    def take(self) -> None:
        """Create the hold, and settle with every run of gc that may remove one of the contents.
        Afterwards none is removed any more. Raises :class:`StoreError` where one is being removed
        for too long."""
        before, self._name, self._taken = self._name, secrets.token_hex(16), self.clock()
        raw = canonical({"digests": sorted(self.digests), "nonce": self._name})
        write_once(self.storage, hold_file(self._name), raw)
        for number in open_runs(self.storage.find(GC)):
            try:
                condemned = digests_in(self.storage.read(gc_file(number), LIMIT))
            except FileNotFoundError:
                continue
            for digest in sorted(condemned.intersection(self.digests)):
                self._keep(number, digest)
        if before:
            _drop(self.storage, hold_file(before))

    def renew(self) -> bool:
        """Take the hold again if it is old; then contents may have been removed meanwhile."""
        if self.clock() - self._taken < RENEWED:
            return False
        self.take()
        return True

    def release(self) -> None:
        """Remove the hold. One that cannot be removed here is removed by gc."""
        _drop(self.storage, hold_file(self._name))

    def _keep(self, number: int, digest: str) -> None:
        mark = gc_mark(number, digest)
        if write_once(self.storage, mark, mark_bytes(KEEP)):
            return
        deadline = self.clock() + self.patience
        while self._is_removing(number, digest):
            if self._is_over(mark):
                return
            if self.clock() >= deadline:
                raise StoreError(
                    codes.CONTENT_BEING_REMOVED.finding(
                        f"A gc is removing {digest}, which is needed again",
                        Where(file=self.storage.url),
                        found=f"run {number}",
                    )
                )
            self.wait(_PAUSE)

    def _is_removing(self, number: int, digest: str) -> bool:
        """Whether the run said ``delete``, and may not have removed the content yet."""
        try:
            self.storage.read(gc_removed(number, digest), 1)
        except FileNotFoundError:
            try:
                return says(self.storage.read(gc_mark(number, digest), 1024)) != KEEP
            except FileNotFoundError:  # the run is closed, and its marks are removed
                return False
        return False

    def _is_over(self, mark: str) -> bool:
        """Whether the removal was announced so long ago that it is over."""
        announced = self.storage.times(mark.rpartition("/")[0]).get(mark)
        held_at = self.storage.times(HOLDS).get(hold_file(self._name))
        if announced is None or held_at is None:
            return False
        return held_at + (self.clock() - self._taken) - announced > REMOVAL


@contextmanager
def held(storage: Storage, digests: Collection[str]) -> Generator[Hold]:
    """Keep contents from gc during the block; at its end, an entry names them or nobody needs
    them."""
    hold = Hold(storage, digests, PATIENCE)
    try:
        hold.take()
        yield hold
    finally:
        hold.release()


def open_runs(paths: Iterable[str]) -> list[int]:
    """The numbers of the runs of gc, among the files ``paths``, that may still remove something."""
    known = set(paths)
    return [number for number in runs(known) if gc_closed(number) not in known]


def runs(paths: Iterable[str]) -> list[int]:
    """The numbers of all runs of gc among the files ``paths``, in order."""
    return sorted(int(match[1]) for path in paths if (match := _LIST.match(path)))


def digests_in(raw: bytes) -> set[str]:
    """Every SHA-256 that a file mentions, whatever its format."""
    return {PREFIX + found.decode() for found in _DIGEST.findall(raw)}


def mark_bytes(word: str) -> bytes:
    """What a mark of gc says, with a nonce: equal bytes are the same write."""
    return canonical({"says": word, "nonce": secrets.token_hex(8)})


def says(raw: bytes) -> str | None:
    """``keep``, ``delete``, or ``None`` for anything else."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    word = data.get("says") if isinstance(data, dict) else None
    return word if word in (KEEP, DELETE) else None


def _drop(storage: Storage, path: str) -> None:
    with suppress(AdapterdockError):
        storage.remove(path)
