"""What building an adapter asks of the live base and of the tensors' values.

Names and shapes were compared with this base's layout by the fit check. Left for here is what no
layout says: shared modules, offloaded weights, what PyTorch cannot compute, and values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ...manifests.findings import fit as fit_codes
from ...manifests.findings import loader as codes
from ...manifests.findings.code import Code
from ...manifests.findings.errors import AttachError
from ...manifests.findings.finding import Finding, Where
from ...registry.files.facts import AdapterPlan
from ..base.modules import ModuleMap
from ..weights.placement import Placement, placement_of
from ..weights.tensors import AdapterTensors


@dataclasses.dataclass
class Requirements:
    """The problems of one adapter, and where each of its tensors goes. Nothing here touches the
    model."""

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

    def settle(self) -> None:
        """Raise :class:`AttachError` with every problem so far."""
        if self.problems:
            raise AttachError(*self.problems)

    def module(self, name: str) -> nn.Module:
        return self.modules.by_name[name]

    def usable(self, name: str, replaced: Iterable[str] = ()) -> bool:
        """Whether an adapter can be at a module; else a problem is noted. ``replaced`` are the
        modules that the same adapter replaces."""
        if name not in self.modules.by_name:
            self.problem(fit_codes.MODULE_MISSING, f"The model has no module {name!r}")
        elif others := self.modules.other_names(name):
            self.problem(codes.MODULE_SHARED, f"{name} is the same module as {', '.join(others)}")
        elif outer := next((n for n in replaced if name.startswith(f"{n}.")), None):
            self.problem(
                codes.SITE_INSIDE_SAVED, f"{name} is inside {outer}, which the adapter replaces"
            )
        else:
            return True
        return False

    def want(self, module_name: str, keys: Iterable[str], dtype: torch.dtype | None = None) -> bool:
        """Ask for these tensors where the module computes; ``False``, and a problem, if nowhere."""
        module = self.module(module_name)
        placement = placement_of(module, self.base, dtype or self.dtype)
        if placement is None:
            self.problem(codes.MODULE_ON_META, f"{module_name} is on the meta device")
            return False
        self.wanted |= dict.fromkeys(keys, placement)
        return True

    def differs(self, key: str, old: torch.Tensor) -> bool:
        """Whether a tensor differs from this one, in that one's dtype. Compared on the host: an
        attach sends nothing to a device but what stays there. Quantised values always differ."""
        if type(old.data) is not torch.Tensor:
            return True
        new = self.tensors.host(key).to(old.dtype)
        return new.shape != old.shape or not torch.equal(new, old.to(new.device))

    def problem(self, code: Code, message: str, **more: Any) -> None:
        self.problems.append(code.finding(f"{self.name}: {message}", self.where, **more))

    def failure(self, code: Code, message: str, error: Exception) -> AttachError:
        found = f"{type(error).__name__}: {error}"[:400]
        return AttachError(code.finding(f"{self.name}: {message}", self.where, found=found))

    def misfit(self, what: str, found: object, expected: object, code: Code) -> None:
        self.problem(code, f"{what} does not fit the module", found=found, expected=expected)
