"""The changes that a merge makes to the base's parameters: decided first, then computed.

Live weights and files have the same arithmetic: the old value, or that of a replaced module, plus
the sum of weight times delta, in float32 (float64 where the weight is), rounded once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...manifests.findings import merging as codes
from ...manifests.findings.errors import AttachError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.weights import Weight, weight_at
from ...registry.files.facts import ModuleKind
from ...registry.methods.peft_table import PEFT_TABLE
from ..adapter.adapter import Adapter, Terms
from ..adapter.factors import BiasChange
from ..adapter.weights import SitePart
from ..base.fused_slices import Cut, rows_of
from ..base.modules import ModuleMap
from ..methods.deltas import Delta
from ..methods.peft_merge import merged_by_peft
from ..methods.table import METHODS
from ..sites.replacements import own_tensors
from ..weights.placement import offloaded
from .read_elsewhere import read_elsewhere

PLAIN = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
"""Dtypes of weights that can be merged into."""
_CPU = torch.device("cpu")
_PIECE = 1 << 22
"""Values that are widened at a time."""


@dataclass(frozen=True)
class Addition:
    """One adapter's change of a tensor of ``module``, at ``weight``."""

    weight: float
    of: SitePart | BiasChange
    module: nn.Module

    def same_as(self, other: Addition) -> bool:
        """Whether both add the same to two tied tensors: of a part that follows another at a tied
        module."""
        mine, theirs = self.of, other.of
        if not isinstance(mine, SitePart) or not isinstance(theirs, SitePart):
            return False
        return (
            self.weight == other.weight
            and mine.site.method == theirs.site.method
            and "follows" in {**mine.site.settings, **theirs.site.settings}
            and mine.roles.keys() == theirs.roles.keys()
            and all(mine.roles[role] is theirs.roles[role] for role in mine.roles)
        )

    def delta(self, name: str, old: Tensor, wide: torch.dtype, device: torch.device) -> Delta:
        """Its change of some rows of the tensor ``name``, which is ``old`` now."""
        part = self.of
        if isinstance(part, BiasChange):
            change = part.value.detach().to(device, wide) - part.old.to(device, wide)
            return lambda rows: change[rows]
        if part.layer is not None:
            leaf = name.rpartition(".")[2]
            new = merged_by_peft(part.layer, self.module, part.shape, wide, part.site.module)[leaf]
            change = new.to(device) - old.to(device, wide)
            return lambda rows: change[rows]
        method = METHODS[part.site.method]
        roles = roles_of(part, wide, device)
        if name == parameter_of(part):
            assert method.delta_weight is not None
            return method.delta_weight(part.site, self.module, part.shape, old, roles)
        assert method.delta_bias is not None
        found = method.delta_bias(part.site, part.shape, old.to(device, wide), roles)
        bias = torch.zeros(old.shape, dtype=wide, device=device) if found is None else found
        return lambda rows: bias[rows]


def parameter_of(part: SitePart) -> str:
    """The live name of the parameter that the part changes, beside a bias."""
    return f"{part.site.module}.{part.site.settings.get('parameter', 'weight')}"


@dataclass
class Fold:
    """The changes of one of the base's tensors, by its live name: ``new`` in its place, if a module
    is replaced, and then the ``additions``."""

    name: str
    new: Tensor | None = None
    additions: list[Addition] = field(default_factory=list[Addition])

    def same_as(self, other: Fold) -> bool:
        """Whether two tied tensors stay the same (a saved embedding and its head, trained tokens of
        both)."""
        if self is other:
            return True
        if self.new is not other.new and (
            self.new is None
            or other.new is None
            or self.new.dtype is not other.new.dtype
            or not torch.equal(self.new, other.new)
        ):
            return False
        pairs = zip(self.additions, other.additions, strict=False)
        return len(self.additions) == len(other.additions) and all(a.same_as(b) for a, b in pairs)

    def of(self, old: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The merged tensor, of ``old``'s shape and on its device, in ``dtype`` (else that of
        ``old``). ``old`` is left as it is, and never shared."""
        source = (old if self.new is None else self.new).detach()
        dtype, device = dtype or old.dtype, old.device
        if not self.additions:
            return source.to(device, dtype, copy=True)
        wide = torch.float64 if old.dtype is torch.float64 else torch.float32
        rows = rows_of(source) if self.of_experts else source
        with torch.no_grad():
            deltas = self.deltas(source, wide, device)
            return _summed(rows, [slice(0, len(rows))], deltas, wide, dtype, device).view(
                source.shape
            )

    @property
    def of_experts(self) -> bool:
        """Whether its rows are those of all experts, one after the other."""
        return any("parameter" in part.site.settings for part in self._parts())

    @property
    def of_base(self) -> bool:
        """Whether a delta is made of the old weight too, and not only of the adapter."""
        return any(not part.of_input for part in self._parts())

    def _parts(self) -> Iterable[SitePart]:
        return (one.of for one in self.additions if isinstance(one.of, SitePart))

    def deltas(
        self, old: Tensor, wide: torch.dtype, device: torch.device
    ) -> list[tuple[float, Delta]]:
        """Each addition's weight, and its delta of some rows."""
        return [(one.weight, one.delta(self.name, old, wide, device)) for one in self.additions]


@dataclass(frozen=True)
class CutFold:
    """The changes of a stored tensor that is a part of a live one."""

    fold: Fold
    cut: Cut
    live: tuple[int, ...]

    def of(self, old: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """See :meth:`Fold.of`; ``old`` is the stored tensor."""
        fold, cut, dtype = self.fold, self.cut, dtype or old.dtype
        with torch.no_grad():
            new = fold.new
            source = cut.rows_from(old) if new is None else cut.taken(new.detach().to(old.device))
            wide = torch.float64 if old.dtype is torch.float64 else torch.float32
            unknown = torch.empty(self.live, dtype=wide, device="meta")
            deltas = [
                (weight, _columns(delta, cut.columns))
                for weight, delta in fold.deltas(unknown, wide, old.device)
            ]
            return cut.stored_from(_summed(source, cut.runs, deltas, wide, dtype, old.device))


def _columns(delta: Delta, columns: slice) -> Delta:
    return lambda rows: delta(rows)[:, columns]


def _summed(
    source: Tensor,
    runs: Iterable[slice],
    deltas: Iterable[tuple[float, Delta]],
    wide: torch.dtype,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """``source``, which is these ``runs`` of rows, with weight times delta added. Some rows at a
    time, always the same ones, so that results do not depend on memory."""
    result = torch.empty(source.shape, dtype=dtype, device=device)
    step = max(1, _PIECE // max(1, source.numel() // max(1, len(source))))
    at = 0
    for run in runs:
        for start in range(run.start, run.stop, step):
            stop = min(start + step, run.stop)
            piece = source[at : at + stop - start].to(device, wide, copy=True)
            for weight, delta in deltas:
                change = delta(slice(start, stop))
                if change.shape != piece.shape:
                    raise ValueError(f"a delta of {tuple(change.shape)} for {tuple(piece.shape)}")
                piece.add_(change, alpha=weight)
            result[at : at + stop - start] = piece
            at += stop - start
    return result


def is_finite(tensor: Tensor) -> bool:
    """Whether it has no NaN and no infinity, checked in pieces."""
    if not tensor.is_floating_point():
        return True
    return all(bool(torch.isfinite(piece).all()) for piece in tensor.flatten().split(_PIECE))


def roles_of(part: SitePart, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """The tensors of a site in the dtype of a merge."""
    return {
        role: tensor.detach().to(device, dtype if tensor.is_floating_point() else None)
        for role, tensor in part.roles.items()
    }


def folds(
    base: nn.Module,
    modules: ModuleMap,
    terms: Terms,
    where: Where = Where(),  # noqa: B008 - frozen
) -> dict[str, Fold]:
    """The changes of the tensors of ``base`` when ``terms`` are merged, by live name.

    Reads sizes and biases, not weights. Raises :class:`AttachError` with every reason why that
    cannot be.
    """
    planner = _Planner(modules, where)
    for adapter, _ in terms:
        planner.replace(adapter)
    for adapter, weight in terms:
        planner.add(adapter, weight)
    if not planner.problems:
        planner.check_reads(base, terms)
    if planner.problems:
        raise AttachError(*planner.problems)
    return planner.found


@dataclass
class _Planner:
    modules: ModuleMap
    where: Where
    found: dict[str, Fold] = field(default_factory=dict[str, Fold])
    problems: list[Finding] = field(default_factory=list[Finding])
    replaced: dict[str, Adapter] = field(default_factory=dict[str, Adapter])
    at: dict[str, list[SitePart]] = field(default_factory=dict[str, list[SitePart]])
    """The parts at each module."""

    def replace(self, adapter: Adapter) -> None:
        """Replaced modules first: factors at one are added to the module that replaces it."""
        for name, replacement in adapter.resident.replaced.items():
            self.replaced[name] = adapter
            old = own_tensors(self.modules.by_name[name])
            for path, tensor in own_tensors(replacement).items():
                if tensor is old[path]:
                    continue
                if tensor.shape != old[path].shape:
                    self._problem(
                        codes.MERGE_GROWN,
                        f"{adapter.name!r} replaces {name}.{path} by another size",
                        found=tuple(tensor.shape),
                        expected=tuple(old[path].shape),
                    )
                    continue
                self._fold(f"{name}.{path}").new = tensor

    def check_reads(self, base: nn.Module, terms: Terms) -> None:
        """Note embeddings whose weight the base reads elsewhere too, without the delta."""
        at = {
            part.site.module
            for adapter, _ in terms
            for part in adapter.resident.parts
            if part.shape.kind is ModuleKind.EMBEDDING and not part.site.settings.get("wraps")
        }
        for name in sorted(read_elsewhere(base, self.modules, at)) if at else ():
            self._problem(codes.MERGE_READ, f"{name}.weight is read outside of {name} too")

    def add(self, adapter: Adapter, weight: Weight) -> None:
        """Its deltas, if they are all that it changes."""
        refused = {part.site.method for part in adapter.resident.parts if part.layer is None}
        refused = {n for n in refused if n not in METHODS or METHODS[n].delta_weight is None}
        if adapter.resident.prompt is not None:
            refused |= {name for name in adapter.methods if name not in METHODS}
        others = adapter.resident.unassigned()
        if refused or others:
            what = " and ".join(sorted(refused)) or others[0]
            self._problem(
                codes.MERGE_METHOD,
                f"{adapter.name!r} cannot be merged: {what} does not change a weight",
            )
            return
        for part in adapter.resident.parts:
            if at := weight_at(weight, part.site.reader):
                self._add_part(adapter, part, at)
        for name, change in adapter.resident.biases.items():
            if at := weight_at(weight, name):
                addition = Addition(at, change, self.modules.by_name[name])
                self._fold(f"{name}.bias").additions.append(addition)

    def _add_part(self, adapter: Adapter, part: SitePart, weight: float) -> None:
        name, module = part.site.module, self.modules.by_name[part.site.module]
        reason = _unmergeable(part, module) or self._unclear(adapter, part)
        bias = _bias_change(part, module) if reason is None else None
        if bias is not None and offloaded(module, "bias") is None:
            reason = "the module has no bias to change"
        if reason is not None:
            self._problem(codes.MERGE_METHOD, f"{adapter.name!r} at {name}: {reason}")
            return
        self.at.setdefault(name, []).append(part)
        if part.layer is not None:
            leaves = PEFT_TABLE[part.site.method].merges
            names = [f"{name}.{leaf}" for leaf in leaves if getattr(module, leaf, None) is not None]
        else:
            names = [parameter_of(part), *([] if bias is None else [f"{name}.bias"])]
        for parameter in names:
            self._fold(parameter).additions.append(Addition(weight, part, module))

    def _unclear(self, adapter: Adapter, part: SitePart) -> str | None:
        """Why the part's delta is not made of what the base computes at this module."""
        replacing = self.replaced.get(part.site.module)
        if not part.of_input and replacing not in (None, adapter):
            return f"it changes the module's output, and {replacing.name!r} replaces the module"
        together = [part, *self.at.get(part.site.module, ())]
        changed = any("parameter" in one.site.settings for one in together)
        if not changed or all(one.of_input for one in together):
            return None
        return "it changes the module's output, and one of its parameters is changed too"

    def _fold(self, name: str) -> Fold:
        return self.found.setdefault(name, Fold(name))

    def _problem(self, code: Any, message: str, **more: Any) -> None:
        self.problems.append(code.finding(message, self.where, **more))


def _unmergeable(part: SitePart, module: nn.Module) -> str | None:
    if part.layer is None:
        return METHODS[part.site.method].unmergeable(part.site, module, part.shape)
    if PEFT_TABLE[part.site.method].by_batch:
        return "its output for a row depends on all rows of the batch"
    if getattr(module, "max_norm", None) is not None:
        return "an embedding with max_norm rescales its rows at each use"
    return None


@torch.no_grad()
def _bias_change(part: SitePart, module: nn.Module) -> Tensor | None:
    """The part's change of the module's bias; ``None`` if it changes only the weight."""
    delta_bias = None if part.layer is not None else METHODS[part.site.method].delta_bias
    if delta_bias is None:
        return None
    bias = offloaded(module, "bias")
    if bias is None:
        return delta_bias(part.site, part.shape, None, roles_of(part, torch.float32, _CPU))
    dtype = torch.float64 if bias.dtype is torch.float64 else torch.float32
    roles = roles_of(part, dtype, bias.device)
    return delta_bias(part.site, part.shape, bias.detach().to(dtype), roles)
