"""Functions of files' content that remember their latest results.

A tokenizer has millions of bytes, and a server that follows its manifest needs the same facts of it
at each change: reading it as JSON takes many times longer than hashing it, and lets no other thread
run meanwhile.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")
Files = Mapping[str, bytes]

KEPT = 4
"""Results that a function remembers."""


def remembered(read: Callable[[Files], T]) -> Callable[[Files], T]:
    """``read``, which does not read files again whose names and content are those of one of its
    latest calls. An error is not remembered. The result must not be changed by its callers."""
    known: OrderedDict[bytes, T] = OrderedDict()
    lock = threading.Lock()

    @functools.wraps(read)
    def look_up(files: Files) -> T:
        key = _key(files)
        with lock:
            if key in known:
                known.move_to_end(key)
                return known[key]
        found = read(files)
        with lock:
            known[key] = found
            if len(known) > KEPT:
                known.popitem(last=False)
        return found

    return look_up


def _key(files: Files) -> bytes:
    total = hashlib.sha256()
    for name, content in sorted(files.items()):
        total.update(f"{len(content)} {name}\n".encode())
        total.update(hashlib.sha256(content).digest())
    return total.digest()
