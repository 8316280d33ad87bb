"""The bytes of one safetensors file in memory of our own, and what goes on beside: reading,
hashing and converting leave the interpreter free, and take as long as all the rest of an attach.

Nothing here is mapped to a file: someone who truncates a mapped file kills the process, and
someone who overwrites it changes live weights.
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

import torch

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import IntegrityError, SourceError
from ...manifests.findings.finding import Where
from ...registry.store.verified import Verified

SMALL = 1 << 20
"""Bytes from which another thread is worth its start."""
_ALIGN = 64


class Work:
    """Something that another thread does meanwhile."""

    def __init__(self, act: Callable[[], None], name: str) -> None:
        self._act = act
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"adapterdock-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._act()
        except BaseException as error:
            self._error = error

    def wait(self) -> None:
        """Until it is done; raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error


@dataclass(frozen=True)
class Buffer:
    """One file: ``head`` is its header with the eight bytes of its length, ``data`` the rest as a
    flat uint8 tensor.

    ``data`` is the second half of ``memory`` (but for the alignment). The first half is room, in
    which 16-bit weights become 32-bit ones where they lie: most of what a conversion costs is the
    kernel's handing out of new pages, and pages that are never touched cost nothing. ``reading`` is
    what still fills ``data``, ``digest`` the hashing where one was asked for.
    """

    head: bytes
    data: torch.Tensor
    memory: memoryview
    reading: Work | None = None
    digest: DigestCheck | None = None

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.head) + self.data.numel()

    def arrived(self) -> None:
        """Wait until all bytes are there; raise :class:`SourceError` if they could not be read."""
        if self.reading is not None:
            self.reading.wait()

    def verify(self) -> None:
        """Wait for the bytes and their digest; raise :class:`IntegrityError` if it is another."""
        self.arrived()
        if self.digest is not None:
            self.digest.verify()


class DigestCheck:
    """Is this what was pinned? Hashed on a thread of its own, once ``reading`` has filled the
    ``parts``, unless the file is ``known`` by then to have had a digest all along."""

    def __init__(
        self,
        parts: tuple[bytes, memoryview],
        expected: str,
        where: Where,
        name: str,
        reading: Work | None = None,
        known: Callable[[], str | None] | None = None,
    ) -> None:
        self._parts = parts
        self._expected = expected
        self._where = where
        self._name = name
        self._reading = reading
        self._known = known
        self._digest: str | None = None
        self._hashing = Work(self._hash, "sha256")

    def _hash(self) -> None:
        if self._reading is not None:
            self._reading.wait()
        if self._known is not None and self._known() == self._expected:
            self._digest = self._expected.lower()
            return
        sha256 = hashlib.sha256()
        for part in self._parts:
            sha256.update(part)
        self._digest = "sha256:" + sha256.hexdigest()

    def verify(self) -> None:
        """Raise :class:`IntegrityError` unless the digest is the expected one."""
        self._hashing.wait()
        if self._digest != self._expected.lower():
            raise IntegrityError(
                codes.TENSORS_CHANGED.finding(
                    f"{self._name} is not the file that was pinned",
                    self._where,
                    found=self._digest,
                    expected=self._expected,
                )
            )


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

    reading = None
    if wait or len(memory) - at < SMALL:
        finish()
    else:
        reading = Work(finish, "read")
    digest = None
    if sha256 is not None:
        known = None if verified is None else partial(verified.known, file)
        digest = DigestCheck((head, memory[at:]), sha256, where, file.name, reading, known)
    return Buffer(head, _flat(memory, at), memory, reading, digest)


def buffer_of_bytes(
    data: bytes | bytearray | memoryview, sha256: str | None, where: Where, name: str
) -> Buffer:
    """The same from bytes in memory, which are copied once."""
    stream = io.BytesIO(data)
    head, memory, at = _begin(stream, memoryview(data).nbytes)
    _finish(stream, memory[at:])
    digest = None
    if sha256 is not None:
        digest = DigestCheck((head, memory[at:]), sha256, where, name)
    return Buffer(head, _flat(memory, at), memory, None, digest)


def buffer_in_memory(head: bytes, size: int) -> Buffer:
    """A buffer with ``size`` bytes of zeros to be written to."""
    room = size + -size % _ALIGN
    memory = memoryview(_allocate(room + size))[: room + size]
    return Buffer(head, _flat(memory, room), memory)


def empty(count: int, dtype: torch.dtype) -> torch.Tensor:
    """A flat tensor of ``count`` values in new memory, which nothing has touched."""
    return torch.frombuffer(_allocate(count * dtype.itemsize), dtype=dtype, count=count)


@contextmanager
def explained(file: Path, where: Where) -> Generator[None, None, None]:
    """Failures to read ``file``, raised inside, as :class:`SourceError`."""
    try:
        yield
    except OSError as error:
        raise SourceError(
            codes.TENSORS_UNREADABLE.finding(
                f"{file.name} could not be read: {error.strerror or error}", where, found=file
            )
        ) from error
    except EOFError as error:
        raise SourceError(
            codes.TENSORS_UNREADABLE.finding(f"{file.name}: {error}", where, found=file)
        ) from error


def _begin(stream: io.FileIO | io.BytesIO, size: int) -> tuple[bytes, memoryview, int]:
    """The head, memory for the data part and room before it, and where in it the data begins."""
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
        raise EOFError(f"it became longer than {len(view)} bytes of tensors while it was read")


def _fill(stream: io.FileIO | io.BytesIO, view: memoryview, size: int) -> None:
    at = 0
    while at < len(view):
        got = stream.readinto(view[at:])
        if not got:
            raise EOFError(f"it became shorter than {size} bytes while it was read")
        at += got


def _flat(memory: memoryview, at: int) -> torch.Tensor:
    if at == len(memory):
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(memory, dtype=torch.uint8, offset=at)


def _allocate(size: int) -> bytearray | mmap.mmap:
    """Memory of our own. A large one is not touched here: its pages come while it is written to,
    which leaves the interpreter free, and go back to the system with the last tensor in it."""
    if size < SMALL:
        return bytearray(size)
    private = getattr(mmap, "MAP_PRIVATE", None)
    if private is None:  # Windows
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=private | mmap.MAP_ANONYMOUS)
