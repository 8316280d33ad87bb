"""What the methods that attach natively do, one row each, by PEFT's ``peft_type``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from ...registry.facts import ModuleShape, SitePlan
from ..sites import Factors
from . import lora

Roles = Mapping[str, torch.Tensor]


class DeltaWeight(Protocol):
    """``delta_weight(site, shape, weight, roles)``: what an adapter at weight 1 adds to the
    module's stored weight, so that merging it gives the live answer.

    ``weight`` is the stored weight (a ``Conv1D``'s is transposed) in float32, or in float64 where
    it is stored so; ``roles`` are in the same dtype on its device. Returns that dtype and the
    shape of ``weight``. Pure: nothing given is changed.
    """

    def __call__(
        self, site: SitePlan, shape: ModuleShape, weight: torch.Tensor, roles: Roles, /
    ) -> torch.Tensor: ...


class DeltaBias(Protocol):
    """The same for the module's bias, which is ``None`` where it has none; ``None`` where nothing
    is added to it. What is added to a bias that is not there cannot be merged."""

    def __call__(
        self, site: SitePlan, shape: ModuleShape, bias: torch.Tensor | None, roles: Roles, /
    ) -> torch.Tensor | None: ...


class RolesOfRows(Protocol):
    """The part of the roles that belongs to these rows (first dimension) of the stored weight:
    ``delta_weight`` of the part and of ``weight[rows]`` are the delta's rows. With it a large
    weight is merged in pieces."""

    def __call__(
        self, site: SitePlan, shape: ModuleShape, roles: Roles, rows: slice, /
    ) -> Roles: ...


def mergeable_everywhere(site: SitePlan, module: nn.Module, shape: ModuleShape) -> None:
    """``unmergeable`` of a method whose delta is one of the weight wherever it can sit."""


@dataclass(frozen=True)
class Method:
    """What a method does at a site.

    ``unsupported`` says why it cannot sit on a live module that has the right sizes; ``changes``
    whether a site's tensors change anything; ``build`` makes the factors of placed tensors;
    ``parameters`` gives PEFT's live name of each role. What its tensors must be stands in the row
    of the same name in :mod:`adapterdock.registry.methods.table`.

    Without a ``delta_weight`` an adapter cannot be merged. ``unmergeable`` says why one cannot be
    at this module, though it can be attached there. ``input_roles``: a site that has only these
    makes its delta of the module's input alone, whatever the base's weight; others may not act
    beside an adapter that is merged into the same module.
    """

    peft_type: str
    unsupported: Callable[[SitePlan, nn.Module, ModuleShape], str | None]
    changes: Callable[[SitePlan, Roles], bool]
    build: Callable[[SitePlan, ModuleShape, Roles, float], Factors]
    parameters: Mapping[str, str]
    delta_weight: DeltaWeight | None = None
    delta_bias: DeltaBias | None = None
    roles_of_rows: RolesOfRows | None = None
    unmergeable: Callable[[SitePlan, nn.Module, ModuleShape], str | None] = mergeable_everywhere
    input_roles: frozenset[str] = frozenset()


METHODS: Mapping[str, Method] = {
    "LORA": Method(
        "LORA",
        lora.unsupported,
        lora.changes,
        lora.build,
        lora.PARAMETERS,
        delta_weight=lora.delta_weight,
        delta_bias=lora.delta_bias,
        roles_of_rows=lora.roles_of_rows,
        unmergeable=lora.unmergeable,
        input_roles=lora.INPUT_ROLES,
    ),
}
