"""How much memory an adapter's weights take, and how they leave it and return."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ...registry.files.facts import AdapterPlan, Header
from ..weights.placement import placement_of
from .adapter import Adapter


def can_leave(adapter: Adapter) -> bool:
    """Whether its weights can leave the device and return unchanged."""
    can_return = adapter.reload is not None or device_of(adapter).type != "cpu"
    return can_return and not (adapter.trainable or adapter.merged)


def put_off(adapter: Adapter) -> None:
    """Drop the weights; they are read on the next use."""
    adapter.weights, adapter.loaded = None, False


def returned(adapter: Adapter) -> None:
    """Move the tensors that were moved to the CPU back to their devices."""
    move_back(adapter.away)
    adapter.away = []


def bytes_of(adapter: Adapter) -> int:
    """The size of its own tensors on their device (bytes)."""
    return sum(t.numel() * t.element_size() for t in adapter.resident.own_tensors())


def size_of(
    plan: AdapterPlan,
    header: Header,
    modules: Mapping[str, nn.Module],
    base: nn.Module,
    dtype: torch.dtype | None,
) -> int:
    """The size of an adapter's tensors once they are placed (bytes), computed from its header."""
    at: dict[str, str] = {key: s.module for s in plan.sites for key in s.tensors.values()}
    at |= {key: module for module, key in (*plan.biases.items(), *plan.embeddings.items())}
    at |= {key: module for module, paths in plan.saved.items() for key in paths.values()}
    total = 0
    for key, name in at.items():
        placement = placement_of(modules[name], base, dtype) if name in modules else None
        if placement is not None and key in header.tensors:
            total += math.prod(header.tensors[key].shape) * placement.dtype.itemsize
    return total


def shared_with(base: nn.Module, replacements: Iterable[nn.Module]) -> frozenset[int]:
    """The ids of those tensors of the base that an adapter's replaced modules share with it."""
    inside = {id(t) for new in replacements for t in (*new.parameters(), *new.buffers())}
    if not inside:
        return frozenset()
    return frozenset(id(t) for t in (*base.parameters(), *base.buffers()) if id(t) in inside)


def device_of(adapter: Adapter) -> torch.device:
    tensors = adapter.tensors()
    return tensors[0].device if tensors else torch.device("cpu")


def move_back(away: Iterable[tuple[Tensor, torch.device]]) -> None:
    for tensor, device in away:
        tensor.data = tensor.data.to(device)
