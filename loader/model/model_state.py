"""What a model says of its adapters, as one frozen value."""

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
    """What a model says of its adapters. A change is another value, put in place by one assignment,
    and what was interrupted is undone by putting the old value back."""

    default: Routing = BASE
    selected: Selection = None
    """What the default was chosen by."""
    compositions: Mapping[str, Mapping[str, Weight]] = field(default_factory=dict)
    recipes: Mapping[str, Composition] = field(default_factory=dict)
    rules: Rules | None = None
    merge: Merge | None = None
    before_merge: tuple[Routing, Routing] | None = None
    """The default before the merge, and what the merge left of it."""
    disabled: bool = False
    detached: bool = False
    exchanging: bool = False
    compiled: CompiledBase | None = None
    deployment: Deployment | None = None
    routings: dict[Any, Routing] = field(default_factory=dict, repr=False)
    """What selections mean, so that a switch is a look-up; empty whenever they may mean another."""

    def check_alive(self) -> None:
        """Raise :class:`RoutingError` after ``detach``."""
        if self.detached:
            raise RoutingError(codes.MODEL_DETACHED.finding("this model was detached"))

    def check_unmerged(self, what: str, of: Iterable[str] | None = None) -> None:
        """Raise :class:`RoutingError` if something is merged (one of the adapters ``of``)."""
        merged = self.merged_adapters
        names = merged if of is None else [name for name in of if name in merged]
        if names:
            raise RoutingError(
                merging_codes.ADAPTERS_MERGED.finding(f"{what}: {', '.join(names)} is merged")
            )

    def check_rules(self, terms: Terms) -> None:
        """Raise :class:`PolicyError` if the rules forbid these beside what is merged."""
        merged = self.merge.terms if self.merge is not None else ()
        check_rules(self.rules, (*merged, *terms))

    @property
    def merged_adapters(self) -> list[str]:
        return list(self.merge.weights) if self.merge is not None else []

    def chosen(self, default: Routing, selected: Selection) -> ModelState:
        """With this default; ``replace`` would take longer than the rest of a switch."""
        state = object.__new__(ModelState)
        vars(state).update(vars(self), default=default, selected=selected)
        return state

    def beside(self, merged: Terms) -> Terms:
        """What of the default is left beside ``merged``."""
        gone = {adapter for adapter, _ in merged}
        return tuple(term for term in self.default.terms if term[0] not in gone)

    def left(self, rest: Terms) -> ModelState:
        """Only these are left of the default; nobody chose another one."""
        after, first = routing_of(rest), self.before_merge
        if first is not None and first[1] is self.default:
            first = (first[0], after)
        return replace(self, default=after, before_merge=first)

    def merged(self, merge: Merge, terms: Terms) -> ModelState:
        """The adapters of ``terms`` are in the weights now, and out of the routing."""
        state, rest = self, self.beside(terms)
        if len(rest) != len(self.default.terms):
            if self.before_merge is None or self.before_merge[1] is not self.default:
                state = replace(self, before_merge=(self.default, self.default))
            state = state.left(rest)
        return replace(state, merge=merge, routings={})

    def unmerged(self) -> ModelState:
        """Nothing is in the weights; the default is what it was, unless another was chosen."""
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
