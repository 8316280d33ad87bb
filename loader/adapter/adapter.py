"""One attached adapter: its facts, its weights, and whether it was used."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...manifests.language.weights import Weight
from ...registry.plan import Held
from ..base.live_base import LiveBase
from .factors import Factors, WeightFactors
from .weights import NO_WEIGHTS, AdapterWeights


@dataclass(frozen=True)
class AdapterInfo:
    """Facts about one adapter, as ``model.adapters`` gives them.

    Attributes:
        name: Its name in the model.
        methods: PEFT's names of its methods, sorted.
        rank: The largest rank at any module; 0 for methods without a rank.
        modules: The names of the modules that it changes.
        parameters: The number of values in its parameters and buffers.
        nbytes: Their size in bytes.
        dtypes: Their dtypes.
        devices: Their devices.
        trainable: Whether its parameters receive gradients.
        loaded: Whether its weights are in memory; if not, they are read on its next use.
    """

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
    """An adapter; sites and routings know it by identity, never by its name.

    A new adapter under an old name is another object, so a call that still runs on the old adapter
    keeps it. ``unfired`` are the modules where it has not run yet. A ``merged`` adapter is in the
    base's weights and in no routing.
    """

    name: str
    methods: tuple[str, ...] = ()
    rank: int = 0
    trainable: bool = False
    digest: str | None = None
    """The digest of the folder that it was read from, where that is known."""
    members: Mapping[str, float] = field(default_factory=dict)
    """If it was made of a composition: the adapters in it with their weights. Rules count these."""
    sites: frozenset[str] = frozenset()
    """Modules to whose output or parameters it adds something."""
    reweighed: frozenset[str] = frozenset()
    """Those of them to whose parameters it adds something."""
    replaced: frozenset[str] = frozenset()
    """Modules of the base that it replaces."""
    weights: AdapterWeights | None = field(default=None, repr=False)
    """``None`` while they are not in memory."""
    invocation: tuple[int, ...] | None = None
    """The tokens from which on it acts (aLoRA); ``None`` if it acts on all tokens."""
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Its ``adapter_config.json``, as it was read."""
    unfired: set[str] = field(default_factory=set)
    used: bool = False
    reported: bool = False
    serial: int = field(default_factory=itertools.count(1).__next__)
    """Unique in this process, whatever its name."""
    retired: bool = False
    merged: bool = False
    held: Held | None = None
    """What it was attached from, for plans; ``None`` if code created it."""
    loaded: bool = True
    """Whether its weights are at their sites and on the model's device."""
    nbytes: int = 0
    """The size of its weights there (bytes); computed from the header until they are read."""
    reload: Callable[[LiveBase], Built] | None = field(default=None, repr=False)
    """Reads and builds it (again) for its base from its verified files; ``None`` where these are
    not known, or its values have changed since."""
    away: list[tuple[Tensor, torch.device]] = field(default_factory=list, repr=False)
    """Its tensors that were moved to the CPU, and the devices to which they return."""
    loading: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def take(self, other: Adapter) -> None:
        """Take over the weights of ``other``, which was built from the same files."""
        self.weights, self.nbytes = other.weights, other.nbytes
        self.sites, self.reweighed, self.replaced = other.sites, other.reweighed, other.replaced

    @property
    def resident(self) -> AdapterWeights:
        """The weights; empty while they are not in memory."""
        return self.weights or NO_WEIGHTS

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(sorted(self.sites | self.replaced))

    def tensors(self) -> list[Tensor]:
        """All its parameters and buffers, each once."""
        return self.resident.tensors()

    def copied(self, memo: dict[int, Any]) -> Adapter:
        """An independent copy for a copied base, whose modules and tensors are in ``memo``, as
        ``copy.deepcopy`` fills it."""
        other = replace(
            self,
            unfired=set(self.unfired),
            loading=threading.Lock(),
            serial=Adapter("").serial,  # no key-value cache of the one is the other's
        )
        memo[id(self)] = other
        other.weights = None if self.weights is None else self.weights.copied(memo)
        other.away = [(copy.deepcopy(tensor, memo), device) for tensor, device in self.away]
        return other

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
    """A finished adapter, and what it holds at each module."""

    adapter: Adapter
    outputs: Mapping[str, tuple[Factors, ...]]
    replacements: Mapping[str, nn.Module]
    weights: Mapping[str, tuple[WeightFactors, ...]]


Terms = tuple[tuple[Adapter, Weight], ...]
"""Adapters with their weights, in order."""
