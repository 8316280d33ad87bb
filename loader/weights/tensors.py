"""An adapter's weights: read once into one buffer, hashed, checked, and sliced from there.

The same bytes are hashed, checked and attached, so they cannot change between check and use.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch

from ...manifests.findings import fit as fit_codes
from ...manifests.findings import loader as codes
from ...manifests.findings.errors import SourceError
from ...manifests.findings.finding import Finding, Where
from ...registry.files.facts import Conversion, Header, TensorInfo
from ...registry.files.header import is_header_of, parse_header
from ...registry.files.wording import some
from ...registry.store.verified import Verified
from .buffer import SMALL, Buffer, Work, buffer_of_bytes, buffer_of_file, empty
from .dtypes import COMPUTE, FLOATS, INTEGERS, as_dtype
from .placement import Placement
from .repacked import repacked

Item = tuple[str, TensorInfo]
Kind = Callable[[str, TensorInfo], object]
HOST = "cpu"
"""The device of the buffer's memory."""
_PIECE = 1 << 15
"""Up to this many values, torch uses one thread (ATen's GRAIN_SIZE)."""


class AdapterTensors:
    """One adapter's tensors over one host buffer.

    ``header`` says where in ``data`` (flat uint8) each tensor is. All methods that use values wait
    for the bytes to be read, and raise :class:`SourceError` if they could not be read.
    """

    def __init__(self, header: Header, buffer: Buffer, where: Where = Where()) -> None:  # noqa: B008 - frozen
        self.header = header
        self.where = where
        self._buffer = buffer
        self._placed = False
        self._copies: list[Work] = []
        self._rests: list[Callable[[], None]] = []

    @property
    def data(self) -> torch.Tensor:
        return self._buffer.data

    def verify(self) -> None:
        """Wait for reading, copying and hashing; raise :class:`IntegrityError` for a wrong digest.
        Attaching does so before it changes the model."""
        self._buffer.verify()
        for copy in self._copies:
            copy.wait()
        while self._rests:
            self._rests.pop()()

    def shape(self, name: str) -> tuple[int, ...]:
        return self.header.tensors[name].shape

    def host(self, name: str) -> torch.Tensor:
        """One tensor in its stored dtype, on the CPU; it shares the buffer. Not valid after
        :meth:`place` and :meth:`verify`: the placed tensors then use the buffer."""
        self._buffer.arrived()
        info = self.header.tensors[name]
        return as_dtype(self.data, info.dtype, info.start, info.end).view(info.shape)

    def converted(self, conversion: Conversion) -> AdapterTensors:
        """The tensors by their current names: in this buffer if they are only renamed, else in a
        new one after this one was verified. Raises what :meth:`verify` raises."""
        if conversion.only_renames:
            return AdapterTensors(conversion.header, self._buffer, self.where)
        self.verify()
        buffer = repacked(self.host, conversion)
        return AdapterTensors(conversion.header, buffer, self.where)

    def findings(self, targets: Mapping[str, torch.dtype]) -> list[Finding]:
        """Problems with the values of the tensors in ``targets``, which has the dtype that each is
        attached in: dtypes that are not for weights, NaN and infinity, values outside of the dtype.
        Integers may only become integers (buffers of a module).

        One pass over the buffer if there are no problems; a second one finds their tensors.
        """
        stored = {name: self.header.tensors[name].dtype for name in targets}
        pairs = set(zip(stored.values(), targets.values(), strict=True))
        wrong = {pair for pair in pairs if not _may_become(*pair)}
        odd = [n for n in targets if (stored[n], targets[n]) in wrong] if wrong else []
        if odd:
            return [
                fit_codes.TENSOR_DTYPE.finding(
                    f"Cannot use {some(map(repr, odd))} as weights",
                    self.where,
                    found=", ".join(sorted({stored[n] for n in odd})),
                    expected=", ".join(FLOATS),
                )
            ]
        self._buffer.arrived()
        floats = {n: dtype for n, dtype in targets.items() if stored[n] in FLOATS}
        limit = min((torch.finfo(dtype).max for dtype in set(floats.values())), default=math.inf)
        if all(_largest(run) <= limit for _, run in self._runs(floats)):
            return []  # a NaN is not <= anything
        return self._wrong_values(floats)

    def place(
        self, wanted: Mapping[str, Placement], *, own: bool = False
    ) -> dict[str, torch.Tensor]:
        """The named tensors in their wanted dtype and on their wanted device. Can be called once,
        since the tensors may take over the buffer. Their values are valid after :meth:`verify`.

        Neighbours for one device are copied together: a complete adapter on one device is one copy,
        which is converted there. On the CPU, neighbours of one dtype are at most one conversion,
        and share a storage. Without a conversion or a copy they share this buffer, unless they
        need their ``own`` memory (weights that will be trained).
        """
        if self._placed:
            raise RuntimeError("These tensors were already placed")
        self._placed = True
        self._buffer.arrived()
        groups: dict[Placement, list[str]] = {}
        away: dict[torch.device, list[str]] = {}
        for name, placement in wanted.items():
            if placement.device.type == HOST:
                groups.setdefault(placement, []).append(name)
            else:
                away.setdefault(placement.device, []).append(name)
        # torch.save refuses storages that hold several dtypes
        own = own or len({self.header.tensors[name].dtype for name in wanted}) > 1
        placed: dict[str, torch.Tensor] = {}
        for placement, names in groups.items():
            for part, run in self._runs(names):
                placed |= _cut(part, self._moved(run, placement.dtype, own=own))
        for device, names in away.items():
            for stretch in self._stretches(names, lambda name, info: None):
                dtypes = {name: wanted[name].dtype for name, _ in stretch}
                placed |= self._sent(stretch, dtypes, device)
        return placed

    def _sent(
        self, stretch: Sequence[Item], dtypes: Mapping[str, torch.dtype], device: torch.device
    ) -> dict[str, torch.Tensor]:
        """A stretch of the buffer, copied to ``device`` and converted there. If all of it keeps its
        dtype, the tensors share the copy."""
        start = stretch[0][1].start
        there = self.data[start : stretch[-1][1].end].to(device)
        kinds = {(info.dtype, dtypes[name]) for name, info in stretch}
        placed: dict[str, torch.Tensor] = {}
        for part in _alike(stretch, lambda name, info: (info.dtype, dtypes[name])):
            (name, first), (_, last) = part[0], part[-1]
            run = as_dtype(there, first.dtype, first.start - start, last.end - start)
            moved = run.to(dtypes[name], copy=len(kinds) > 1)
            placed |= _cut(part, moved)
        return placed

    def _moved(self, run: torch.Tensor, dtype: torch.dtype, *, own: bool) -> torch.Tensor:
        if dtype != run.dtype and run.nbytes >= SMALL:
            if run.nbytes == self.data.numel() and dtype.itemsize == 2 * run.element_size():
                return self._widened(run, dtype)
            moved = empty(run.numel(), dtype)
            self._copies.append(Work(_copying(moved, run), "copy"))
            return moved
        moved = run.to(dtype)
        return moved.clone() if own and moved.data_ptr() == run.data_ptr() else moved

    def _widened(self, run: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """All of the data in a dtype of twice the size, in the same memory. The first half of the
        values goes into the room before them, the others follow when the digest is known: each
        piece is half as long as the distance between its old and its new place."""
        count = run.numel()
        moved = torch.frombuffer(self._buffer.memory, dtype=dtype, count=count)
        half = count // 2
        self._copies.append(Work(_copying(moved[:half], run[:half]), "copy"))

        def rest() -> None:
            at = half
            with torch.inference_mode(moved.is_inference()), torch.no_grad():
                while count - at > 64:
                    end = min(at + _PIECE, (count + at) // 2)
                    moved[at:end].copy_(run[at:end])
                    at = end
                moved[at:].copy_(run[at:].clone())

        self._rests.append(rest)
        return moved

    def _runs(self, names: Iterable[str]) -> Iterable[tuple[Sequence[Item], torch.Tensor]]:
        """The named tensors as few flat tensors, each a stretch of the buffer in one dtype."""
        for part in self._stretches(names, lambda name, info: info.dtype):
            (_, first), (_, last) = part[0], part[-1]
            yield part, as_dtype(self.data, first.dtype, first.start, last.end)

    def _stretches(self, names: Iterable[str], kind: Kind) -> Iterable[Sequence[Item]]:
        """The named tensors in the order of the file, as few stretches of one ``kind`` each."""
        tensors = self.header.tensors
        items = sorted(((n, tensors[n]) for n in names), key=lambda item: item[1].start)
        return _alike(items, kind)

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
                    f"NaN or infinite values in {some(map(repr, broken))}",
                    self.where,
                    found=f"{len(broken)} of {len(targets)} tensors",
                    expected="finite values",
                )
            )
        if wide:
            kinds = sorted({str(targets[n]).removeprefix("torch.") for n in wide})
            found.append(
                codes.DTYPE_TOO_NARROW.finding(
                    f"Values of {some(map(repr, wide))} do not fit {' or '.join(kinds)}", self.where
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
    known: Header | None = None,
) -> AdapterTensors:
    """Read a complete safetensors file once. Without ``wait``, the data of a large one is read in
    the background after the header, and the methods raise what fails then.

    ``sha256`` (``sha256:HEX``) is the expected digest of its bytes. They are hashed in the
    background, and :meth:`AdapterTensors.verify` has the result. They are not hashed without it, or
    if ``verified`` knows that the unchanged file has this digest. The header is not parsed again if
    it is the ``known`` one. Raises :class:`SourceError` for a file that cannot be read or is not a
    safetensors file (:class:`IntegrityError` if its digest is also wrong)."""
    buffer = buffer_of_file(path, sha256, where, verified, wait=wait)
    return _tensors_in(buffer, where, Path(path).name, known)


def read_bytes(
    data: bytes | bytearray | memoryview,
    sha256: str | None = None,
    where: Where = Where(),  # noqa: B008 - frozen
) -> AdapterTensors:
    """The same for the bytes of a safetensors file in memory; they are copied once."""
    name = "The safetensors data"
    return _tensors_in(buffer_of_bytes(data, sha256, where, name), where, name)


def _alike(items: Iterable[Item], kind: Kind) -> Iterable[Sequence[Item]]:
    """Runs of neighbours of one ``kind``, without gaps between them."""
    part: list[Item] = []
    for item in items:
        if part and (item[1].start != part[-1][1].end or kind(*item) != kind(*part[-1])):
            yield part
            part = []
        part.append(item)
    if part:
        yield part


def _cut(part: Sequence[Item], run: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors of ``part`` by name, from ``run``, which may have another dtype."""
    counts = [math.prod(info.shape) for _, info in part]
    pieces = run.split(counts)
    return {name: piece.view(info.shape) for (name, info), piece in zip(part, pieces, strict=True)}


def _tensors_in(
    buffer: Buffer, where: Where, name: str, known: Header | None = None
) -> AdapterTensors:
    if known is not None and is_header_of(known, buffer.head, buffer.size):
        return AdapterTensors(known, buffer, where)
    try:
        header = parse_header(buffer.head, buffer.size, where, name)
    except SourceError:
        buffer.verify()  # a wrong digest explains it better
        raise
    return AdapterTensors(header, buffer, where)


def _copying(to: torch.Tensor, run: torch.Tensor) -> Callable[[], None]:
    """The copy of ``run`` into ``to`` as one call, which releases the interpreter.

    It consists of pieces so small that torch does not distribute them to its threads: starting
    these would cost more than the few milliseconds of work. The pieces are cut beforehand, because
    each call into torch waits for the interpreter again.
    """
    pieces, sources = to.split(_PIECE), run.split(_PIECE)
    inference = to.is_inference()

    def copy() -> None:
        with torch.inference_mode(inference), torch.no_grad():
            torch._foreach_copy_(pieces, sources)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]

    return copy


def _largest(flat: torch.Tensor) -> float:
    """The largest magnitude; NaN if a value is NaN."""
    if not flat.numel():
        return 0.0
    if flat.dtype not in COMPUTE:
        flat = flat.float()
    ends = [end for piece in flat.split(_PIECE) for end in torch.aminmax(piece)]
    return torch.stack(ends).abs().max().item()  # NaN where there is one


def _may_become(stored: str, target: torch.dtype) -> bool:
    if target.is_floating_point:
        return stored in FLOATS
    return stored in INTEGERS
