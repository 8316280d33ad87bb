"""The registries that are open in one command or call: each of them is opened once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ...manifests.findings.errors import AdapterdockError

if TYPE_CHECKING:
    from ...manifests.language.source import Source
    from ..catalogue.catalogue import Catalogue, Listing, Seen
    from ..sources.opened import OpenedFolder

T = TypeVar("T")


@dataclass
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: Any = None
    error: AdapterdockError | None = None
    done: bool = False


@dataclass(frozen=True)
class OpenRegistry:
    """A registry that is open.

    Attributes:
        catalogue: Lists each name once.
        place: Where it is, absolute or a URL.
        registries: Those of the command.
        contents: Returns its blobs, by the hex digits of their digests.
    """

    catalogue: Catalogue
    place: Source
    registries: OpenRegistries
    contents: Callable[[], OpenedFolder]

    def listing(self, name: str) -> Listing:
        """Everything of one name but the contents, listed once."""
        return self.catalogue.listing(name)

    def check_journal(self, seen: Seen) -> None:
        """See :meth:`Catalogue.check_journal`; each line is read once."""
        key = ("journal", self.catalogue.id, self.place, seen)
        self.registries.once(key, lambda: self.catalogue.check_journal(seen))

    def journal_line(self) -> Seen | None:
        """The last line of the journal, found once."""
        key = ("journal", self.catalogue.id, self.place, None)
        return self.registries.once(key, self.catalogue.journal_line)


class OpenRegistries:
    """What was read of registries in one command, so that it is read once. Usable from several
    threads. Not kept for longer: others publish and promote meanwhile."""

    def __init__(self) -> None:
        self._slots: dict[Hashable, _Slot] = {}
        self._changing = threading.Lock()

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """``make()``, or what it returned (or raised) before for this ``key``."""
        with self._changing:
            slot = self._slots.setdefault(key, _Slot())
        with slot.lock:
            if not slot.done:
                try:
                    slot.value = make()
                except AdapterdockError as error:
                    slot.error = error
                slot.done = True
        if slot.error is not None:
            raise type(slot.error)(*slot.error.findings) from slot.error
        return cast(T, slot.value)
