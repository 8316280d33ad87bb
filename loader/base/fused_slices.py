"""Tensors of a checkpoint that are parts of a live one: which part each of them is.

transformers fuses experts when it loads, and its ``revert_weight_conversion`` separates them again.
Run on meta tensors, it shows by strides and offsets where each stored tensor is in the live one.
Where it copies on the way (interleaved rows, joined tensors) this is not possible, and such a
parameter is not written back.
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
    """A parameter (experts, out, in) as (experts * out, in); other dimensions in the same way."""
    return tensor.flatten(0, -2)


@dataclass(frozen=True)
class Cut:
    """A stored tensor of ``shape`` as a part of a live one: its rows (see :func:`rows_of`) and its
    columns there. ``order`` permutes the stored tensor's dimensions to the live order."""

    shape: Shape
    order: tuple[int, ...]
    runs: tuple[slice, ...]
    columns: slice

    def rows_from(self, stored: Tensor) -> Tensor:
        """The stored tensor as rows of the live one, (rows, columns)."""
        return stored.permute(self.order).reshape(-1, self.columns.stop - self.columns.start)

    def stored_from(self, rows: Tensor) -> Tensor:
        """The inverse of :meth:`rows_from`."""
        ordered = rows.view([self.shape[n] for n in self.order])
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return ordered.permute(back).reshape(self.shape)

    def taken(self, live: Tensor) -> Tensor:
        """These rows and columns of a live tensor."""
        return torch.cat([rows_of(live)[run, self.columns] for run in self.runs])


def cut_of(view: Tensor, live: Shape) -> Cut | None:
    """Where a view is in its contiguous tensor of the shape ``live``; ``None`` where it does not
    consist of runs of rows."""
    width = live[-1]
    order = sorted(range(view.dim()), key=lambda n: (-view.stride(n), n))
    ones = [n for n in order if view.shape[n] == 1]  # their strides have no meaning
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
    """The rows as slices of consecutive ones."""
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
    """{name on disk: its part} of the live tensor ``name``; together they have each value once.
    ``None`` where the conversion cannot be undone tensor by tensor."""
    revert = reverter(model)
    if revert is None or live[name].dim() < 2:
        return None
    group = next(names for names in layers_of(live).values() if name in names)
    metas = {n: torch.empty(live[n].shape, dtype=live[n].dtype, device="meta") for n in group}
    with _NoCopies():
        written = revert(metas)
    fused = metas[name]
    found: dict[str, Cut] = {}
    for stored, tensor in written.items():
        if tensor._base is fused or tensor is fused:  # pyright: ignore[reportPrivateUsage]
            cut = cut_of(tensor, tuple(fused.shape))
            if cut is None:
                return None
            found[stored] = cut
    return found if _covers(found.values(), tuple(fused.shape)) else None


def _covers(cuts: Iterable[Cut], live: Shape) -> bool:
    """Whether every value of the live tensor is in exactly one cut."""
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
    """Makes ``contiguous`` do nothing: a copy would not be a view of the live tensor."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.contiguous:
            return args[0]
        return func(*args, **(kwargs or {}))
