"""One attached adapter: its facts, its parameters, and what is known of its use."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...manifests.language.weights import Weight
from ...registry.plan import Held
from .factors import Factors, WeightFactors
from .weights import NO_WEIGHTS, AdapterWeights


@dataclass(frozen=True)
class AdapterInfo:
    """What ``model.adapters`` tells of one adapter. ``nbytes`` is its parameters' size (bytes);
    ``rank`` the largest at any site (0 without factors); ``modules`` those it changes. One that
    is not ``loaded`` is read on its next use."""

    name: str
    methods: tuple[str, ...]
    rank: int
    modules: tuple[str, ...]
    parameters: int
    nbytes: int
    dtypes: tuple[torch.dtype, ...]
    devices: tuple[torch.device, ...]
    trainable: bool
    loaded: bool = True


@dataclass(eq=False)
class Adapter:
    """An adapter as sites and routings know it: by identity, never by its name.

    A new adapter under an old name is another object, so a call that is still running on the old
    one keeps it. ``unfired`` are the modules where it has not been used yet. One that is ``merged``
    is in the base's weights, and in no routing.
    """

    name: str
    methods: tuple[str, ...] = ()
    rank: int = 0
    trainable: bool = False
    digest: str | None = None
    """Of the folder that it came from, where that is known."""
    members: Mapping[str, float] = field(default_factory=dict)
    """Of a composition that became an adapter: the adapters in it. Rules count these."""
    sites: frozenset[str] = frozenset()
    """Modules with something added to their output, or to their own parameters."""
    reweighed: frozenset[str] = frozenset()
    """Those among them that run with other weights."""
    whole: frozenset[str] = frozenset()
    """Modules of the base that it replaces."""
    weights: AdapterWeights | None = field(default=None, repr=False)
    """``None`` while they are not resident."""
    invocation: tuple[int, ...] | None = None
    """The tokens from which on it acts (aLoRA); ``None`` where it acts everywhere."""
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Its ``adapter_config.json``, as it was read."""
    unfired: set[str] = field(default_factory=set)
    used: bool = False
    reported: bool = False
    serial: int = field(default_factory=itertools.count(1).__next__)
    """No other adapter of this process has it, whatever its name."""
    retired: bool = False
    merged: bool = False
    held: Held | None = None
    """What it was attached from, for plans; ``None`` for one that code made."""
    loaded: bool = True
    """Whether its weights are at their sites, on the model's device."""
    nbytes: int = 0
    """What its weights take there (bytes); before they were read, by the file's header."""
    reload: Callable[[], Built] | None = field(default=None, repr=False)
    """Reads and builds it (again) from its verified files; ``None`` where these are not known, or
    where its values are no longer theirs."""
    away: list[tuple[Tensor, torch.device]] = field(default_factory=list, repr=False)
    """Its tensors that are on the CPU for a time, and the devices where they belong."""
    loading: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def take(self, other: Adapter) -> None:
        """Have what ``other``, built of the same files, has at its sites."""
        self.weights, self.nbytes = other.weights, other.nbytes
        self.sites, self.reweighed, self.whole = other.sites, other.reweighed, other.whole

    @property
    def resident(self) -> AdapterWeights:
        """The weights; none while they are not resident."""
        return self.weights or NO_WEIGHTS

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(sorted(self.sites | self.whole))

    def tensors(self) -> list[Tensor]:
        """Every parameter and buffer that it owns, each once."""
        return self.resident.tensors()

    def info(self) -> AdapterInfo:
        tensors = self.tensors()
        return AdapterInfo(
            name=self.name,
            methods=self.methods,
            rank=self.rank,
            modules=self.modules,
            parameters=sum(t.numel() for t in tensors),
            nbytes=sum(t.numel() * t.element_size() for t in tensors),
            dtypes=tuple(sorted({t.dtype for t in tensors}, key=str)),
            devices=tuple(sorted({t.device for t in tensors}, key=str)),
            trainable=self.trainable,
            loaded=self.loaded,
        )


@dataclass(frozen=True)
class Built:
    """A finished adapter, and what goes to which module's site."""

    adapter: Adapter
    outputs: Mapping[str, tuple[Factors, ...]]
    replacements: Mapping[str, nn.Module]
    weights: Mapping[str, tuple[WeightFactors, ...]]


Terms = tuple[tuple[Adapter, Weight], ...]
"""Adapters with their weights, in order."""
