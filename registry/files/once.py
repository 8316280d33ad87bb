"""Something that is made once and used many times within one command."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from ...manifests.findings.errors import AdapterdockError

T = TypeVar("T")


@dataclass
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: Any = None
    error: AdapterdockError | None = None
    done: bool = False


class Once:
    """What was made in one command, by key. Usable from several threads: those that need the same
    value wait for the one that makes it."""

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
