"""What the methods that attach natively do, one row each, by PEFT's ``peft_type``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ...registry.facts import ModuleShape, SitePlan
from ..sites import Factors
from . import lora
from .new_site import NewSite

Roles = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Method:
    """What a method does at a site.

    ``unsupported`` says why it cannot sit on a live module that has the right sizes; ``changes``
    whether a site's tensors change anything; ``build`` makes the factors of placed tensors;
    ``parameters`` gives PEFT's live name of each role. What its tensors must be stands in the row
    of the same name in :mod:`adapterdock.registry.methods.table`.
    """

    peft_type: str
    unsupported: Callable[[SitePlan, nn.Module, ModuleShape], str | None]
    changes: Callable[[SitePlan, Roles], bool]
    build: Callable[[SitePlan, ModuleShape, Roles, float], Factors]
    parameters: Mapping[str, str]
    initial: Callable[[NewSite], Roles] | None = None
    """The values with which training begins at a site, by role; ``None`` where the method cannot
    be begun here."""


METHODS: Mapping[str, Method] = {
    "LORA": Method(
        "LORA", lora.unsupported, lora.changes, lora.build, lora.PARAMETERS, lora.initial
    ),
}
