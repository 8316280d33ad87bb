"""A model's parameters in the precision of the checkpoint that it was loaded from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AttachError
from ...manifests.findings.finding import Where
from ..weights.dtypes import HALVES, TORCH_DTYPES
from .disk_names import every_tensor, live_tensors, places_on_disk, with_prefix
from .streamed_load import MappedTensor, tensors_on_disk

_PIECE = 1 << 20
"""How many values are compared at a time."""


class Originals(Mapping[str, torch.Tensor]):
    """Live names to tensors, each read from ``folder`` when it is asked for.

    A tensor is used only if it rounds to the live one bit for bit, so a name with another meaning
    on disk does no harm. Raises :class:`AttachError` for a tensor that cannot be found this way:
    the digits that were rounded off at loading cannot be restored.
    """

    def __init__(self, model: nn.Module, folder: Path, where: Where) -> None:
        live = live_tensors(model)
        self._model = model
        self._live: dict[str, torch.Tensor] = every_tensor(model)
        self._places: dict[int, str] = {
            id(live[place.live]): name
            for name, place in places_on_disk(model, live).items()
            if place.live is not None
        }
        self._on_disk: dict[str, MappedTensor] = tensors_on_disk(folder)
        self._where: Where = where

    def __getitem__(self, name: str) -> torch.Tensor:
        now = self._live[name].data
        if now.dtype not in HALVES:
            return now
        place = self.place(name)
        if place is not None:
            return self.read(place)
        raise AttachError(
            codes.FLOAT32_NO_ORIGINAL.finding(
                f"No tensor of the checkpoint becomes {name}", self._where
            )
        )

    def place(self, name: str) -> str | None:
        """The name on disk of the tensor that becomes the live one bit for bit."""
        now = self._live[name].data
        written = self._places.get(id(self._live[name]), name)  # one of several for a tied one
        for disk in with_prefix(self._model, written, name):
            stored = self._on_disk.get(disk)
            if stored is None or stored.get_dtype() not in TORCH_DTYPES:
                continue
            if tuple(stored.get_shape()) == now.shape and _rounds_to(stored[...], now):
                return disk
        return None

    def read(self, disk: str) -> torch.Tensor:
        """A tensor by its name on disk, in the file's dtype; the file does not stay mapped."""
        return self.reader(disk)()

    def reader(self, disk: str) -> Callable[[], torch.Tensor]:
        """A function that reads this tensor, and does not keep the model."""
        return self._on_disk[disk].read

    def __iter__(self) -> Iterator[str]:
        return iter(self._live)

    def __len__(self) -> int:
        return len(self._live)


def _rounds_to(stored: torch.Tensor, now: torch.Tensor) -> bool:
    """Whether ``stored`` becomes ``now`` bit for bit."""
    pieces = zip(stored.flatten().split(_PIECE), now.flatten().split(_PIECE), strict=True)
    return all(torch.equal(one.to(other.dtype), other.cpu()) for one, other in pieces)
