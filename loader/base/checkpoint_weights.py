"""A model's parameters in the precision of the checkpoint that it was loaded from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AttachError
from ...manifests.findings.finding import Where
from ..weights.dtypes import TORCH_DTYPES
from .disk_names import live_tensors, places_on_disk
from .streamed_load import MappedTensor, tensors_on_disk

_HALVES = (torch.float16, torch.bfloat16)
_PIECE = 1 << 20
"""Values that are compared at a time."""


class Originals(Mapping[str, torch.Tensor]):
    """Live names to tensors, read from ``folder`` one by one, as they are asked for.

    A tensor is taken only if it rounds to the live one bit for bit, so that a name that means
    something else there is not believed. Raises :class:`AttachError` for one that cannot be found
    so: what the load has rounded away cannot be brought back.
    """

    def __init__(self, model: nn.Module, folder: Path, where: Where) -> None:
        live = live_tensors(model)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._live: dict[str, torch.Tensor] = {
            **parameters,
            **dict(model.named_buffers(remove_duplicate=False)),
        }
        self._places: dict[int, str] = {
            id(live[place.live]): name
            for name, place in places_on_disk(model, live).items()
            if place.live is not None
        }
        self._prefix: str = str(getattr(model, "base_model_prefix", "") or "")
        self._on_disk: dict[str, MappedTensor] = tensors_on_disk(folder)
        self._where: Where = where

    def __getitem__(self, name: str) -> torch.Tensor:
        now = self._live[name].data
        if now.dtype not in _HALVES:
            return now
        place = self.place(name)
        if place is not None:
            return self.read(place)
        raise AttachError(
            codes.FLOAT32_NO_ORIGINAL.finding(
                f"{name} is not in the checkpoint under a name that could be found", self._where
            )
        )

    def place(self, name: str) -> str | None:
        """The name on disk of the tensor that becomes the live one bit for bit."""
        now = self._live[name].data
        for disk in self._spellings(name):
            stored = self._on_disk.get(disk)
            if stored is None or stored.get_dtype() not in TORCH_DTYPES:
                continue
            if tuple(stored.get_shape()) == now.shape and _rounds_to(stored[...], now):
                return disk
        return None

    def read(self, disk: str) -> torch.Tensor:
        """A tensor by its name on disk, in the file's dtype; nothing stays mapped."""
        return self._on_disk[disk].read()

    def _spellings(self, name: str) -> Iterator[str]:
        """Its names on disk: as transformers would write it (one of several for a
        tied one), and with or without the prefix."""
        for known in dict.fromkeys((self._places.get(id(self._live[name]), name), name)):
            yield known
            if self._prefix:
                yield known.removeprefix(f"{self._prefix}.")
                yield f"{self._prefix}.{known}"

    def __iter__(self) -> Iterator[str]:
        return iter(self._live)

    def __len__(self) -> int:
        return len(self._live)


def _rounds_to(stored: torch.Tensor, now: torch.Tensor) -> bool:
    """Whether one becomes the other bit for bit, looked at in pieces."""
    pieces = zip(stored.flatten().split(_PIECE), now.flatten().split(_PIECE), strict=True)
    return all(torch.equal(one.to(other.dtype), other.cpu()) for one, other in pieces)
