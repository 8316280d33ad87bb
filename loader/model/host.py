"""Compositions of an adapted model: defining, reweighing, saving and deleting them."""

from __future__ import annotations

import os
import types
from collections.abc import Iterable, Mapping

from ...manifests.findings.errors import RoutingError
from ...manifests.findings.finding import Where
from ...manifests.language.schema import Composition
from ...manifests.language.weights import Weight, Written
from ..routing.selection import check_composition, names_in, route
from .adapter_set import Holder, unknown_adapter
from .all_or_nothing import AllOrNothing


class AdapterHost(Holder):
    """The part of an adapted model that combines adapters under a name."""

    def define_composition(
        self,
        name: str,
        of: Mapping[str, Written],
        *,
        combine: str = "sum",
        density: float | None = None,
        majority_sign_method: str | None = None,
        svd_rank: int | None = None,
        svd_clamp: float | None = None,
        seed: int | None = None,
        where: Where = Where(),  # noqa: B008 - frozen
    ) -> None:
        """Give a combination of attached adapters a name, which it shares with no adapter.

        ``of`` maps adapters to weights. A ``sum`` is exact, over any adapters; a weight there may
        be {glob of modules: number}. Every other method has PEFT's name (``linear``, ``svd``,
        ``ties``, ...), takes its options (``density``, ``majority_sign_method``, ``svd_rank``,
        ``svd_clamp``) and a ``seed`` where it is random, and makes an adapter of LoRA factors,
        computed here and now. Raises :class:`RoutingError` for what cannot be combined; the model
        is then as it was.
        """
        from ..compose.recipe import recipe_of
        from .attach import put_adapters
        from .compositions import composed

        with self.changing():
            if problem := self.name_problem(name, where):
                raise RoutingError(problem)
            options = {
                "density": density,
                "majority_sign_method": majority_sign_method,
                "svd_rank": svd_rank,
                "svd_clamp": svd_clamp,
                "seed": seed,
            }
            recipe = recipe_of(combine, of, options, where)
            if recipe.combine == "sum":
                self.name_composition(
                    name, recipe, check_composition(name, of, self._adapters, where)
                )
                return
            weights, built = composed(self, name, recipe, of, where=where)
            with self._attachments.lock, AllOrNothing(self):
                put_adapters(self, built, where)
                self.name_composition(name, recipe, weights)

    def add_weighted_adapter(
        self,
        adapters: list[str],
        weights: list[float],
        adapter_name: str,
        combination_type: str = "svd",
        svd_rank: int | None = None,
        svd_clamp: float | None = None,
        density: float | None = None,
        majority_sign_method: str | None = None,
        seed: int | None = None,
    ) -> None:
        """PEFT's: :meth:`define_composition` with two lists. The random methods need a ``seed``,
        a name that is taken is an error, and one adapter is pruned as many are."""
        from ..compose.recipe import weights_of

        self.define_composition(
            adapter_name,
            weights_of(adapters, weights),
            combine=combination_type,
            svd_rank=svd_rank,
            svd_clamp=svd_clamp,
            density=density,
            majority_sign_method=majority_sign_method,
            seed=seed,
        )

    def set_adapter_weights(self, composition: str, weights: Mapping[str, Written]) -> None:
        """Change weights of a composition: those of the adapters named, the others stay.

        Calls that begin after it have the new weights, also where the composition is the default;
        calls that are running, and a ``using`` of a sum that was entered before, keep the old
        ones. All or nothing.
        """
        from .attach import put_adapters
        from .compositions import composed

        with self.changing():
            recipe = self._recipe(composition)
            old = self._compositions[composition]
            if unknown := [name for name in weights if name not in old]:
                raise unknown_adapter(unknown[0], f"{composition!r} is made of {', '.join(old)}")
            of: dict[str, Written] = {**old, **weights}
            if recipe.combine == "sum":
                new = check_composition(composition, of, self._adapters)
                self.name_composition(composition, recipe, new)
                return
            new, built = composed(self, composition, recipe, of, replace=True)
            with self._attachments.lock, AllOrNothing(self):
                put_adapters(self, built, Where())
                self.name_composition(composition, recipe, new)

    def refresh_compositions(self, changed: Iterable[str]) -> list[str]:
        """Make again what was computed from adapters that have other values now, since they were
        trained; returns the names. A sum needs none of it, and replacing an adapter does it by
        itself."""
        from .attach import put_adapters
        from .compositions import made_again

        with self.changing(), self.present(self._adapters[name] for name in changed):
            built = made_again(self, [self.built_of(name) for name in changed], Where())
            if built:
                put_adapters(self, built, Where())
            return [one.adapter.name for one in built]

    def save_composition(self, save_directory: str | os.PathLike[str], name: str) -> None:
        """Write a composition as an adapter of its own: ``adapter_config.json`` and
        ``adapter_model.safetensors`` in PEFT's format, float32. A sum becomes one LoRA with the
        members' ranks side by side. Raises :class:`RoutingError` for one that is not made of LoRA
        factors, :class:`AttachError` where the folder cannot be written."""
        from ..compose.recipe import combination, save_combination
        from .compositions import members_of

        with self.changing():
            recipe, weights = self._recipe(name), self._compositions[name]
            with members_of(self, weights) as members:
                combined = combination(self.live, recipe, weights, members)
        save_combination(self.live, save_directory, name, combined)

    def delete_composition(self, name: str) -> None:
        """Forget a composition; its members stay. A default made of a sum stays as well; where it
        became an adapter, that is deleted."""
        with self.changing():
            recipe = self._recipe(name)
            if recipe.combine != "sum":
                self.delete_adapter(name)
                return
            with self._attachments.lock:
                self._unname([name])

    def _recipe(self, name: str) -> Composition:
        if name not in self._recipes:
            raise unknown_adapter(name, "no composition has this name")
        return self._recipes[name]

    def name_composition(
        self, name: str, recipe: Composition, weights: Mapping[str, Weight]
    ) -> None:
        """Make a composition known (of another method than ``sum``, its adapter is there), and let
        a default that names it follow; nothing if the rules forbid."""
        with self._attachments.lock:
            known = {**self._compositions, name: types.MappingProxyType(dict(weights))}
            default = self._default
            if recipe.combine == "sum" and name in names_in(self._selected):
                default = route(self._selected, self._adapters, known, self._rules, self._merge)
            recipes = {**self._recipes, name: recipe.model_copy(update={"of": known[name]})}
            self.__dict__.update(
                _compositions=known, _recipes=recipes, _default=default, _routings={}
            )
