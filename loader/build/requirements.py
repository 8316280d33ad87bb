"""What an attach asks of the base and of an adapter's tensors, before it touches anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ...manifests.findings import fit as fit_codes
from ...manifests.findings import loader as codes
from ...manifests.findings.code import Code
from ...manifests.findings.errors import AttachError
from ...manifests.findings.finding import Finding, Where
from ...registry.files.conversion import Shape
from ...registry.files.facts import AdapterPlan, SitePlan
from ...registry.methods.idle import deciding, is_idle, needs_call
from ..base.modules import ModuleMap
from ..weights.placement import Placement, placement_of
from ..weights.tensors import AdapterTensors


@dataclasses.dataclass(frozen=True)
class Unfit:
    """Why no adapter of a method can be at a module, and under which code this is said."""

    code: Code
    reason: str


@dataclasses.dataclass
class Requirements:
    """One attach on its way: what stands in its way, and where its tensors are wanted. Nothing here
    touches the model."""

    base: nn.Module
    modules: ModuleMap
    name: str
    plan: AdapterPlan
    tensors: AdapterTensors
    dtype: torch.dtype | None
    trainable: bool
    where: Where
    problems: list[Finding] = dataclasses.field(default_factory=list)
    wanted: dict[str, Placement] = dataclasses.field(default_factory=dict)
    linears: dict[tuple[Any, ...], Mapping[str, Shape] | Unfit] = dataclasses.field(
        default_factory=dict
    )
    """Expected shapes at plain linears, of which a model has many of one size."""

    def settle(self) -> None:
        """Raise :class:`AttachError` with every problem so far."""
        if self.problems:
            raise AttachError(*self.problems)

    def module(self, name: str) -> nn.Module:
        return self.modules.by_name[name]

    def usable_module(self, name: str) -> nn.Module | None:
        """The module, if an adapter can be at it; else a problem is noted."""
        module = self.modules.by_name.get(name)
        if module is None or not name:
            self.problem(fit_codes.MODULE_MISSING, f"the model has no module {name!r}")
            return None
        others = self.modules.other_names(name)
        if others:
            self.problem(codes.MODULE_SHARED, f"{name} is the same module as {', '.join(others)}")
            return None
        return module

    def lost(self, site: SitePlan) -> bool:
        """Whether the model never calls the module that would have to run for the site to act,
        and its factors would do something; a problem is noted then."""
        if not needs_call(site) or self.modules.called(site.module) or self._is_idle(site):
            return False
        self.problem(fit_codes.TARGET_NOT_CALLED, f"the model never calls {site.module}")
        return True

    def _is_idle(self, site: SitePlan) -> bool:
        keys = {key for keys in deciding(site) for key in keys}
        return is_idle(site, {key for key in keys if not self.tensors.host(key).any()})

    def present(self, module: str, keys: Iterable[str]) -> bool:
        """Whether all of these tensors are there; a problem is noted for each that is not."""
        infos = self.tensors.header.tensors
        missing = [key for key in keys if key not in infos]
        for key in missing:
            self.problem(
                fit_codes.HALF_PRESENT, f"{key!r}, planned for {module}, is not among the tensors"
            )
        return not missing

    def want(self, module_name: str, keys: Iterable[str], dtype: torch.dtype | None = None) -> bool:
        """Ask for these tensors where the module computes; ``False``, and a problem, if nowhere."""
        module = self.module(module_name)
        placement = placement_of(module, self.base, dtype or self.dtype)
        if placement is None:
            self.problem(codes.MODULE_ON_META, f"{module_name} is on the meta device")
            return False
        for key in keys:
            self.wanted[key] = placement
        return True

    def differs(self, key: str, old: torch.Tensor) -> bool:
        """Whether a tensor is another one than this, in that one's dtype. Compared on the host: an
        attach sends nothing to a device but what stays there. Quantised values are other ones."""
        if type(old.data) is not torch.Tensor:
            return True
        new = self.tensors.host(key).to(old.dtype)
        return new.shape != old.shape or not torch.equal(new, old.to(new.device))

    def problem(self, code: Any, message: str, **more: Any) -> None:
        self.problems.append(code.finding(f"{self.name}: {message}", self.where, **more))

    def misfit(
        self, what: str, found: object, expected: object, code: Code = fit_codes.SIZE_MISMATCH
    ) -> None:
        self.problem(
            code,
            f"{what} has another size than its module needs",
            found=found,
            expected=expected,
        )
