"""What a merge makes of the base's parameters: decided first, then computed one by one.

The same arithmetic serves live weights and files: the old value, or a whole module's new one,
plus the sum of weight times delta, in float32 (float64 where the weight is), rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..manifests.codes import merging as codes
from ..manifests.errors import AttachError
from ..manifests.findings import Finding, Where
from ..manifests.weights import Weight, weight_at
from .adapter import Adapter, Part
from .bias import BiasFactors
from .methods.table import METHODS, Method
from .modules import ModuleMap
from .placement import offloaded
from .twins import own_tensors

Terms = Iterable[tuple[Adapter, Weight]]
Delta = Callable[[Tensor, "slice | None"], Tensor]

PLAIN = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
"""Dtypes of weights that can be merged into."""
_PIECE = 1 << 22
"""Values that are widened at a time."""


@dataclass
class Fold:
    """What becomes of one of the base's tensors, known by its live name: ``new`` in its place, if
    a module is replaced, and then the ``additions``, each with the adapter's weight."""

    name: str
    new: Tensor | None = None
    additions: list[tuple[float, Part | BiasFactors]] = field(default_factory=list)

    def of(
        self, old: Tensor, dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> Tensor:
        """The merged tensor, of ``old``'s shape, in ``dtype`` (else that of ``old``) on ``device``
        (else that of ``old``). ``old`` is left as it is, and never shared."""
        with torch.no_grad():
            return self._of(old, dtype or old.dtype, device or old.device)

    def _of(self, old: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
        source = (old if self.new is None else self.new).detach()
        if not self.additions:
            return source.to(device, dtype, copy=True)
        wide = torch.float64 if old.dtype is torch.float64 else torch.float32
        deltas = [(weight, self._delta(one, wide, device)) for weight, one in self.additions]
        by_rows = all(self._by_rows(one) for _, one in self.additions)
        result = torch.empty(source.shape, dtype=dtype, device=device)
        for rows in _pieces(source) if by_rows else (None,):
            piece = source if rows is None else source[rows]
            piece = piece.to(device, wide)
            total = piece.clone()
            for weight, delta in deltas:
                change = delta(piece, rows)
                if change.shape != piece.shape:
                    raise ValueError(
                        f"{self.name}: a delta of {tuple(change.shape)} for {tuple(piece.shape)}"
                    )
                total.add_(change, alpha=weight)
            if rows is None:
                result.copy_(total)
            else:
                result[rows] = total
        return result

    def _by_rows(self, one: Part | BiasFactors) -> bool:
        return not isinstance(one, Part) or (
            self.name.endswith(".weight") and METHODS[one.site.method].roles_of_rows is not None
        )

    def _delta(self, one: Part | BiasFactors, wide: torch.dtype, device: torch.device) -> Delta:
        if isinstance(one, BiasFactors):
            change = one.value.detach().to(device, wide) - one.old.to(device, wide)
            return lambda piece, rows: change if rows is None else change[rows]
        method = METHODS[one.site.method]
        roles = roles_of(one, wide, device)
        if self.name.endswith(".weight"):
            return _delta_of_weight(method, one, roles)
        bias = method.delta_bias
        assert bias is not None

        def delta(piece: Tensor, rows: slice | None) -> Tensor:
            found = bias(one.site, one.shape, piece, roles)
            return torch.zeros_like(piece) if found is None else found

        return delta


def _delta_of_weight(method: Method, part: Part, roles: Mapping[str, Tensor]) -> Delta:
    delta_weight, cut = method.delta_weight, method.roles_of_rows
    assert delta_weight is not None

    def delta(piece: Tensor, rows: slice | None) -> Tensor:
        some = roles if rows is None or cut is None else cut(part.site, part.shape, roles, rows)
        return delta_weight(part.site, part.shape, piece, some)

    return delta


def _pieces(tensor: Tensor) -> Iterator[slice]:
    """Its rows, some at a time: always the same ones, so that results do not depend on memory."""
    step = max(1, _PIECE // max(1, tensor.numel() // max(1, len(tensor))))
    for start in range(0, len(tensor), step):
        yield slice(start, start + step)


def is_finite(tensor: Tensor) -> bool:
    """Whether it has no NaN and no infinity, looked at in pieces."""
    if not tensor.is_floating_point():
        return True
    return all(bool(torch.isfinite(piece).all()) for piece in tensor.flatten().split(_PIECE))


def roles_of(part: Part, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
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
    """What becomes of which tensor of ``base`` when ``terms`` are merged, by live name.

    Looks at sizes and biases, not at weights. Raises :class:`AttachError` with every reason why
    that cannot be.
    """
    planner = _Planner(modules, where)
    terms = list(terms)
    for adapter, _ in terms:
        planner.replace(adapter)
    for adapter, weight in terms:
        planner.add(adapter, weight)
    if planner.problems:
        raise AttachError(*planner.problems)
    return planner.found


@dataclass
class _Planner:
    modules: ModuleMap
    where: Where
    found: dict[str, Fold] = field(default_factory=dict)
    problems: list[Finding] = field(default_factory=list)

    def replace(self, adapter: Adapter) -> None:
        """Whole modules first: factors at one are added to the module that replaces it."""
        for name in sorted(adapter.whole):
            twin = adapter.twins[f"base_model.model.{name}.modules_to_save.{adapter.name}"]
            old = own_tensors(self.modules.by_name[name])
            for path, tensor in own_tensors(twin).items():
                if tensor is old[path]:
                    continue
                if tensor.shape != old[path].shape:
                    self._problem(
                        codes.MERGE_GROWN,
                        f"{adapter.name!r} brings {name}.{path} in another size",
                        found=tuple(tensor.shape),
                        expected=tuple(old[path].shape),
                    )
                    continue
                self._fold(f"{name}.{path}").new = tensor

    def add(self, adapter: Adapter, weight: Weight) -> None:
        """Its deltas, after it was made sure that they are all there is of it."""
        refused = [
            name
            for name in adapter.methods
            if name not in METHODS or METHODS[name].delta_weight is None
        ]
        known = {id(t) for part in adapter.parts for t in part.roles.values()}
        known |= {id(one.value) for one in adapter.biases.values()}
        rest = [name for name, value in adapter.parameters.items() if id(value) not in known]
        if refused or rest:
            what = " and ".join(refused) if refused else rest[0]
            self._problem(codes.MERGE_METHOD, f"{adapter.name!r}: {what} is no change of a weight")
            return
        for part in adapter.parts:
            if at := weight_at(weight, part.site.module):
                self._add_part(adapter, part, at)
        for name, one in adapter.biases.items():
            if at := weight_at(weight, name):
                self._fold(f"{name}.bias").additions.append((at, one))

    def _add_part(self, adapter: Adapter, part: Part, weight: float) -> None:
        name, method = part.site.module, METHODS[part.site.method]
        module = self.modules.by_name[name]
        if reason := method.unmergeable(part.site, module, part.shape):
            self._problem(codes.MERGE_METHOD, f"{adapter.name!r} at {name}: {reason}")
            return
        self._fold(f"{name}.weight").additions.append((weight, part))
        if method.delta_bias is None:
            return
        bias = offloaded(module, "bias")
        dtype = torch.float64 if bias is not None and bias.dtype is torch.float64 else torch.float32
        device = torch.device("cpu") if bias is None else bias.device
        with torch.no_grad():
            change = method.delta_bias(
                part.site,
                part.shape,
                None if bias is None else bias.detach().to(dtype),
                roles_of(part, dtype, device),
            )
        if change is not None and bias is None:
            self._problem(
                codes.MERGE_METHOD, f"{adapter.name!r} at {name}: the module has no bias to change"
            )
        elif change is not None:
            self._fold(f"{name}.bias").additions.append((weight, part))

    def _fold(self, name: str) -> Fold:
        return self.found.setdefault(name, Fold(name))

    def _problem(self, code: Any, message: str, **more: Any) -> None:
        self.problems.append(code.finding(message, self.where, **more))
