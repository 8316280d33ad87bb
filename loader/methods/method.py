"""One method's row in the table: all that generic code knows of a method. It imports none."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from ...registry.files.conversion import Shape
from ...registry.files.facts import ModuleShape, SitePlan
from ...registry.methods.table import SITES
from ..sites.sites import Factors
from ..sites.weight_sites import WeightFactors
from .deltas import Delta, Roles
from .new_site import NewSite

Refusal = Callable[[SitePlan, nn.Module, ModuleShape], str | None]
"""``refusal(site, module, shape)``: why something is impossible at this module, or ``None``."""
DeltaWeight = Callable[[SitePlan, nn.Module, ModuleShape, Tensor, Roles], Delta]
"""``delta_weight(site, module, shape, weight, roles)``: what an adapter at weight 1 adds to a
stored weight, so that the merged weight gives the live output.

``weight`` is the stored weight (a ``Conv1D``'s is transposed; with ``target_parameters`` it is the
named parameter) in any float dtype, or on ``meta`` where the delta depends on the input alone.
``roles`` are in float32, or in float64 where the weight is. No argument is changed.
"""
DeltaBias = Callable[[SitePlan, ModuleShape, Tensor | None, Roles], Tensor | None]
"""``delta_bias(site, shape, bias, roles)``: what is added to the module's bias, or ``None``.
``bias`` is in the dtype of ``roles``, and ``None`` if the module has none; then no addition can be
merged."""


def is_not_zero(site: SitePlan, roles: Roles, module: nn.Module) -> bool:
    """``changes`` of a method whose delta is a product of all its tensors."""
    return bool(site.scale) and all(bool(factor.any()) for factor in roles.values())


@dataclass(frozen=True)
class Method:
    """What a method does at a site.

    The row of the same name in ``registry.methods`` says what its tensors must be.

    Attributes:
        name: The method, by :attr:`SitePlan.method`.
        build: Makes the factors from placed tensors: (site, sizes, roles, dropout).
        unsupported: Why it cannot run at a live module that has the right sizes.
        changes: Whether a site's tensors change anything at this live module.
        shapes: The shapes of a new site's tensors, where they depend on more than the module's
            sizes.
        shared: The complete live names of roles that all sites have in common and that are never
            trained.
        make_shared: Makes those of them that the file does not have.
        live_names: The ``parameters`` that do not follow from the names on disk.
        on_replacement: Is called with the factors and the module by which the same adapter
            replaces theirs.
        delta_weight: What is merged. Without it an adapter cannot be merged.
        delta_bias: The same for the module's bias.
        unmergeable: Why an adapter cannot be merged at this module, though it can be attached.
        input_roles: A site that has only these computes its delta from the module's input alone,
            and not from the base's weight or output. Other sites cannot run at a module into which
            an adapter is merged.
        is_pair: Whether a site is a plain pair of factors A and B, which compositions can combine.
        initial: The values of a new adapter at a site, by role; ``None`` if there can be no new
            adapter of the method.
    """

    name: str
    build: Callable[[SitePlan, ModuleShape, Roles, float], Factors | WeightFactors]
    unsupported: Refusal = lambda site, module, shape: None
    changes: Callable[[SitePlan, Roles, nn.Module], bool] = is_not_zero
    shapes: Callable[[SitePlan, nn.Module, ModuleShape], Mapping[str, Shape]] | None = None
    shared: Mapping[str, str] = field(default_factory=dict)
    make_shared: Callable[[Iterable[tuple[SitePlan, ModuleShape]]], Roles] | None = None
    live_names: Mapping[str, str] = field(default_factory=dict)
    on_replacement: Callable[[Factors | WeightFactors, nn.Module], None] = lambda factors, new: None
    delta_weight: DeltaWeight | None = None
    delta_bias: DeltaBias | None = None
    unmergeable: Refusal = lambda site, module, shape: None
    input_roles: frozenset[str] = frozenset()
    is_pair: Callable[[SitePlan], bool] = lambda site: False
    initial: Callable[[NewSite], Roles] | None = None

    @functools.cached_property
    def parameters(self) -> Mapping[str, str]:
        """PEFT's live names of the roles, after the module's own name."""
        found = {
            role: ".".join(filter(None, (parameter, "{adapter}", last)))
            for (parameter, last), role in SITES[self.name].roles.items()
        }
        return {**found, **self.live_names}
