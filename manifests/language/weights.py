"""A member's weight: one number, or one for each module, by glob."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from glob import escape
from math import prod
from typing import Union

Globs = tuple[tuple[str, float], ...]
"""(glob, weight), in order: the first glob that matches a module's full name counts, and without a
match the weight is 0."""


@dataclass(frozen=True, repr=False)
class ModuleWeights:
    """Weights by names of modules: a sum of products of ordered globs, which is what nested sums
    multiply out to."""

    terms: tuple[tuple[Globs, ...], ...]
    _known: dict[str, float] = field(
        default_factory=dict[str, float], compare=False, repr=False, hash=False
    )

    @classmethod
    def of(cls, globs: Mapping[str, float]) -> ModuleWeights:
        return cls(((tuple((glob, float(weight)) for glob, weight in globs.items()),),))

    def at(self, module: str) -> float:
        """The weight at one module."""
        found = self._known.get(module)
        if found is None:
            found = sum(prod(_first(globs, module) for globs in term) for term in self.terms)
            self._known[module] = found
        return found

    def idle(self, modules: Iterable[str]) -> list[str]:
        """The globs without effect on ``modules``: they match nothing, or only what an earlier one
        matches."""
        names = list(modules)
        lists = {globs for term in self.terms for globs in term}
        return sorted(
            globs[place][0]
            for globs in lists
            for place in set(range(len(globs))) - {_place(globs, name) for name in names}
        )

    def __bool__(self) -> bool:
        return any(all(any(w for _, w in globs) for globs in term) for term in self.terms)

    def scaled(self, factor: float) -> ModuleWeights:
        """Every weight times ``factor``."""
        return ModuleWeights(
            tuple(
                (tuple((glob, weight * factor) for glob, weight in first), *rest)
                for first, *rest in self.terms
            )
        )

    def __repr__(self) -> str:
        shown = ["*".join(str(dict(globs)) for globs in term) for term in self.terms]
        return " + ".join(shown)


Weight = Union[float, ModuleWeights]  # noqa: UP007 - a value too
Written = Union[float, Mapping[str, float], ModuleWeights]  # noqa: UP007
"""A weight as it is written: a number, or globs to numbers."""


def weight_of(written: Written) -> Weight:
    """The parsed weight."""
    if isinstance(written, ModuleWeights):
        return written
    return ModuleWeights.of(written) if isinstance(written, Mapping) else float(written)


def weight_at(weight: Weight, module: str) -> float:
    """The weight at a module."""
    return weight.at(module) if isinstance(weight, ModuleWeights) else weight


def times(one: Weight, other: Weight) -> Weight:
    """The product."""
    if not isinstance(one, ModuleWeights):
        return other.scaled(one) if isinstance(other, ModuleWeights) else one * other
    if not isinstance(other, ModuleWeights):
        return one.scaled(other)
    return ModuleWeights(tuple((*a, *b) for a in _terms(one) for b in _terms(other)))


def plus(one: Weight, other: Weight) -> Weight:
    """The sum."""
    if not isinstance(one, ModuleWeights) and not isinstance(other, ModuleWeights):
        return one + other
    return ModuleWeights(_terms(one) + _terms(other))


def shown(weight: Weight) -> str:
    """The weight as text."""
    return str(weight) if isinstance(weight, ModuleWeights) else f"{weight:g}"


def written(weight: Weight, modules: Iterable[str]) -> float | dict[str, float]:
    """The weight as in a manifest: a number, or globs to numbers. A product or a sum of globs is
    written out for each of ``modules``."""
    if not isinstance(weight, ModuleWeights):
        return weight
    if len(weight.terms) == 1 and len(weight.terms[0]) == 1:
        return dict(weight.terms[0][0])
    return {escape(name): weight.at(name) for name in modules}


def _terms(weight: Weight) -> tuple[tuple[Globs, ...], ...]:
    return weight.terms if isinstance(weight, ModuleWeights) else (((("*", weight),),),)


def _place(globs: Globs, module: str) -> int | None:
    return next((n for n, (glob, _) in enumerate(globs) if fnmatchcase(module, glob)), None)


def _first(globs: Globs, module: str) -> float:
    place = _place(globs, module)
    return 0.0 if place is None else globs[place][1]
