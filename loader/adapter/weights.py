"""The weights of one attached adapter, as one frozen value."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from ...registry.files.facts import ModuleShape, SitePlan
from .factors import BiasChange, VirtualTokens


class SitePart(NamedTuple):
    """An adapter at one site: its plan, the module's sizes, and its tensors by role.

    ``of_input``: its delta depends on the module's input alone, and not on the base's weight or
    output. ``layer`` is PEFT's layer, if the adapter runs through PEFT.
    """

    site: SitePlan
    shape: ModuleShape
    roles: Mapping[str, nn.Parameter]
    of_input: bool
    layer: nn.Module | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> SitePart:
        """With tensors of its own; the plan and the sizes never change."""
        roles, layer = copy.deepcopy((self.roles, self.layer), memo)
        return self._replace(roles=roles, layer=layer)


@dataclass(frozen=True, eq=False)
class AdapterWeights:
    """What an adapter has at its sites while its weights are in memory."""

    parameters: Mapping[str, nn.Parameter] = field(default_factory=dict)
    """Factors and biases by PEFT's live names, such as
    ``base_model.model.score.lora_A.billing.weight``."""
    replacements: Mapping[str, nn.Module] = field(default_factory=dict)
    """Modules that run in place of the base's, by PEFT's live names
    (``base_model.model.score.modules_to_save.billing``)."""
    replaced: Mapping[str, nn.Module] = field(default_factory=dict)
    """The same modules by the names of the base's."""
    prompt: VirtualTokens | None = None
    """Its virtual tokens."""
    parts: tuple[SitePart, ...] = ()
    """What it adds at its sites; a merge is computed from these."""
    biases: Mapping[str, BiasChange] = field(default_factory=dict)
    """Trained biases of the base, by module."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """The live name of each tensor in ``adapter_model.safetensors``, by its name there."""
    shared: frozenset[int] = frozenset()
    """The ids of the base's tensors that its replaced modules share."""

    def copied(self, memo: dict[int, Any]) -> AdapterWeights:
        """An independent copy, as ``copy.deepcopy`` with this ``memo`` makes it."""
        made = copy.copy(self)
        for name in ("parameters", "replacements", "replaced", "prompt", "parts", "biases"):
            vars(made)[name] = copy.deepcopy(vars(self)[name], memo)
        vars(made)["shared"] = frozenset(id(memo[one]) for one in self.shared if one in memo)
        return made

    def tensors(self) -> list[Tensor]:
        """Every parameter and buffer, each once."""
        found: list[Tensor] = list(self.parameters.values())
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

    def own_tensors(self) -> list[Tensor]:
        """The same without the tensors that the base owns."""
        return [tensor for tensor in self.tensors() if id(tensor) not in self.shared]


NO_WEIGHTS = AdapterWeights()
