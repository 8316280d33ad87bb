"""What a method that attaches natively does: its row in the table. It imports no method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from ...registry.files.conversion import Shape
from ...registry.files.facts import ModuleShape, SitePlan
from ..sites.sites import Factors
from ..sites.weight_sites import WeightFactors
from .deltas import Delta, Roles
from .new_site import NewSite


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


def never_a_pair(site: SitePlan) -> bool:
    """``is_pair`` of a method whose delta is more than a product of two factors."""
    return False


def unmoved(factors: Factors | WeightFactors, replacement: nn.Module) -> None:
    """``on_replacement`` of a method whose factors ask nothing of the base's weight."""


@dataclass(frozen=True)
class Method:
    """What a method does at a site.

    What its tensors must be stands in the row of the same name in ``registry.methods``.

    Attributes:
        name: The method, by :attr:`SitePlan.method`.
        unsupported: Why it cannot sit on a live module that has the right sizes.
        changes: Whether a site's tensors change anything.
        build: Makes the factors of placed tensors: (site, sizes, roles, dropout).
        parameters: PEFT's live name of each role.
        alters: Asked in place of ``changes`` where that depends on the base's own weight.
        shapes: The shapes of a new site's tensors, where the live module knows what its sizes do
            not tell.
        shared: The full live names of roles that all sites have in common and that are never
            trained.
        make_shared: Makes those of them that the file does not have.
        on_replacement: Tells factors that the same adapter replaces their module by this one.
        delta_weight: What is merged. Without it an adapter cannot be merged.
        delta_bias: The same for the module's bias.
        unmergeable: Why an adapter cannot be merged at this module, though it can be attached.
        input_roles: A site that has only these makes its delta of the module's input alone,
            whatever the base's weight; others may not act beside an adapter that is merged into
            the same module.
        is_pair: Whether a site is a plain pair of factors A and B, which compositions can combine.
        initial: The values with which training begins at a site, by role; ``None`` where there can
            be no new adapter of the method.
    """

    name: str
    unsupported: Callable[[SitePlan, nn.Module, ModuleShape], str | None]
    changes: Callable[[SitePlan, Roles], bool]
    build: Callable[[SitePlan, ModuleShape, Roles, float], Factors | WeightFactors]
    parameters: Mapping[str, str]
    alters: Callable[[SitePlan, Roles, nn.Module], bool] | None = None
    shapes: Callable[[SitePlan, nn.Module, ModuleShape], Mapping[str, Shape]] | None = None
    shared: Mapping[str, str] = field(default_factory=dict)
    make_shared: Callable[[Iterable[tuple[SitePlan, ModuleShape]]], Roles] | None = None
    on_replacement: Callable[[Factors | WeightFactors, nn.Module], None] = unmoved
    delta_weight: DeltaWeight | None = None
    delta_bias: DeltaBias | None = None
    unmergeable: Callable[[SitePlan, nn.Module, ModuleShape], str | None] = mergeable_everywhere
    input_roles: frozenset[str] = frozenset()
    is_pair: Callable[[SitePlan], bool] = never_a_pair
    initial: Callable[[NewSite], Roles] | None = None
