"""How large the change is that an adapter makes, module by module, and how alike two changes are.

The change of a LoRA at a module is ``scale * B @ A``. Its Frobenius norm and the inner product with
another one need only products of the factors, of rank by rank values: ``<B A, D C>`` is the sum of
``(B^T D) * (A C^T)``. The full matrix is never made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .files.arrays import READABLE, Array, read_part
from .files.facts import AdapterFacts, AdapterPlan, Joined, SitePlan, StoredTensor
from .methods.lora_variants import BLOCKS

LOW_RANK = "of its low-rank part: the rest of DoRA depends on the base's weights"
_LINEAR, _EMBEDDING = ("A", "B"), ("embedding_A", "embedding_B")
_FACTORS: Mapping[frozenset[str], tuple[str, str]] = {
    frozenset({"A", "B"}): _LINEAR,
    frozenset({"A", "B", "B_bias"}): _LINEAR,
    frozenset({"A", "B", "magnitude"}): _LINEAR,
    frozenset({"embedding_A", "embedding_B"}): _EMBEDDING,
    frozenset({"embedding_A", "embedding_B", "magnitude"}): _EMBEDDING,
}
"""By the roles of a LoRA's site, its two factors."""


@dataclass(frozen=True)
class LowRank:
    """A change ``B @ A`` of a weight: A (r, in), B (out, r) with the scale, both float64."""

    a: Array
    b: Array

    @property
    def norm(self) -> float:
        """The Frobenius norm."""
        return math.sqrt(max(0.0, self.times(self)))

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.b.shape[0], self.a.shape[1]

    def times(self, other: LowRank) -> float:
        """The inner product of the two changes, which have one shape."""
        return float(((self.b.T @ other.b) * (self.a @ other.a.T)).sum())


@dataclass(frozen=True)
class Deltas:
    """The changes of one adapter, which are read when they are asked for.

    ``sites`` are those that can be measured, by module. ``left_out`` says of the others why not.
    ``notes`` are on measured ones. ``places`` are the adapter's files.
    """

    facts: AdapterFacts
    plan: AdapterPlan
    places: Mapping[str, Path]
    sites: Mapping[str, SitePlan] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: AdapterFacts, plan: AdapterPlan, places: Mapping[str, Path]) -> Deltas:
        """What can be measured of an adapter by its plan. Reads nothing."""
        sites: dict[str, SitePlan] = {}
        left_out: dict[str, str] = {}
        notes: dict[str, str] = {}
        for site in plan.sites:
            why = _unmeasured(site, facts, plan)
            if why is None and site.module not in sites:
                sites[site.module] = site
                if "magnitude" in site.tensors:
                    notes[site.module] = LOW_RANK
            else:
                left_out[site.module] = why or "it has several sites"
        for module in (*plan.saved, *plan.embeddings, *plan.tuned):
            left_out[module] = "the module is replaced"
        for module in plan.biases:
            left_out.setdefault(module, "its bias is replaced")
        if plan.prompt is not None:
            left_out[plan.prompt.module or "(the model)"] = (
                f"{plan.prompt.method} adds to the input"
            )
        return cls(facts, plan, places, sites, left_out, notes)

    def read(self, module: str) -> LowRank:
        """The change of a module in ``sites``. Raises ``OSError``."""
        site = self.sites[module]
        first, second = _roles_of(site)
        a = self._array(site.tensors[first])
        b = self._array(site.tensors[second])
        a, b = a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)
        if "E" in site.tensors:
            a = a * self._array(site.tensors["E"]).reshape(-1, 1)
        return LowRank(a, b * site.scale)

    def each(self) -> Iterator[tuple[str, LowRank]]:
        """Every measured module with its change, one after another."""
        for module in self.sites:
            yield module, self.read(module)

    def _array(self, key: str) -> Array:
        part = _part(key, self.facts, self.plan)
        assert part is not None
        return read_part(self.places, self.facts.headers, part).astype("float64")


def _roles_of(site: SitePlan) -> tuple[str, str]:
    return _LINEAR if site.method == "ADALORA" else _FACTORS[frozenset(site.tensors)]


def _unmeasured(site: SitePlan, facts: AdapterFacts, plan: AdapterPlan) -> str | None:
    """Why the change of a site cannot be measured."""
    known = frozenset(site.tensors) in _FACTORS if site.method == "LORA" else False
    if site.method == "ADALORA":
        known = set(site.tensors) == {"A", "B", "E"}
    if not known:
        return f"{site.method} is not measured"
    if BLOCKS in site.settings:
        return "factors in blocks are not measured"
    shapes: list[tuple[int, ...]] = []
    for role in (*_roles_of(site), *(("E",) if "E" in site.tensors else ())):
        part = _part(site.tensors[role], facts, plan)
        if part is None:
            return "its factors are made of several older ones"
        info = facts.headers[part.file].tensors[part.name]
        if info.dtype not in READABLE:
            return f"{info.dtype} is not measured"
        shape = info.shape[::-1] if part.turned else info.shape
        if part.rows is not None:
            shape = (part.rows[1] - part.rows[0], info.shape[-1])
            shape = shape[::-1] if part.turned else shape
        shapes.append(shape)
    inner = math.prod(shapes[1][1:])
    if len(shapes[0]) < 2 or len(shapes[1]) < 2 or inner != shapes[0][0]:
        return "factors in groups are not measured"
    return None


def _part(key: str, facts: AdapterFacts, plan: AdapterPlan) -> StoredTensor | None:
    """Where a tensor of the plan is stored, if it is one part of a file."""
    if plan.conversion is not None:
        source = plan.conversion.sources[key]
        if isinstance(source, Joined):
            return None
        key = source
    found = facts.parts.get(key)
    return found if found is not None else StoredTensor(next(iter(facts.headers)), key)
