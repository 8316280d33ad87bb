"""The methods that attach natively, one row each, by PEFT's ``peft_type``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ...registry.facts import ModuleShape, SitePlan
from ..sites import Factors
from . import lora

Shape = tuple[int, ...]
Roles = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Method:
    """What a method does at a site.

    ``expected_shapes`` says what each role's tensor must be, or why the method cannot sit on the
    module; ``rank_of`` what rank the tensors have; ``changes`` whether they change anything;
    ``build`` makes the factors of placed tensors; ``parameters`` gives PEFT's live name of each
    role; ``role_sets`` the sets of roles of which a site has one, whole.
    """

    peft_type: str
    expected_shapes: Callable[[SitePlan, nn.Module, ModuleShape, int], Mapping[str, Shape] | str]
    rank_of: Callable[[SitePlan, Mapping[str, Shape]], int]
    changes: Callable[[SitePlan, Roles], bool]
    build: Callable[[SitePlan, ModuleShape, Roles, float], Factors]
    parameters: Mapping[str, str]
    role_sets: tuple[frozenset[str], ...]


METHODS: Mapping[str, Method] = {
    "LORA": Method(
        "LORA",
        lora.expected_shapes,
        lora.rank_of,
        lora.changes,
        lora.build,
        lora.PARAMETERS,
        lora.ROLE_SETS,
    ),
}
