"""Headers that were parsed before: adapters of one kind for one base have the same header."""

from __future__ import annotations

import threading
from collections import OrderedDict

from .facts import Header
from .header import digest_of

LIMIT = 32
"""How many are kept, those that were used last."""


class KnownHeaders:
    """Headers by the digest of their bytes and the size of their file. Usable from several
    threads."""

    def __init__(self) -> None:
        self._headers: OrderedDict[tuple[str, int], Header] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, head: bytes, size: int) -> Header | None:
        """The header of a file of ``size`` bytes that begins with ``head``, all of its header."""
        key = (digest_of(head), size)
        with self._lock:
            found = self._headers.get(key)
            if found is not None:
                self._headers.move_to_end(key)
            return found

    def keep(self, header: Header) -> None:
        """Keep a header that was parsed."""
        with self._lock:
            self._headers[header.digest, header.size] = header
            while len(self._headers) > LIMIT:
                self._headers.popitem(last=False)
