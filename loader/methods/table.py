"""What the methods that attach natively do, one row each, by :attr:`SitePlan.method`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from ...registry.files.facts import ModuleShape, SitePlan
from ..adapter.factors import Factors, WeightFactors
from . import adalora, ia3, loha, lokr, lora, lora_parameters, lycoris, oft, trainable_tokens, vera
from .deltas import Delta, Roles
from .new_site import NewSite

Shape = tuple[int, ...]


class DeltaWeight(Protocol):
    """``delta_weight(site, module, shape, weight, roles)``: what an adapter at weight 1 adds to a
    stored weight, so that merging it gives the live answer.

    ``weight`` is the stored weight (a ``Conv1D``'s is transposed; of ``target_parameters`` the
    parameter that is named) in any float dtype, or on ``meta`` where the delta is made of the
    input alone. ``roles`` are in float32, or in float64 where the weight is. Nothing given is
    changed.
    """

    def __call__(
        self,
        site: SitePlan,
        module: nn.Module,
        shape: ModuleShape,
        weight: torch.Tensor,
        roles: Roles,
        /,
    ) -> Delta: ...


class DeltaBias(Protocol):
    """The same for the module's bias, which is ``None`` where it has none; ``None`` where nothing
    is added to it. What is added to a bias that is not there cannot be merged. ``bias`` is in the
    dtype of ``roles``."""

    def __call__(
        self, site: SitePlan, shape: ModuleShape, bias: torch.Tensor | None, roles: Roles, /
    ) -> torch.Tensor | None: ...


def mergeable_everywhere(site: SitePlan, module: nn.Module, shape: ModuleShape) -> None:
    """``unmergeable`` of a method whose delta is one of the weight wherever it can sit."""


@dataclass(frozen=True)
class Method:
    """What a method does at a site.

    ``unsupported`` says why it cannot sit on a live module that has the right sizes; ``changes``
    whether a site's tensors change anything; ``build`` makes the factors of placed tensors;
    ``parameters`` gives PEFT's live name of each role. ``alters`` is asked instead of ``changes``
    where that depends on the base's own weight. What its tensors must be stands in the row of the
    same name in ``registry.methods.table``; what new ones are in ``shapes`` where
    the live module knows what its sizes do not tell. ``shared`` gives the whole live names of roles
    that all sites have in common and that are never trained; ``make_shared`` those that the file
    does not have.

    Without a ``delta_weight`` an adapter cannot be merged. ``unmergeable`` says why one cannot be
    at this module, though it can be attached there. ``input_roles``: a site that has only these
    makes its delta of the module's input alone, whatever the base's weight; others may not act
    beside an adapter that is merged into the same module.
    """

    peft_type: str
    unsupported: Callable[[SitePlan, nn.Module, ModuleShape], str | None]
    changes: Callable[[SitePlan, Roles], bool]
    build: Callable[[SitePlan, ModuleShape, Roles, float], Factors | WeightFactors]
    parameters: Mapping[str, str]
    alters: Callable[[SitePlan, Roles, nn.Module], bool] | None = None
    shapes: Callable[[SitePlan, nn.Module, ModuleShape], Mapping[str, Shape]] | None = None
    shared: Mapping[str, str] = field(default_factory=dict)
    make_shared: Callable[[Iterable[tuple[SitePlan, ModuleShape]]], Roles] | None = None
    delta_weight: DeltaWeight | None = None
    delta_bias: DeltaBias | None = None
    unmergeable: Callable[[SitePlan, nn.Module, ModuleShape], str | None] = mergeable_everywhere
    input_roles: frozenset[str] = frozenset()
    initial: Callable[[NewSite], Roles] | None = None
    """The values with which training begins at a site, by role; ``None`` where the method cannot
    be begun here."""


METHODS: Mapping[str, Method] = {
    "LORA": Method(
        "LORA",
        lora.unsupported,
        lora.changes,
        lora.build,
        lora.PARAMETERS,
        alters=lora.alters,
        delta_weight=lora.delta_weight,
        delta_bias=lora.delta_bias,
        unmergeable=lora.unmergeable,
        input_roles=lora.INPUT_ROLES,
        initial=lora.initial,
    ),
    "LORA_PARAMETER": Method(
        "LORA_PARAMETER",
        lora_parameters.unsupported,
        lora_parameters.changes,
        lora_parameters.build,
        lora_parameters.PARAMETERS,
        shapes=lora_parameters.shapes,
        delta_weight=lora_parameters.delta_weight,
        input_roles=frozenset(lora_parameters.PARAMETERS),
        initial=lora.initial,
    ),
    "TRAINABLE_TOKENS": Method(
        "TRAINABLE_TOKENS",
        trainable_tokens.unsupported,
        trainable_tokens.changes,
        trainable_tokens.build,
        trainable_tokens.PARAMETERS,
        alters=trainable_tokens.alters,
        delta_weight=trainable_tokens.delta_weight,
        unmergeable=trainable_tokens.unmergeable,
        initial=trainable_tokens.initial,
    ),
    "VERA": Method(
        "VERA",
        vera.unsupported,
        vera.changes,
        vera.build,
        vera.PARAMETERS,
        shared=vera.SHARED,
        make_shared=vera.shared,
        delta_weight=vera.delta_weight,
        input_roles=frozenset({*vera.PARAMETERS, *vera.SHARED}),
        initial=vera.initial,
    ),
    "IA3": Method(
        "IA3",
        ia3.unsupported,
        ia3.changes,
        ia3.build,
        ia3.PARAMETERS,
        delta_weight=ia3.delta_weight,
        delta_bias=ia3.delta_bias,
        initial=ia3.initial,
    ),
    "LOHA": Method(
        "LOHA",
        lycoris.unsupported,
        loha.changes,
        loha.build,
        loha.PARAMETERS,
        delta_weight=loha.delta_weight,
        unmergeable=lycoris.unmergeable,
        input_roles=frozenset(loha.PARAMETERS),
        initial=loha.initial,
    ),
    "LOKR": Method(
        "LOKR",
        lycoris.unsupported,
        lokr.changes,
        lokr.build,
        lokr.PARAMETERS,
        delta_weight=lokr.delta_weight,
        unmergeable=lycoris.unmergeable,
        input_roles=frozenset(lokr.PARAMETERS),
        initial=lokr.initial,
    ),
    "OFT": Method(
        "OFT",
        oft.unsupported,
        oft.changes,
        oft.build,
        oft.PARAMETERS,
        delta_weight=oft.delta_weight,
        unmergeable=oft.unmergeable,
        initial=oft.initial,
    ),
    "ADALORA": Method(
        "ADALORA",
        adalora.unsupported,
        adalora.changes,
        adalora.build,
        adalora.PARAMETERS,
        delta_weight=adalora.delta_weight,
        unmergeable=lycoris.unmergeable,
        input_roles=frozenset(adalora.PARAMETERS),
    ),
}
