"""The state of a model's adapters, as one frozen value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...manifests.findings import loader as codes
from ...manifests.findings import merging as merging_codes
from ...manifests.findings.errors import RoutingError
from ...manifests.language.schema import Composition
from ...manifests.language.weights import Weight
from ..merge.merge import Merge, Terms
from ..routing.routing import BASE, Routing
from ..routing.selection import Rules, Selection, check_rules
from ..sites.compiled import CompiledBase
from .deployment import Deployment


@dataclass(frozen=True, eq=False)
class ModelState:
    """The state of a model's adapters. A change is a new value, set by one assignment; setting the
    old value again undoes it."""

    default: Routing = BASE
    selected: Selection = None
    """The selection that the default was set with."""
    compositions: Mapping[str, Mapping[str, Weight]] = field(default_factory=dict)
    recipes: Mapping[str, Composition] = field(default_factory=dict)
    rules: Rules | None = None
    merge: Merge | None = None
    before_merge: tuple[Routing, Routing] | None = None
    """The default before the merge, and after it."""
    disabled: bool = False
    detached: bool = False
    exchanging: bool = False
    compiled: CompiledBase | None = None
    deployment: Deployment | None = None
    routings: dict[Any, Routing] = field(default_factory=dict, repr=False)
    """Routings by selection, so that a switch is a look-up; cleared when they may change."""

    def check_alive(self) -> None:
        """Raise :class:`RoutingError` after ``detach``."""
        if self.detached:
            raise RoutingError(codes.MODEL_DETACHED.finding("This model was detached"))

    def check_unmerged(self, what: str, of: Iterable[str] | None = None) -> None:
        """Raise :class:`RoutingError` if adapters are merged (one of ``of``)."""
        merged = self.merged_adapters
        names = merged if of is None else [name for name in of if name in merged]
        if names:
            raise RoutingError(
                merging_codes.ADAPTERS_MERGED.finding(
                    f"{what} while adapters are merged: {', '.join(names)}"
                )
            )

    def check_rules(self, terms: Terms) -> None:
        """Raise :class:`PolicyError` if the rules forbid these beside the merged adapters."""
        merged = self.merge.terms if self.merge is not None else ()
        check_rules(self.rules, (*merged, *terms))

    @property
    def merged_adapters(self) -> list[str]:
        return list(self.merge.weights) if self.merge is not None else []

    def chosen(self, default: Routing, selected: Selection) -> ModelState:
        """With this default. (``replace`` would take longer than the rest of a switch.)"""
        state = object.__new__(ModelState)
        vars(state).update(vars(self), default=default, selected=selected)
        return state

    def beside(self, merged: Terms) -> Terms:
        """The default without ``merged``."""
        gone = {adapter for adapter, _ in merged}
        return tuple(term for term in self.default.terms if term[0] not in gone)

    def left(self, rest: Terms) -> ModelState:
        """The default reduced to ``rest``, by a merge or a deletion."""
        after, first = routing_of(rest), self.before_merge
        if first is not None and first[1] is self.default:
            first = (first[0], after)
        return replace(self, default=after, before_merge=first)

    def merged(self, merge: Merge, terms: Terms) -> ModelState:
        """After merging ``terms``: they leave the default."""
        state, rest = self, self.beside(terms)
        if len(rest) != len(self.default.terms):
            if self.before_merge is None or self.before_merge[1] is not self.default:
                state = replace(self, before_merge=(self.default, self.default))
            state = state.left(rest)
        return replace(state, merge=merge, routings={})

    def unmerged(self) -> ModelState:
        """After unmerging: the default is the one before the merge, unless it was set since."""
        default = self.default
        if self.before_merge is not None and self.before_merge[1] is default:
            default = self.before_merge[0]
            left = tuple(term for term in default.terms if not term[0].retired)
            default = default if len(left) == len(default.terms) else routing_of(left)
        return replace(self, default=default, merge=None, before_merge=None, routings={})

    def without_compositions(self, names: Iterable[str]) -> ModelState:
        gone = set(names)
        return replace(
            self,
            compositions={n: of for n, of in self.compositions.items() if n not in gone},
            recipes={n: recipe for n, recipe in self.recipes.items() if n not in gone},
            routings={},
        )


def routing_of(terms: Terms) -> Routing:
    return Routing(terms) if terms else BASE
