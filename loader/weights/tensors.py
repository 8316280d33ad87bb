"""An adapter's weights: read once into one buffer, hashed, checked, and sliced from there.

What is hashed, what is checked and what is attached are the same bytes, so nothing can change
between check and use.
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
from ...registry.store.verified import Verified
from .buffer import SMALL, Buffer, Work, buffer_of_bytes, buffer_of_file, empty
from .dtypes import FLOATS, INTEGERS
from .placement import Placement
from .repacked import repacked

_KINDS = {**FLOATS, **INTEGERS}
_WIDE = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
Item = tuple[str, TensorInfo]
Kind = Callable[[str, TensorInfo], object]
HOST = "cpu"
"""The device whose memory the buffer is in."""
_PIECE = 1 << 15
"""Values up to which torch works on one thread (ATen's GRAIN_SIZE)."""


class AdapterTensors:
    """One adapter's tensors over one host buffer.

    ``header`` says where in ``data`` (flat uint8) each tensor lies. Where the bytes still arrive,
    all methods that look at values wait for them, and raise :class:`SourceError` if they could not
    be read.
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
        """Wait for all that is under way, and for the digest; raise :class:`IntegrityError` if it
        is another one. Attaching does so before it touches the model."""
        self._buffer.verify()
        for copy in self._copies:
            copy.wait()
        while self._rests:
            self._rests.pop()()

    def shape(self, name: str) -> tuple[int, ...]:
        return self.header.tensors[name].shape

    def host(self, name: str) -> torch.Tensor:
        """One tensor in its stored dtype, on the CPU; it shares the buffer. Not after
        :meth:`verify` where the tensors were placed: the buffer is theirs then."""
        self._buffer.arrived()
        info = self.header.tensors[name]
        return self._run(info.dtype, info.start, info.end).view(info.shape)

    def converted(self, conversion: Conversion) -> AdapterTensors:
        """The tensors by the names of today, in this buffer where they are only renamed, else in
        one of their own once this one's digest is known to be right. Raises what :meth:`verify`
        raises."""
        if conversion.only_renames:
            return AdapterTensors(conversion.header, self._buffer, self.where)
        self.verify()
        buffer = repacked(self.host, conversion)
        return AdapterTensors(conversion.header, buffer, self.where)

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
                fit_codes.TENSOR_DTYPE.finding(
                    f"{_some(odd)} cannot be used as weights",
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
        """The named tensors in the dtype and on the device that each is wanted: once, as the
        buffer may become theirs. The values are there after :meth:`verify`.

        Neighbours that go to one device travel together: an adapter that is wanted whole on one
        device is one copy there, whatever its dtypes, and is converted after it. On the CPU
        neighbours of one dtype are at most one conversion, and share one storage. Where nothing is
        to be converted or moved they share this buffer, unless they must be their ``own`` (weights
        that will be trained).
        """
        if self._placed:
            raise RuntimeError("these tensors were placed already")
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
        """A stretch of the buffer, copied to ``device`` as it is and converted there. What stays
        in its dtype stays in the copy, if all of the stretch does."""
        start = stretch[0][1].start
        there = self.data[start : stretch[-1][1].end].to(device)
        kinds = {(info.dtype, dtypes[name]) for name, info in stretch}
        placed: dict[str, torch.Tensor] = {}
        for part in _alike(stretch, lambda name, info: (info.dtype, dtypes[name])):
            (name, first), (_, last) = part[0], part[-1]
            run = _as_kind(there, first.dtype, first.start - start, last.end - start)
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
        piece is half as long as the stretch between where it lies and where it goes."""
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
        """The named tensors as few flat tensors: each a stretch of the buffer in one dtype."""
        for part in self._stretches(names, lambda name, info: info.dtype):
            (_, first), (_, last) = part[0], part[-1]
            yield part, self._run(first.dtype, first.start, last.end)

    def _stretches(self, names: Iterable[str], kind: Kind) -> Iterable[Sequence[Item]]:
        """The named tensors in the order of the file, as few stretches of one ``kind`` each."""
        tensors = self.header.tensors
        items = sorted(((n, tensors[n]) for n in names), key=lambda item: item[1].start)
        return _alike(items, kind)

    def _run(self, dtype: str, start: int, end: int) -> torch.Tensor:
        return _as_kind(self.data, dtype, start, end)

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
    known: Header | None = None,
) -> AdapterTensors:
    """Read a safetensors file once, whole. Unless it is to ``wait``, all but the header of a large
    one arrives beside what comes next, and what goes wrong then is raised by the methods.

    ``sha256`` (``sha256:HEX``) is what its bytes must hash to; without it they are not hashed.
    Neither are they where ``verified`` knows that the file, as it is after the read, had this
    digest all along. Its header is not parsed again where it is the ``known`` one. The hashing runs
    beside what comes next: :meth:`AdapterTensors.verify` has
    the result. Raises :class:`SourceError` for a file that cannot be read or is no safetensors
    file (and :class:`IntegrityError` if that is because its bytes are others).
    """
    buffer = buffer_of_file(path, sha256, where, verified, wait=wait)
    return _tensors_in(buffer, where, Path(path).name, known)


def read_bytes(
    data: bytes | bytearray | memoryview,
    sha256: str | None = None,
    where: Where = Where(),  # noqa: B008 - frozen
) -> AdapterTensors:
    """The same from the bytes of a safetensors file in memory; they are copied once."""
    name = "the bytes given"
    return _tensors_in(buffer_of_bytes(data, sha256, where, name), where, name)


def _alike(items: Iterable[Item], kind: Kind) -> Iterable[Sequence[Item]]:
    """Neighbours of one ``kind``, without a gap between them."""
    part: list[Item] = []
    for item in items:
        if part and (item[1].start != part[-1][1].end or kind(*item) != kind(*part[-1])):
            yield part
            part = []
        part.append(item)
    if part:
        yield part


def _as_kind(data: torch.Tensor, dtype: str, start: int, end: int) -> torch.Tensor:
    """These bytes of a flat uint8 tensor as a flat tensor of a dtype of the format."""
    kind = _KINDS[dtype]
    part = data[start:end]
    if start % kind.itemsize:  # legal in the format, but no tensor can begin there
        part = part.clone()
    return part.view(kind)


def _cut(part: Sequence[Item], run: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors that lie side by side in ``run``, by name; it may have another dtype than the
    file."""
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
        buffer.verify()  # other bytes are the better explanation
        raise
    return AdapterTensors(header, buffer, where)


def _copying(to: torch.Tensor, run: torch.Tensor) -> Callable[[], None]:
    """The copy of ``run`` into ``to`` as one call, during which the interpreter is free.

    It goes in pieces so small that torch does not share them out between threads of its own:
    their start and their waiting would cost more than the few milliseconds of work. The pieces
    are cut here, as each call into torch waits for the interpreter anew.
    """
    pieces, sources = to.split(_PIECE), run.split(_PIECE)
    inference = to.is_inference()

    def copy() -> None:
        with torch.inference_mode(inference), torch.no_grad():
            torch._foreach_copy_(pieces, sources)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]

    return copy


def _largest(flat: torch.Tensor) -> float:
    """The largest magnitude; NaN or infinity if there is one."""
    if not flat.numel():
        return 0.0
    if flat.dtype not in _WIDE:
        flat = flat.float()
    ends = [end for piece in flat.split(_PIECE) for end in torch.aminmax(piece)]
    return torch.stack(ends).abs().max().item()  # NaN where there is one


def _may_become(stored: str, target: torch.dtype) -> bool:
    if target.is_floating_point:
        return stored in FLOATS
    return stored in INTEGERS


def _some(names: Iterable[str]) -> str:
    """A few names of many, as text."""
    all_of_them = list(names)
    shown = ", ".join(repr(name) for name in all_of_them[:3])
    return shown if len(all_of_them) <= 3 else f"{shown} and {len(all_of_them) - 3} more"
