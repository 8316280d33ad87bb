"""Compositions: named combinations of adapters; some become adapters themselves."""

from __future__ import annotations

import os
import types
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from safetensors.torch import save

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ...manifests.findings.finding import Where
from ...manifests.language.schema import Composition
from ...manifests.language.weights import Weight, Written
from ...registry.checks.recorded_base import recorded_name
from ..adapter.adapter import Built
from ..build.build_adapter import build_adapter
from ..compose.combined import combine_members
from ..compose.materialise import plan_of, tensors_of
from ..compose.recipe import dependents, recipe_of, save_combination
from ..routing.selection import check_composition, names_in, route, taking_part
from ..weights.tensors import read_bytes
from .adapter_set import AdapterSet, unknown
from .choice import Choice

_NOWHERE = Where()
_NONE: Mapping[str, Built] = types.MappingProxyType({})


class Compositions:
    """The compositions of a set of adapters, each with its recipe.

    A ``sum`` is a name for weights. Every other method computes an adapter of LoRA factors, which
    is computed again when its members or weights change.
    """

    def __init__(self, adapters: AdapterSet, choice: Choice) -> None:
        self._set = adapters
        self._choice = choice

    def define(
        self,
        name: str,
        of: Mapping[str, Written],
        *,
        combine: str = "sum",
        where: Where = _NOWHERE,
        **options: Any,
    ) -> None:
        """Define a new composition; all or nothing."""
        with self._set.changing():
            if problem := self._set.name_problem(name, where):
                raise RoutingError(problem)
            _require_mapping(name, of)
            recipe = recipe_of(combine, of, options, where)
            self._define(name, recipe, of, replace=False, where=where)

    def reweigh(self, name: str, weights: Mapping[str, Written]) -> None:
        """Change some weights of a composition; all or nothing."""
        with self._set.changing():
            recipe = self._recipe(name, "For this call or as the default, select {name: weight}.")
            _require_mapping(name, weights)
            old = self._set.state.compositions[name]
            if others := [member for member in weights if member not in old]:
                hint = "Use one of the composition's members."
                raise unknown("member", others[0], old, of=f" of {name!r}", hint=hint)
            self._define(name, recipe, {**old, **weights}, replace=True, where=_NOWHERE)

    def _define(
        self, name: str, recipe: Composition, of: Mapping[str, Written], replace: bool, where: Where
    ) -> None:
        adapters = self._set
        weights = check_composition(name, of, adapters.by_name, where)
        if recipe.combine == "sum":
            self.remember(name, recipe, weights)
            return
        adapters.check_free(name, replace, where)
        built = self.made(name, recipe, weights, where=where)
        remade = self.made_again([built], where)
        with adapters.change():
            adapters.put([built, *remade], where)
            self.remember(name, recipe, weights)

    def remember(self, name: str, recipe: Composition, weights: Mapping[str, Weight]) -> None:
        """Record a composition (if it is not a ``sum``, its adapter is attached), and update the
        default if it names it. Changes nothing if the rules forbid that."""
        with self._set.lock:
            state = self._set.state
            known = {**state.compositions, name: types.MappingProxyType(dict(weights))}
            default = state.default
            if recipe.combine == "sum" and name in names_in(state.selected):
                adapters = self._set.by_name
                default = route(state.selected, adapters, known, state.rules, state.merge)
            recipes = {**state.recipes, name: recipe.model_copy(update={"of": known[name]})}
            self._set.say(compositions=known, recipes=recipes, default=default, routings={})

    def refresh(self, changed: Iterable[str]) -> list[str]:
        """Compute again the compositions of adapters whose values changed in place."""
        names = list(changed)
        with self._set.changing(), self._present(names):
            built = self.made_again([self._set.built_of(name) for name in names], _NOWHERE)
            if built:
                self._set.put(built, _NOWHERE)
            return [composition.adapter.name for composition in built]

    def save(self, folder: str | os.PathLike[str], name: str) -> None:
        """Write a composition as an adapter."""
        live = self._set.live
        with self._set.changing():
            recipe = self._recipe(name, "Save an adapter with `save_adapter(folder, name)`.")
            weights = self._set.state.compositions[name]
            with self._members_of(weights) as members:
                combined = combine_members(recipe, weights, members)
            base = live.hub_name or self._recorded_base(weights)
        save_combination(live, folder, name, combined, base)

    def _recorded_base(self, members: Iterable[str]) -> str | None:
        """What all members record as their base; ``None`` where they differ."""
        recipes, adapters = self._set.state.recipes, self._set.by_name
        names = {
            self._recorded_base(recipes[member].of)
            if member in recipes
            else recorded_name(adapters[member].config)
            for member in members
        }
        return names.pop() if len(names) == 1 else None

    def delete(self, name: str) -> None:
        """Delete a composition and its own adapter; its members stay."""
        with self._set.changing():
            if (
                self._recipe(name, "Delete an adapter with `delete_adapter(name)`.").combine
                != "sum"
            ):
                self._set.delete([name])
                return
            with self._set.lock:
                self._set.state = self._set.state.without_compositions([name])

    def _recipe(self, name: str, of_an_adapter: str) -> Composition:
        """The recipe; the hint ``of_an_adapter`` where an adapter has this name."""
        recipes = self._set.state.recipes
        if name not in recipes:
            if name in self._set.by_name:
                raise RoutingError(
                    codes.ADAPTER_UNKNOWN.finding(
                        f"{name!r} is an adapter, not a composition",
                        found=name,
                        expected=", ".join(recipes) or "a composition; there are none",
                        hint=of_an_adapter,
                    )
                )
            hint = "Use the name of a composition, as `model.compositions` lists them."
            raise unknown("composition", name, recipes, hint=hint)
        return recipes[name]

    # -- compositions as adapters --------------------------------------------------------------

    def attach(
        self,
        name: str,
        recipe: Composition,
        of: Mapping[str, Written],
        *,
        dtype: torch.dtype,
        where: Where,
    ) -> None:
        """Attach the combination of ``of`` as a plain adapter in ``dtype``. Raises
        :class:`RoutingError` for adapters that cannot be combined."""
        weights = check_composition(name, of, self._set.by_name, where)
        self._set.check_free(name, False, where)
        self._set.put([self.made(name, recipe, weights, dtype=dtype, where=where)], where)

    def made(
        self,
        name: str,
        recipe: Composition,
        weights: Mapping[str, Weight],
        arriving: Mapping[str, Built] = _NONE,
        *,
        dtype: torch.dtype | None = None,
        where: Where = _NOWHERE,
    ) -> Built:
        """The combined adapter, not yet attached, in ``dtype`` (default: its modules' dtype).

        Members are the ``arriving`` adapters, else the model's. Raises :class:`RoutingError` for
        adapters that cannot be combined.
        """
        live = self._set.live
        with self._members_of(weights, arriving) as members:
            combined = combine_members(recipe, weights, members, where)
            return build_adapter(
                live,
                name,
                plan_of(combined, live.layout),
                read_bytes(save(tensors_of(combined)), where=where),
                members=taking_part([(members[n].adapter, w) for n, w in weights.items()]),
                dtype=dtype,
                where=where,
            )

    def made_again(self, changed: Iterable[Built], where: Where) -> list[Built]:
        """The compositions that use the ``changed`` adapters, computed again; not yet attached."""
        state, new = self._set.state, {built.adapter.name: built for built in changed}
        found: list[Built] = []
        for name in dependents(state.recipes, new.keys()):
            weights = state.compositions[name]
            new[name] = self.made(name, state.recipes[name], weights, new, where=where)
            found.append(new[name])
        return found

    @contextmanager
    def _members_of(
        self, names: Collection[str], arriving: Mapping[str, Built] = _NONE
    ) -> Generator[dict[str, Built], None, None]:
        """The members, loaded during the block: those ``arriving``, else the model's own."""
        with self._present(name for name in names if name not in arriving):
            yield {name: arriving.get(name) or self._set.built_of(name) for name in names}

    def _present(self, names: Iterable[str]) -> AbstractContextManager[None]:
        return self._choice.present(self._set.by_name[name] for name in names)


def _require_mapping(name: str, weights: object) -> None:
    if not isinstance(weights, Mapping):
        raise RoutingError(
            codes.SELECTION_INVALID.finding(
                f"Invalid weights of {name!r}: a {type(weights).__name__}",
                hint="Pass {adapter: weight}.",
            )
        )
