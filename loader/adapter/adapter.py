"""One attached adapter: its facts, its parameters, and what is known of its use."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from ...registry.files.facts import ModuleShape, SitePlan
from ...registry.plan import Held
from .factors import BiasChange, Factors, VirtualTokens, WeightFactors


class Part(NamedTuple):
    """What an adapter holds at one site: its plan, the module's sizes, and its tensors by role.

    ``of_input`` says that its delta is made of the module's input alone, and not of the base's
    weight or output. ``layer`` is PEFT's, where that is what answers.
    """

    site: SitePlan
    shape: ModuleShape
    roles: Mapping[str, nn.Parameter]
    of_input: bool
    layer: nn.Module | None = None


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


_AT_SITES = (
    "parameters",
    "twins",
    "sites",
    "weights",
    "whole",
    "replaces",
    "prompt",
    "parts",
    "biases",
    "keys",
    "nbytes",
    "shared",
)


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
    weights: frozenset[str] = frozenset()
    """Those among them that run with other weights."""
    whole: frozenset[str] = frozenset()
    """Modules of the base that it replaces."""
    replaces: Mapping[str, nn.Module] = field(default_factory=dict, repr=False)
    """The same, with what stands in their place."""
    prompt: VirtualTokens | None = None
    """Virtual tokens, which act on the model as a whole."""
    parameters: Mapping[str, nn.Parameter] = field(default_factory=dict, repr=False)
    """Factors and biases by PEFT's live names, such as
    ``base_model.model.score.lora_A.billing.weight``."""
    twins: Mapping[str, nn.Module] = field(default_factory=dict, repr=False)
    """What it replaces, likewise (``base_model.model.score.modules_to_save.billing``)."""
    parts: tuple[Part, ...] = ()
    """What it adds at its sites, from which a merge is made."""
    biases: Mapping[str, BiasChange] = field(default_factory=dict)
    """Trained biases of the base, by module."""
    invocation: tuple[int, ...] | None = None
    """The tokens from which on it acts (aLoRA); ``None`` where it acts everywhere."""
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Its ``adapter_config.json``, as it was read."""
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The live name of each tensor in ``adapter_model.safetensors``, by its name there."""
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
    shared: frozenset[int] = frozenset()
    """The ids of the base's tensors that stand in its whole modules."""
    reload: Callable[[], Built] | None = field(default=None, repr=False)
    """Reads and builds it (again) from its verified files; ``None`` where these are not known, or
    where its values are no longer theirs."""
    away: list[tuple[torch.Tensor, torch.device]] = field(default_factory=list, repr=False)
    """Its tensors that are on the CPU for a time, and the devices where they belong."""
    loading: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def take(self, other: Adapter) -> None:
        """Have what ``other``, built of the same files, has at its sites."""
        for name in _AT_SITES:
            setattr(self, name, getattr(other, name))

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(sorted(self.sites | self.whole))

    def tensors(self) -> list[torch.Tensor]:
        """Every parameter and buffer that it owns, each once."""
        found: list[torch.Tensor] = list(self.parameters.values())
        for twin in self.twins.values():
            found += [*twin.parameters(), *twin.buffers()]
        return list({id(tensor): tensor for tensor in found}.values())

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
    twins: Mapping[str, nn.Module]
    weights: Mapping[str, tuple[WeightFactors, ...]]
