"""Tensors of a checkpoint that are parts of a live one: which part each of them is.

transformers fuses experts when it loads, and its ``revert_weight_conversion`` cuts them apart
again. Run on meta tensors it tells, by strides and offsets, where in the live tensor the values of
every stored one lie. Where it copies on its way (rows that are interleaved, several tensors that
are joined) nothing can be told, and such a parameter is not written back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...registry.files.conversion import Shape
from .disk_names import layers_of, reverter


def rows_of(tensor: Tensor) -> Tensor:
    """A parameter of experts (experts, out, in) as (experts * out, in); any other of two or three
    dimensions likewise."""
    return tensor.flatten(0, -2)


@dataclass(frozen=True)
class Cut:
    """The part of a live tensor that a stored one of ``shape`` is: these rows (see
    :func:`rows_of`) and columns of it. ``order`` brings the stored one's dimensions into the live
    one's order."""

    shape: Shape
    order: tuple[int, ...]
    runs: tuple[slice, ...]
    columns: slice

    def rows_from(self, stored: Tensor) -> Tensor:
        """The stored tensor as these rows and columns."""
        return stored.permute(self.order).reshape(-1, self.columns.stop - self.columns.start)

    def stored_from(self, rows: Tensor) -> Tensor:
        """The same the other way round."""
        ordered = rows.view([self.shape[n] for n in self.order])
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return ordered.permute(back).reshape(self.shape)

    def taken(self, live: Tensor) -> Tensor:
        """These rows and columns of a live tensor."""
        return torch.cat([rows_of(live)[run, self.columns] for run in self.runs])


def cut_of(view: Tensor, live: Shape) -> Cut | None:
    """Where a view of a contiguous tensor of the shape ``live`` lies in it; ``None`` where it is
    made of no whole runs of its rows."""
    width = live[-1]
    order = sorted(range(view.dim()), key=lambda n: (-view.stride(n), n))
    ones = [n for n in order if view.shape[n] == 1]  # their strides mean nothing
    order = [*ones, *(n for n in order if view.shape[n] != 1)]
    steps = [(view.shape[n], view.stride(n)) for n in order]
    count = steps[-1][0] if steps and steps[-1][1] == 1 else 1
    down = steps[:-1] if count > 1 else steps
    if count == 1:  # a last dimension for its only column
        return None
    first, column = divmod(int(view.storage_offset()), width)
    if column + count > width or any(step % width for size, step in down if size > 1):
        return None
    starts = [first]
    for size, step in down:
        starts = [start + n * (step // width) for start in starts for n in range(size)]
    return Cut(tuple(view.shape), tuple(order), tuple(_runs(starts)), slice(column, column + count))


def _runs(rows: Iterable[int]) -> Iterator[slice]:
    """Rows that follow one another, together."""
    start = stop = -1
    for row in rows:
        if row != stop and start >= 0:
            yield slice(start, stop)
        if row != stop:
            start = row
        stop = row + 1
    if start >= 0:
        yield slice(start, stop)


def cuts_of(model: nn.Module, live: Mapping[str, Tensor], name: str) -> dict[str, Cut] | None:
    """{name on disk: its part} of the live tensor ``name``, all of it, each value once; ``None``
    where the conversion cannot be undone tensor by tensor."""
    revert = reverter(model)
    if revert is None or live[name].dim() < 2:
        return None
    group = next(names for names in layers_of(live).values() if name in names)
    metas = {n: torch.empty(live[n].shape, dtype=live[n].dtype, device="meta") for n in group}
    with _NoCopies():
        written = revert(metas)
    whole = metas[name]
    found: dict[str, Cut] = {}
    for stored, tensor in written.items():
        if tensor._base is whole or tensor is whole:  # pyright: ignore[reportPrivateUsage]
            cut = cut_of(tensor, tuple(whole.shape))
            if cut is None:
                return None
            found[stored] = cut
    return found if _covers(found.values(), tuple(whole.shape)) else None


def _covers(cuts: Iterable[Cut], live: Shape) -> bool:
    """Whether every value of the live tensor is in one cut, and in one only."""
    height, width = math.prod(live[:-1]), live[-1]
    spans = [(run, cut.columns) for cut in cuts for run in cut.runs]
    down = sorted({0, height, *(n for run, _ in spans for n in (run.start, run.stop))})
    across = sorted({0, width, *(n for _, at in spans for n in (at.start, at.stop))})
    seen = torch.zeros(len(down) - 1, len(across) - 1, dtype=torch.int32)
    for run, at in spans:
        rows = slice(down.index(run.start), down.index(run.stop))
        seen[rows, across.index(at.start) : across.index(at.stop)] += 1
    return bool((seen == 1).all())


class _NoCopies(TorchFunctionMode):
    """``contiguous`` would copy, and what is copied is no view any more."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.contiguous:
            return args[0]
        return func(*args, **(kwargs or {}))
