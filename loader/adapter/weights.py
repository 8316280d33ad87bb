"""The weights of one attached adapter, in one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn

from ...registry.files.facts import ModuleShape, SitePlan
from .factors import BiasChange, VirtualTokens


class SitePart(NamedTuple):
    """What an adapter holds at one site: its plan, the module's sizes, and its tensors by role.

    ``of_input`` says that its delta is made of the module's input alone, and not of the base's
    weight or output. ``layer`` is PEFT's, where that is what answers.
    """

    site: SitePlan
    shape: ModuleShape
    roles: Mapping[str, nn.Parameter]
    of_input: bool
    layer: nn.Module | None = None


@dataclass(frozen=True, eq=False)
class AdapterWeights:
    """What an adapter has at its sites while it is resident."""

    parameters: Mapping[str, nn.Parameter] = field(default_factory=dict)
    """Factors and biases by PEFT's live names, such as
    ``base_model.model.score.lora_A.billing.weight``."""
    replacements: Mapping[str, nn.Module] = field(default_factory=dict)
    """Modules that run in place of the base's, likewise
    (``base_model.model.score.modules_to_save.billing``)."""
    replaced: Mapping[str, nn.Module] = field(default_factory=dict)
    """The same by the names of the base's modules."""
    prompt: VirtualTokens | None = None
    """Virtual tokens, which act on the model as a whole."""
    parts: tuple[SitePart, ...] = ()
    """What it adds at its sites, from which a merge is made."""
    biases: Mapping[str, BiasChange] = field(default_factory=dict)
    """Trained biases of the base, by module."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """The live name of each tensor in ``adapter_model.safetensors``, by its name there."""
    shared: frozenset[int] = frozenset()
    """The ids of the base's tensors that are in its replacements."""

    def tensors(self) -> list[torch.Tensor]:
        """Every parameter and buffer, each once."""
        found: list[torch.Tensor] = list(self.parameters.values())
        for module in self.replacements.values():
            found += [*module.parameters(), *module.buffers()]
        return list({id(tensor): tensor for tensor in found}.values())

    def unassigned(self) -> list[str]:
        """The live names of parameters that are neither a site's nor a trained bias."""
        if any(part.layer is not None for part in self.parts):
            return []  # all are used by PEFT's layers
        known = {id(t) for part in self.parts for t in part.roles.values()}
        known |= {id(change.value) for change in self.biases.values()}
        return [name for name, value in self.parameters.items() if id(value) not in known]

    def own_tensors(self) -> list[torch.Tensor]:
        """The same without those that are the base's."""
        return [tensor for tensor in self.tensors() if id(tensor) not in self.shared]


NO_WEIGHTS = AdapterWeights()
