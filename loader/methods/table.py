"""What the methods that attach natively do, one row each, by :attr:`SitePlan.method`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from ...registry.facts import ModuleShape, SitePlan
from ..sites import Factors
from ..weight_sites import WeightFactors
from . import adalora, ia3, loha, lokr, lora, lora_parameters, lycoris, oft, trainable_tokens, vera

Roles = Mapping[str, torch.Tensor]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Method:
    """What a method does at a site.

    ``unsupported`` says why it cannot sit on a live module that has the right sizes; ``changes``
    whether a site's tensors change anything; ``build`` makes the factors of placed tensors;
    ``parameters`` gives PEFT's live name of each role; ``trains`` says whether gradients are all
    that its training needs. ``alters`` is asked instead of ``changes``
    where that depends on the base's own weight. What its tensors must be stands in the row of the
    same name in :mod:`adapterdock.registry.methods.table`, or in ``shapes`` where the live module
    knows what its sizes do not tell. ``shared`` gives the whole live names of roles that all sites
    have in common and that are never trained; ``make_shared`` those that the file does not have.
    """

    peft_type: str
    unsupported: Callable[[SitePlan, nn.Module, ModuleShape], str | None]
    changes: Callable[[SitePlan, Roles], bool]
    build: Callable[[SitePlan, ModuleShape, Roles, float], Factors | WeightFactors]
    parameters: Mapping[str, str]
    trains: bool = True
    alters: Callable[[SitePlan, Roles, nn.Module], bool] | None = None
    shapes: Callable[[SitePlan, nn.Module, ModuleShape], Mapping[str, Shape]] | None = None
    shared: Mapping[str, str] = field(default_factory=dict)
    make_shared: Callable[[Iterable[tuple[SitePlan, ModuleShape]]], Roles] | None = None


METHODS: Mapping[str, Method] = {
    "LORA": Method(
        "LORA", lora.unsupported, lora.changes, lora.build, lora.PARAMETERS, alters=lora.alters
    ),
    "LORA_PARAMETER": Method(
        "LORA_PARAMETER",
        lora_parameters.unsupported,
        lora_parameters.changes,
        lora_parameters.build,
        lora_parameters.PARAMETERS,
        shapes=lora_parameters.shapes,
    ),
    "TRAINABLE_TOKENS": Method(
        "TRAINABLE_TOKENS",
        trainable_tokens.unsupported,
        trainable_tokens.changes,
        trainable_tokens.build,
        trainable_tokens.PARAMETERS,
        alters=trainable_tokens.alters,
    ),
    "VERA": Method(
        "VERA",
        vera.unsupported,
        vera.changes,
        vera.build,
        vera.PARAMETERS,
        shared=vera.SHARED,
        make_shared=vera.shared,
    ),
    "IA3": Method("IA3", ia3.unsupported, ia3.changes, ia3.build, ia3.PARAMETERS),
    "LOHA": Method("LOHA", lycoris.unsupported, loha.changes, loha.build, loha.PARAMETERS),
    "LOKR": Method("LOKR", lycoris.unsupported, lokr.changes, lokr.build, lokr.PARAMETERS),
    "OFT": Method("OFT", oft.unsupported, oft.changes, oft.build, oft.PARAMETERS),
    "ADALORA": Method(
        "ADALORA",
        adalora.unsupported,
        adalora.changes,
        adalora.build,
        adalora.PARAMETERS,
        trains=False,
    ),
}
