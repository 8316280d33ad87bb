"""The bytes of one safetensors file in memory, read, hashed and converted on other threads.

This work releases the interpreter, and takes as long as the rest of an attach. Files are not
mapped: truncating a mapped file would kill the process, and overwriting it would change live
weights.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import IntegrityError, SourceError
from ...manifests.findings.finding import Where
from ...registry.store.verified import Verified

SMALL = 1 << 20
"""From this many bytes on, another thread is used."""
_ALIGN = 64


class Work:
    """A function that runs on another thread."""

    def __init__(self, act: Callable[[], Any], name: str) -> None:
        self._act = act
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"adapterdock-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._act()
        except BaseException as error:
            self._error = error

    def wait(self) -> Any:
        """Wait until it is done; return its result, or raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result


@dataclass(frozen=True)
class Buffer:
    """One file: ``head`` is its header with the eight bytes of its length, ``data`` the rest as a
    flat uint8 tensor.

    ``data`` is the second half of ``memory`` (apart from alignment). The first half is room to
    convert 16-bit weights to 32-bit ones in place: most of the cost of a conversion is getting new
    pages from the kernel, and pages that are not touched cost nothing. ``reading`` is the work
    that still fills ``data``, ``check_digest`` raises if the digest is wrong.
    """

    head: bytes
    data: torch.Tensor
    memory: memoryview
    reading: Work | None = None
    check_digest: Callable[[], None] = lambda: None

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.head) + self.data.numel()

    def arrived(self) -> None:
        """Wait until all bytes are read; raise :class:`SourceError` if they could not be read."""
        if self.reading is not None:
            self.reading.wait()

    def verify(self) -> None:
        """Wait for the bytes and their digest; raise :class:`IntegrityError` if it is wrong."""
        self.arrived()
        self.check_digest()


def buffer_of_file(
    path: str | os.PathLike[str],
    sha256: str | None,
    where: Where,
    verified: Verified | None,
    *,
    wait: bool,
) -> Buffer:
    """See ``read_file``."""
    file = Path(path)
    known = (lambda: None) if verified is None else partial(verified.known, file)
    with explained(file, where):
        stream = file.open("rb", buffering=0)
        try:
            head, memory, at = _begin(stream, os.fstat(stream.fileno()).st_size)
        except BaseException:
            stream.close()
            raise

    def finish() -> None:
        with explained(file, where), stream:
            _finish(stream, memory[at:])

    if wait or len(memory) - at < SMALL:
        finish()
        reading = None
    else:
        reading = Work(finish, "read")
    check = digest_check(head, memory[at:], sha256, where, file.name, reading, known)
    return Buffer(head, _flat(memory, at), memory, reading, check)


def buffer_of_bytes(
    data: bytes | bytearray | memoryview, sha256: str | None, where: Where, name: str
) -> Buffer:
    """See ``read_bytes``."""
    stream = io.BytesIO(data)
    head, memory, at = _begin(stream, memoryview(data).nbytes)
    _finish(stream, memory[at:])
    check = digest_check(head, memory[at:], sha256, where, name)
    return Buffer(head, _flat(memory, at), memory, None, check)


def digest_check(
    head: bytes,
    data: memoryview,
    expected: str | None,
    where: Where,
    name: str,
    reading: Work | None = None,
    known: Callable[[], str | None] = lambda: None,
) -> Callable[[], None]:
    """Hash a file on another thread after ``reading``, unless ``known`` then returns the digest of
    the unchanged file. The function that is returned raises if the digest is wrong."""
    if expected is None:
        return lambda: None

    def digest() -> str:
        if reading is not None:
            reading.wait()
        if known() == expected:
            return expected.lower()
        sha256 = hashlib.sha256(head)
        sha256.update(data)
        return f"sha256:{sha256.hexdigest()}"

    hashing = Work(digest, "sha256")

    def check() -> None:
        found = hashing.wait()
        if found != expected.lower():
            raise IntegrityError(
                codes.TENSORS_CHANGED.finding(
                    f"{name} differs from the pinned file", where, found=found, expected=expected
                )
            )

    return check


def buffer_in_memory(head: bytes, size: int) -> Buffer:
    """A buffer with ``size`` bytes of zeros."""
    room = size + -size % _ALIGN
    memory = memoryview(_allocate(room + size))[: room + size]
    return Buffer(head, _flat(memory, room), memory)


def empty(count: int, dtype: torch.dtype) -> torch.Tensor:
    """A flat tensor of ``count`` values in new memory that was not touched yet."""
    return torch.frombuffer(_allocate(count * dtype.itemsize), dtype=dtype, count=count)


@contextmanager
def explained(file: Path, where: Where) -> Generator[None, None, None]:
    """Raise failures to read ``file`` as :class:`SourceError`."""
    try:
        yield
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(
            codes.TENSORS_UNREADABLE.finding(
                f"{file.name} could not be read: {reason}", where, found=file
            )
        ) from error


def _begin(stream: io.FileIO | io.BytesIO, size: int) -> tuple[bytes, memoryview, int]:
    """The head, memory with room for the data part, and where in it the data starts."""
    head = bytearray(min(8, size))
    _fill(stream, memoryview(head), size)
    length = min(int.from_bytes(head, "little"), size - len(head))
    rest = bytearray(length)
    _fill(stream, memoryview(rest), size)
    data = size - len(head) - length
    room = data + -data % _ALIGN
    return bytes(head + rest), memoryview(_allocate(room + data))[: room + data], room


def _finish(stream: io.FileIO | io.BytesIO, view: memoryview) -> None:
    _fill(stream, view, len(view))
    if stream.read(1):
        raise EOFError(f"it grew beyond {len(view)} bytes of tensors while it was read")


def _fill(stream: io.FileIO | io.BytesIO, view: memoryview, size: int) -> None:
    at = 0
    while at < len(view):
        got = stream.readinto(view[at:])
        if not got:
            raise EOFError(f"it shrank below {size} bytes while it was read")
        at += got


def _flat(memory: memoryview, at: int) -> torch.Tensor:
    if at == len(memory):
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(memory, dtype=torch.uint8, offset=at)


def _allocate(size: int) -> bytearray | mmap.mmap:
    """New memory. A large block is not touched here: it gets its pages when it is written to, with
    the interpreter released, and returns them to the system with its last tensor."""
    if size < SMALL:
        return bytearray(size)
    private = getattr(mmap, "MAP_PRIVATE", None)
    if private is None:  # Windows
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=private | mmap.MAP_ANONYMOUS)
