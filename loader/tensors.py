"""An adapter's weights: read once into one buffer, hashed, checked, and sliced from there.

What is hashed, what is checked and what is attached are the same bytes, so nothing can change
between check and use. Nothing is mapped to a file: someone who truncates a mapped file kills the
process, and someone who overwrites it changes live weights.
"""

from __future__ import annotations

import hashlib
import io
import math
import mmap
import os
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..manifests.codes import loader as codes
from ..manifests.errors import AttachError, IntegrityError, SourceError
from ..manifests.findings import Finding, Where
from ..registry.facts import Header, TensorInfo
from ..registry.header import parse_header
from ..registry.verified import Verified
from .placement import Placement

FLOATS: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""The dtypes of an adapter's weights, by their names in a safetensors header."""

INTEGERS: Mapping[str, torch.dtype] = {
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Dtypes of buffers in whole saved modules (a BatchNorm counts its batches)."""

_KINDS = {**FLOATS, **INTEGERS}
_NAMES = {dtype: name for name, dtype in _KINDS.items()}
_WIDE = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
_ALIGN = 64
_SMALL = 1 << 20
"""Bytes from which another thread is worth its start."""
_HUGE = 1 << 21


class Work:
    """Something that another thread does meanwhile: reading, copying and hashing leave the
    interpreter free, and take as long as all the rest of an attach."""

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
class AdapterTensors:
    """One adapter's tensors over one host buffer.

    ``data`` is a flat uint8 tensor (the data part of the file, 64-byte aligned within its
    buffer); ``header`` says where in it each tensor lies. ``check`` is the hashing of that buffer,
    under way on another thread where a digest was asked for. ``reading`` is what still fills the
    buffer; all methods that look at values wait for it, and raise :class:`SourceError` if it
    failed. ``copying`` are the copies that :meth:`place` did not wait for.
    """

    header: Header
    data: torch.Tensor
    check: DigestCheck | None = None
    where: Where = Where()  # noqa: RUF009 - frozen
    reading: Work | None = None
    copying: list[Work] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors themselves."""
        return self.data.numel()

    def verify(self) -> None:
        """Wait for all that is under way, and for the digest; raise :class:`IntegrityError` if it
        is another one. Attaching does so before it touches the model."""
        self._arrived()
        if self.check is not None:
            self.check.verify()
        for copy in self.copying:
            copy.wait()

    def _arrived(self) -> None:
        if self.reading is not None:
            self.reading.wait()

    def shape(self, name: str) -> tuple[int, ...]:
        return self.header.tensors[name].shape

    def host(self, name: str) -> torch.Tensor:
        """One tensor in its stored dtype, on the CPU; it shares the buffer."""
        self._arrived()
        info = self.header.tensors[name]
        return self._run(info.dtype, info.start, info.end).view(info.shape)

    def findings(self, targets: Mapping[str, torch.dtype]) -> list[Finding]:
        """What is wrong with the values of the tensors in ``targets``, which says in what dtype
        each will be attached: dtypes that are no weights, NaN and infinity, values that do not
        fit. Integers may only become the integers that a buffer holds.

        One pass over the buffer where all is well; a second one names the tensors where not.
        """
        stored = {name: self.header.tensors[name].dtype for name in targets}
        pairs = set(zip(stored.values(), targets.values(), strict=True))
        wrong = {pair for pair in pairs if not _may_become(*pair)}
        odd = [n for n in targets if (stored[n], targets[n]) in wrong] if wrong else []
        if odd:
            return [
                codes.TENSORS_NOT_FLOAT.finding(
                    f"{_some(odd)} cannot be used as weights",
                    self.where,
                    found=", ".join(sorted({stored[n] for n in odd})),
                    expected=", ".join(FLOATS),
                )
            ]
        self._arrived()
        floats = {n: dtype for n, dtype in targets.items() if stored[n] in FLOATS}
        limit = min((torch.finfo(dtype).max for dtype in set(floats.values())), default=math.inf)
        if all(_largest(run) <= limit for _, run in self._runs(floats)):
            return []  # a NaN is not <= anything
        return self._wrong_values(floats)

    def place(
        self, wanted: Mapping[str, Placement], *, own: bool = False, wait: bool = True
    ) -> dict[str, torch.Tensor]:
        """The named tensors in the dtype and on the device that each is wanted.

        Neighbours of one dtype that go to one place travel together: an adapter that is wanted
        whole on one device is one copy and at most one conversion, and its tensors share one
        storage. Where nothing is to be converted or moved they share this buffer, unless they
        must be their ``own`` (weights that will be trained). Unless it is to ``wait``, large
        conversions go on beside what comes next: the values are there after :meth:`verify`.
        """
        self._arrived()
        groups: dict[Placement, list[str]] = {}
        for name, placement in wanted.items():
            groups.setdefault(placement, []).append(name)
        # torch.save refuses storages that hold several dtypes
        own = own or len({self.header.tensors[name].dtype for name in wanted}) > 1
        placed: dict[str, torch.Tensor] = {}
        for placement, names in groups.items():
            for part, run in self._runs(names):
                large = self.data.is_cpu and run.nbytes >= _SMALL
                if large and placement.device.type == "cpu" and placement.dtype != run.dtype:
                    moved = torch.empty(run.shape, dtype=placement.dtype, device="cpu")
                    copy = Work(partial(_copy, moved, run), "copy")
                    self.copying.append(copy)
                    if wait:
                        copy.wait()
                else:
                    moved = run.to(placement.device).to(placement.dtype)
                    if own and moved.data_ptr() == run.data_ptr():
                        moved = moved.clone()
                size = run.element_size()
                pieces = moved.split([(info.end - info.start) // size for _, info in part])
                for (name, info), piece in zip(part, pieces, strict=True):
                    placed[name] = piece.view(info.shape)
        return placed

    def _runs(
        self, names: Iterable[str]
    ) -> Iterable[tuple[list[tuple[str, TensorInfo]], torch.Tensor]]:
        """The named tensors as few flat tensors: each a stretch of the buffer in one dtype."""
        tensors = self.header.tensors
        part: list[tuple[str, TensorInfo]] = []
        dtype, start, end = "", 0, 0
        for item in sorted(((n, tensors[n]) for n in names), key=lambda item: item[1].start):
            info = item[1]
            if part and (info.dtype != dtype or info.start != end):
                yield part, self._run(dtype, start, end)
                part = []
            if not part:
                dtype, start = info.dtype, info.start
            part.append(item)
            end = info.end
        if part:
            yield part, self._run(dtype, start, end)

    def _run(self, dtype: str, start: int, end: int) -> torch.Tensor:
        kind = _KINDS[dtype]
        part = self.data[start:end]
        if start % kind.itemsize:  # legal in the format, but no tensor can begin there
            part = part.clone()
        return part.view(kind)

    def _wrong_values(self, targets: Mapping[str, torch.dtype]) -> list[Finding]:
        broken: list[str] = []
        wide: list[str] = []
        for name, dtype in targets.items():
            largest = _largest(self.host(name).view(-1))
            if not math.isfinite(largest):
                broken.append(name)
            elif largest > torch.finfo(dtype).max:
                wide.append(name)
        found: list[Finding] = []
        if broken:
            found.append(
                codes.TENSORS_NOT_FINITE.finding(
                    f"NaN or infinite values in {_some(broken)}",
                    self.where,
                    found=f"{len(broken)} of {len(targets)} tensors",
                    expected="finite values",
                )
            )
        if wide:
            kinds = sorted({str(targets[n]).removeprefix("torch.") for n in wide})
            found.append(
                codes.DTYPE_TOO_NARROW.finding(
                    f"values of {_some(wide)} do not fit {' or '.join(kinds)}", self.where
                )
            )
        return found


def read_file(
    path: str | os.PathLike[str],
    sha256: str | None = None,
    where: Where = Where(),  # noqa: B008 - frozen
    verified: Verified | None = None,
    *,
    wait: bool = True,
) -> AdapterTensors:
    """Read a safetensors file once, whole. Unless it is to ``wait``, all but the header of a large
    one arrives beside what comes next, and what goes wrong then is raised by the methods.

    ``sha256`` (``sha256:HEX``) is what its bytes must hash to; without it they are not hashed.
    Neither are they where ``verified`` knows that the file, as it is after the read, had this
    digest all along. The hashing runs beside what comes next: :meth:`AdapterTensors.verify` has
    the result. Raises :class:`SourceError` for a file that cannot be read or is no safetensors
    file (and :class:`IntegrityError` if that is because its bytes are others).
    """
    file = Path(path)
    with _explained(file, where):
        stream = file.open("rb", buffering=0)
        try:
            size = os.fstat(stream.fileno()).st_size
            view, at = _begin(stream, size)
        except BaseException:
            stream.close()
            raise

    def finish() -> None:
        with _explained(file, where), stream:
            _finish(stream, view, at)

    reading = None
    if wait or size - at < _SMALL:
        finish()
    else:
        reading = Work(finish, "read")
    check = None
    if sha256 is not None:
        known = None if verified is None else partial(verified.known, file)
        check = DigestCheck(view, sha256, where, file.name, reading, known)
    return _of_view(view, check, where, file.name, reading)


def read_bytes(
    data: bytes | bytearray | memoryview,
    sha256: str | None = None,
    where: Where = Where(),  # noqa: B008 - frozen
) -> AdapterTensors:
    """The same from the bytes of a safetensors file in memory; they are copied once."""
    stream = io.BytesIO(data)
    view, at = _begin(stream, memoryview(data).nbytes)
    _finish(stream, view, at)
    name = "the bytes given"
    check = None if sha256 is None else DigestCheck(view, sha256, where, name)
    return _of_view(view, check, where, name)


def read_mapping(
    tensors: Mapping[str, torch.Tensor],
    where: Where = Where(),  # noqa: B008 - frozen
) -> AdapterTensors:
    """The same from tensors in memory, by the names they would have in the file.

    They are copied, so that what the caller does with them later changes nothing here. Raises
    :class:`AttachError` for values that are no dense floating-point tensors.
    """
    odd = {name: _kind_of(value) for name, value in tensors.items() if not _usable(value)}
    if odd:
        raise AttachError(
            codes.TENSORS_NOT_FLOAT.finding(
                f"{_some(odd)} cannot be used as weights",
                where,
                found=", ".join(sorted(set(odd.values()))),
                expected="dense tensors with values, of " + ", ".join(FLOATS),
            )
        )
    infos: dict[str, TensorInfo] = {}
    at = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize):
        end = at + tensor.numel() * tensor.dtype.itemsize
        infos[name] = TensorInfo(_NAMES[tensor.dtype], tuple(tensor.shape), at, end)
        at = end
    data = torch.empty(at, dtype=torch.uint8)
    for name, info in infos.items():
        flat = tensors[name].detach().to("cpu").contiguous().view(-1)
        data[info.start : info.end] = flat.view(torch.uint8)
    return AdapterTensors(Header(infos, {}, 0, at), data, None, where)


class DigestCheck:
    """Is this buffer what was pinned? Hashed on a thread of its own, once ``reading`` has filled
    it, unless the file is ``known`` by then to have had a digest all along."""

    def __init__(
        self,
        view: memoryview,
        expected: str,
        where: Where,
        name: str,
        reading: Work | None = None,
        known: Callable[[], str | None] | None = None,
    ) -> None:
        self._view = view
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
        else:
            self._digest = "sha256:" + hashlib.sha256(self._view).hexdigest()

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


Buffer = bytearray | mmap.mmap


def _begin(stream: io.FileIO | io.BytesIO, size: int) -> tuple[memoryview, int]:
    """A place for the stream's bytes, such that its data part has a good address, and how many
    of them are there by now: all of the header."""
    first = stream.read(min(8, size))
    length = int.from_bytes(first, "little")
    pad = -(8 + length) % _ALIGN
    view = memoryview(_allocate(pad + size))[pad : pad + size]
    view[: len(first)] = first
    return view, _fill(stream, view, len(first), min(8 + length, size))


def _finish(stream: io.FileIO | io.BytesIO, view: memoryview, at: int) -> None:
    _fill(stream, view, at, len(view))
    if stream.read(1):
        raise EOFError(f"it became longer than {len(view)} bytes while it was read")


def _fill(stream: io.FileIO | io.BytesIO, view: memoryview, at: int, end: int) -> int:
    while at < end:
        got = stream.readinto(view[at:end])
        if not got:
            raise EOFError(f"it became shorter while it was read: {at} of {len(view)} bytes")
        at += got
    return at


@contextmanager
def _explained(file: Path, where: Where) -> Generator[None, None, None]:
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


def _allocate(size: int) -> Buffer:
    """Memory of our own (never a mapped file). A large one is not touched here: its pages come
    while it is read into, which leaves the interpreter free. Most of the time of a read into new
    memory is the kernel's, page by page; huge pages halve it."""
    if size < _SMALL:
        return bytearray(size)
    private = getattr(mmap, "MAP_PRIVATE", None)
    if private is None:  # Windows
        return mmap.mmap(-1, size)
    # whole huge pages, which the kernel then aligns
    whole = -(-size // _HUGE) * _HUGE if size >= 2 * _HUGE else size
    memory = mmap.mmap(-1, whole, flags=private | mmap.MAP_ANONYMOUS)
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is not None:
        with suppress(OSError):  # a kernel without them
            memory.madvise(advice)
    return memory


def _copy(to: torch.Tensor, run: torch.Tensor) -> None:
    with torch.inference_mode(to.is_inference()), torch.no_grad():
        to.copy_(run)


def _of_view(
    view: memoryview,
    check: DigestCheck | None,
    where: Where,
    name: str,
    reading: Work | None = None,
) -> AdapterTensors:
    length = int.from_bytes(view[:8], "little")
    try:
        header = parse_header(bytes(view[: 8 + min(length, len(view))]), len(view), where, name)
    except SourceError:
        if reading is not None:
            reading.wait()
        if check is not None:
            check.verify()  # other bytes are the better explanation
        raise
    if len(view) == header.data_start:
        return AdapterTensors(header, torch.empty(0, dtype=torch.uint8), check, where)
    data = torch.frombuffer(view, dtype=torch.uint8)[header.data_start :]
    return AdapterTensors(header, data, check, where, reading)


def _largest(flat: torch.Tensor) -> float:
    """The largest magnitude; NaN or infinity if there is one."""
    if not flat.numel():
        return 0.0
    if flat.dtype not in _WIDE:
        flat = flat.float()
    low, high = torch.aminmax(flat)
    return max(-low.item(), high.item()) if not math.isnan(low.item()) else math.nan


def _may_become(stored: str, target: torch.dtype) -> bool:
    if target.is_floating_point:
        return stored in FLOATS
    return stored in INTEGERS


def _usable(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.dtype in _NAMES
        and value.layout is torch.strided
        and not value.is_meta
    )


def _kind_of(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return "meta" if value.is_meta else str(value.dtype).removeprefix("torch.")


def _some(names: Iterable[str]) -> str:
    """A few names of many, as text."""
    all_of_them = list(names)
    shown = ", ".join(repr(name) for name in all_of_them[:3])
    return shown if len(all_of_them) <= 3 else f"{shown} and {len(all_of_them) - 3} more"
