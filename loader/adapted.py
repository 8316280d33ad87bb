"""The wrapper: a base model, untouched, and the adapters that act on it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from ..manifests.codes import loader as codes
from ..manifests.errors import PolicyError, RoutingError
from ..manifests.findings import Finding, Where
from ..manifests.names import BASE_ROW
from ..manifests.schema import Composition
from ..manifests.weights import Weight, Written
from ..registry.facts import Layout
from .adapter import Adapter, AdapterInfo
from .attachments import Attachments
from .base_view import view_of
from .checkpointing import carry, checkpointable, stop_carrying
from .compiled import CompiledBase
from .kv_cache import check_cache, mark_cache
from .layout import layout_of_model
from .mergeable import Mergeable
from .modules import ModuleMap, check_attachable
from .prompts import prompt_of
from .routing import BASE, CURRENT, Call, Routing, Using, chosen, run_with
from .rows import GatheredCache, Rows
from .selection import (
    Rules,
    Selection,
    check_composition,
    key_of,
    mix_problems,
    names_in,
    route,
    snapshot,
    taking_part,
    without,
)
from .sites import Factors
from .stand_in import refusal
from .weight_sites import WeightFactors

if TYPE_CHECKING:
    from .load import Deployment


class AdapterWarning(UserWarning):
    """A warning of the loader; its text is a finding."""


class _Unsaid:
    def __repr__(self) -> str:
        return "the default"


_UNSAID = _Unsaid()
_KEPT_ROUTINGS = 256


class AdaptedModel(Mergeable):
    """A base model with adapters, used like the base itself.

    ``AdaptedModel(base)`` alone changes nothing in the base. It is of a subclass made for the
    base's class, with that class's name and forward signature, so that pipelines and trainers see
    what they expect. Attributes and methods that it lacks are the base's; the methods run with
    the active adapters. The base's submodules, reached through it, are the base's own.

    Which adapters answer: those named in the call (``adapter=``), else those of the ``using``
    around it, else the default of :meth:`set_adapter`, else none. Resolved once per ``forward``
    or ``generate``. A thread does not inherit the ``using`` around its start: name the adapter.

    ``state_dict`` holds the adapters under PEFT's live names and nothing of the base.
    ``.to(dtype)`` converts base and adapters alike, declared dtypes included. Copying and
    pickling are refused: copy ``base_model``.
    """

    _owner: object
    _changing: threading.RLock
    _attachments: Attachments
    _compositions: dict[str, Mapping[str, Weight]]
    _recipes: dict[str, Composition]
    _selected: Selection
    _routings: dict[Any, Routing]
    _default: Routing
    _rules: Rules | None
    _disabled: bool
    _detached: bool
    _map: ModuleMap
    _view: nn.Module | None
    _checkpointable: tuple[nn.Module, ...] | None
    _gathered: GatheredCache
    _compiled: CompiledBase | None

    def __new__(cls, base: nn.Module) -> AdaptedModel:
        if isinstance(base, AdaptedModel):
            raise refusal(codes.MODEL_WRAPPED, "this is an AdaptedModel already")
        check_attachable(base)
        kind = _class_for(type(base)) if cls is AdaptedModel else cls
        return object.__new__(kind)

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        state = self.__dict__
        state["_base"] = base
        state["_owner"] = object()
        state["_changing"] = threading.RLock()
        state["_attachments"] = Attachments(base, self._owner)
        state["_compositions"] = dict[str, Mapping[str, Weight]]()
        state["_recipes"] = dict[str, Composition]()
        state["_selected"] = None
        state["_routings"] = dict[Any, Routing]()
        state["_default"] = BASE
        state["_rules"] = None
        state["_disabled"] = False
        state["_detached"] = False
        state["_layout"] = None
        state["_deployment"] = None
        state["_map"] = ModuleMap(base)
        state["_view"] = None
        state["_checkpointable"] = None
        state["_gathered"] = GatheredCache()
        state["_compiled"] = None
        self._start_unmerged()
        self._modules["base_model"] = base
        weakref.finalize(self, self._attachments.abandon).atexit = False
        self.training = base.training

    # -- running ---------------------------------------------------------------------------

    def forward(
        self,
        *args: Any,
        adapter: Selection | _Unsaid = _UNSAID,
        adapter_names: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The base's forward with the active adapters, with those that ``adapter`` names, or with
        those that ``adapter_names`` names for each row of the batch (an adapter, a composition,
        ``"__base__"``)."""
        routing = self._take(adapter, adapter_names)
        if not routing.terms:
            return self._enter(routing, self._base, args, kwargs, inside=True)
        gradients = torch.is_grad_enabled()
        if gradients and self._base.training:
            carry(self._checkpointed())
        out = self._enter(routing, self._base, args, kwargs, inside=True, gradients=gradients)
        self._note_use(routing)
        return out

    def generate(
        self,
        *args: Any,
        adapter: Selection | _Unsaid = _UNSAID,
        adapter_names: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The base's ``generate``, all of it with the adapters that were active at its start, with
        those that ``adapter`` names, or with those that ``adapter_names`` names for each prompt
        (shared by its beams and returned sequences)."""
        generate = getattr(self._seen(), "generate", None)
        if generate is None:
            name = type(self._base).__name__
            raise RoutingError(codes.CANNOT_GENERATE.finding(f"a {name} cannot generate"))
        routing = self._take(adapter, adapter_names, _copies_of_a_row(self._base, kwargs))
        if (prompt := prompt_of(routing.terms)) is not None:
            generate = _with_prompt(prompt.generate, self._base, generate)
        out = self._enter(routing, generate, args, kwargs, inside=False)
        self._note_use(routing)
        return out

    def _enter(
        self,
        routing: Routing,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        inside: bool,
        gradients: bool = False,
    ) -> Any:
        """Run ``function`` with a routing that was taken, and give it back."""
        try:
            self._check_alive()
            rows = routing.rows
            if inside and function is self._base and self._compiled is not None:
                return self._compiled_call(routing, args, kwargs)
            repeat = rows.enter(self._owner, self._base, args, kwargs) if rows is not None else 1
            call = Call(self._owner, routing.terms, inside, gradients, False, rows, repeat)
            if inside and (prompt := prompt_of(routing.terms)) is not None:
                function = _with_prompt(prompt.call, self._base, False)
            return run_with(call, function, args, kwargs)
        finally:
            self._attachments.let_go(routing.terms)

    def _enter_base(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The base's forward on behalf of a method of the base that is running through us."""
        call = CURRENT.get()
        if call is None or call.owner is not self._owner:
            return self.forward(*args, **kwargs)
        if self._compiled is not None:
            return self._compiled_call(Routing(call.terms, call.rows), args, kwargs)
        rows = call.rows
        repeat = rows.enter(self._owner, self._base, args, kwargs) if rows is not None else 1
        entered = dataclasses.replace(
            call, inside=True, gradients=torch.is_grad_enabled(), repeat=repeat
        )
        base: Callable[..., Any] = self._base
        if (prompt := prompt_of(call.terms)) is not None:
            base = _with_prompt(prompt.call, self._base, True)
        return run_with(entered, base, args, kwargs)

    def compile(self, *, max_rank: int | None = None, **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Compile the base for calls through this wrapper (``options`` are ``torch.compile``'s).

        Adapters, compositions and weights then change without compiling again, as long as their
        ranks add up to at most ``max_rank`` (the largest attached, if not given) and they act on
        modules that are adapted now. Calls run one at a time. Raises :class:`RoutingError` for
        adapters that are more than low-rank factors at linear modules.
        """
        with self.changing(), self._attachments.lock:
            largest = max((a.rank for a in self._adapters.values()), default=0)
            sites = self._attachments.outputs
            if not sites:
                raise RoutingError(codes.NOT_COMPILED_FOR.finding("no adapter is attached yet"))
            self.__dict__["_compiled"] = CompiledBase(
                self._attachments.natural_forward,
                sites,
                [*self._attachments.wholes, *self._attachments.weights],
                max_rank or largest,
                options,
            )

    def _compiled_call(
        self, routing: Routing, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        compiled = self._compiled
        assert compiled is not None
        if routing.rows is not None:
            raise RoutingError(
                codes.NOT_COMPILED_FOR.finding("the rows of a batch cannot have adapters each")
            )
        call = Call(self._owner, routing.terms)
        check_cache(call, kwargs)
        out = compiled(routing.terms, self._attachments.outputs, args, kwargs)
        mark_cache(call, out)
        for adapter, _ in routing.terms:
            adapter.unfired.clear()  # the graph holds every site
        return out

    def _run_on_base(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        gradients = torch.is_grad_enabled()
        method = getattr(self._seen(), name)
        routing = self._take(_UNSAID)
        out = self._enter(routing, method, args, kwargs, inside=False, gradients=gradients)
        return self._stepwise(routing, out) if inspect.isgenerator(out) else out

    def _stepwise(self, routing: Routing, steps: Generator[Any, Any, Any]) -> Iterator[Any]:
        """A generator of the base's: its body runs later, each step with the same routing."""
        end = object()
        gradients = torch.is_grad_enabled()
        while True:
            self._attachments.hold(routing.terms)
            step = self._enter(routing, next, (steps, end), {}, inside=False, gradients=gradients)
            if step is end:
                return
            yield step

    def _seen(self) -> nn.Module:
        if self._view is None:
            self.__dict__["_view"] = view_of(self._base, self._enter_base)
        return cast(nn.Module, self._view)

    def _checkpointed(self) -> tuple[nn.Module, ...]:
        if self._checkpointable is None:
            self.__dict__["_checkpointable"] = checkpointable(self._base)
        return cast("tuple[nn.Module, ...]", self._checkpointable)

    # -- choosing --------------------------------------------------------------------------

    def set_adapter(self, adapter: Selection) -> None:
        """Make this the default: an adapter, a composition, a list (each at weight 1), a mapping
        of weights, or ``None`` for the base alone."""
        self.__dict__.update(_default=self.routing(adapter), _selected=adapter)

    def using(self, adapter: Selection) -> Using:
        """``with model.using("tone"):`` makes it the choice in this thread (and asyncio task)
        until the end of the block. Nests; does not touch the default."""
        self.routing(adapter)  # what cannot be chosen is refused here
        return Using(self._owner, snapshot(adapter))

    def disable_adapter(self) -> Using:
        """PEFT's context manager: the base alone in this thread until the end of the block."""
        return self.using(None)

    def disable_adapters(self) -> None:
        """Turn all adapters off, for every thread, until :meth:`enable_adapters`. A call that
        names an adapter all the same raises."""
        self.check_unmerged("the base alone cannot answer")
        self.__dict__["_disabled"] = True

    def enable_adapters(self) -> None:
        """Undo :meth:`disable_adapters`; what was the default is the default again."""
        self.__dict__["_disabled"] = False

    def active_adapters(self) -> list[str]:
        """The adapters that would answer a call made here and now, in order."""
        return list(self.active_weights())

    def active_weights(self) -> dict[str, Weight]:
        """The same with their weights: numbers, or weights by module."""
        if self._disabled:
            return {}
        return dict((self._chosen() or self._default).weights)

    def routing(self, selection: Selection) -> Routing:
        """What ``selection`` means on this model; kept, so that a switch is a look-up."""
        if selection is None and self._merge is None:
            return BASE
        key = key_of(selection)
        known = self._routings.get(key) if key is not None else None
        if known is not None:
            return known
        with self._attachments.lock:
            self._check_alive()
            found = route(selection, self._adapters, self._compositions, self._rules, self._merge)
            if len(self._routings) >= _KEPT_ROUTINGS:  # weights moved by a slider, say
                self._routings.clear()
            if key is not None:
                self._routings[key] = found
            return found

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
        from .composing import compose, recipe_of

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
                weights: Mapping[str, Weight] = check_composition(name, of, self._adapters, where)
            else:
                weights = compose(self, name, recipe, of, where=where)
            self._set_composition(name, recipe, weights)

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
        from .composing import weights_of

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
        from .composing import compose

        with self.changing():
            recipe = self._recipe(composition)
            old = self._compositions[composition]
            if unknown := [name for name in weights if name not in old]:
                raise _unknown(unknown[0], f"{composition!r} is made of {', '.join(old)}")
            of: dict[str, Written] = {**old, **weights}
            if recipe.combine == "sum":
                new: Mapping[str, Weight] = check_composition(composition, of, self._adapters)
            else:
                new = compose(self, composition, recipe, of, replace=True)
            self._set_composition(composition, recipe, new)

    def refresh_compositions(self, changed: Iterable[str]) -> list[str]:
        """Make again what was computed from adapters that have other values now (they were
        trained, or replaced); returns the names. A sum needs none of it."""
        from .composing import compose, dependents

        with self.changing():
            names = dependents(self._recipes, set(changed))
            for name in names:
                of = self._compositions[name]
                compose(self, name, self._recipes[name], of, replace=True)
            return names

    def save_composition(self, save_directory: str | os.PathLike[str], name: str) -> None:
        """Write a composition as an adapter of its own: ``adapter_config.json`` and
        ``adapter_model.safetensors`` in PEFT's format, float32. A sum becomes one LoRA with the
        members' ranks side by side. Raises :class:`RoutingError` for one that is not made of LoRA
        factors, :class:`AttachError` where the folder cannot be written."""
        from .composing import combination, save_combination

        with self.changing():
            recipe = self._recipe(name)
            combined = combination(self, recipe, self._compositions[name])
        save_combination(self, save_directory, name, combined)

    def delete_composition(self, name: str) -> None:
        """Forget a composition; its members stay. A default made of a sum stays as well; where it
        became an adapter, that is deleted."""
        with self.changing():
            recipe = self._recipe(name)
            if recipe.combine != "sum":
                self.delete_adapter(name)
                return
            with self._attachments.lock:
                del self._compositions[name], self._recipes[name]
                self._routings.clear()

    def _recipe(self, name: str) -> Composition:
        if name not in self._recipes:
            raise _unknown(name, "no composition has this name")
        return self._recipes[name]

    def _set_composition(
        self, name: str, recipe: Composition, weights: Mapping[str, Weight]
    ) -> None:
        """Make it known, and let a default that names it follow; nothing if the rules forbid."""
        with self._attachments.lock:
            known = {**self._compositions, name: types.MappingProxyType(dict(weights))}
            if recipe.combine == "sum" and name in names_in(self._selected):
                default = route(self._selected, self._adapters, known, self._rules)
                self.__dict__["_default"] = default
            self._compositions[name] = known[name]
            self._recipes[name] = recipe.model_copy(update={"of": known[name]})
            self._routings.clear()

    @property
    def compositions(self) -> Mapping[str, Mapping[str, Weight]]:
        """The members of each composition with their weights."""
        return types.MappingProxyType(self._compositions)

    @property
    def recipes(self) -> Mapping[str, Composition]:
        """How each composition combines its members."""
        return types.MappingProxyType(self._recipes)

    @property
    def rules(self) -> Rules | None:
        """Asked of every set of weighted adapters before it is active, by whatever road."""
        return self._rules

    @rules.setter
    def rules(self, rules: Rules | None) -> None:
        with self._attachments.lock:
            _check_rules(rules, (*self._merged_terms, *self._default.terms))
            self.__dict__["_rules"] = rules
            self._routings.clear()

    def _take(
        self,
        adapter: Selection | _Unsaid,
        names: Sequence[str | None] | None = None,
        copies: int = 1,
    ) -> Routing:
        """The routing of a call that begins now. Its adapters stay until :meth:`_enter` ends, even
        if they are replaced or deleted meanwhile."""
        with self._attachments.lock:
            routing = self._active(adapter, names, copies)
            chose_base = adapter is _UNSAID and routing is not self._default and not self._disabled
            if chose_base and not routing.terms:
                self.check_unmerged("the base alone cannot answer")
            self._attachments.hold(routing.terms)
            return routing

    def _chosen(self) -> Routing | None:
        choice = chosen(self._owner, _UNSAID)
        return None if choice is _UNSAID else self.routing(cast(Selection, choice))

    def _active(
        self,
        adapter: Selection | _Unsaid,
        names: Sequence[str | None] | None = None,
        copies: int = 1,
    ) -> Routing:
        if names is not None:
            routing = self._by_rows(adapter, names, copies)
        elif adapter is _UNSAID:
            routing = self._chosen()
            if routing is None:
                return BASE if self._disabled else self._default
        else:
            routing = self.routing(cast(Selection, adapter))
        if self._disabled and routing.terms:
            names = ", ".join(routing.weights)
            raise RoutingError(
                codes.ADAPTERS_DISABLED.finding(f"{names}: all adapters are disabled")
            )
        return routing

    def _by_rows(
        self, adapter: Selection | _Unsaid, names: Sequence[str | None], copies: int
    ) -> Routing:
        """The routing of a batch with a name for each row; each row may stand ``copies`` times."""
        if adapter is not _UNSAID or isinstance(names, str) or not len(names):
            raise RoutingError(
                codes.SELECTION_INVALID.finding("adapter_names wants a list, and no adapter beside")
            )
        routings = tuple(self.routing(name) for name in names)
        first = routings[0]
        if all(routing is first for routing in routings):
            return first
        repeats = (1,) if copies == 1 else (1, copies)
        rows = Rows(routings, repeats, self._gathered, self._map.foreign)
        adapters = dict.fromkeys(a for routing in routings for a, _ in routing.terms)
        return Routing(tuple((one, 1.0) for one in adapters), rows)

    @property
    def _adapters(self) -> dict[str, Adapter]:
        return self._attachments.adapters

    # -- adapters --------------------------------------------------------------------------

    @property
    def adapters(self) -> Mapping[str, AdapterInfo]:
        """The attached adapters by name: methods, rank, modules, size, dtype, device."""
        return types.MappingProxyType({n: a.info() for n, a in self._adapters.items()})

    @property
    def attached(self) -> Mapping[str, Adapter]:
        """The adapters themselves, by name."""
        return types.MappingProxyType(self._adapters)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Warnings of setting the model up, and what use has shown: modules that never ran."""
        shown = tuple(
            finding
            for adapter in list(self._adapters.values())
            if adapter.used and (finding := _never_fired(adapter))
        )
        return (*(self._deployment.findings if self._deployment else ()), *shown)

    @property
    def deployment(self) -> Deployment | None:
        """The manifest that the model was set up from, and what was pulled for it."""
        return self._deployment

    @deployment.setter
    def deployment(self, deployment: Deployment) -> None:
        self.__dict__["_deployment"] = deployment

    @property
    def layout(self) -> Layout:
        """The base's modules as the checks see them; made once."""
        if self._layout is None:
            self.__dict__["_layout"] = layout_of_model(self._base)
        return cast(Layout, self._layout)

    def load_adapter(
        self,
        source: str | os.PathLike[str] | None,
        adapter_name: str,
        *,
        adapter_state_dict: Any = None,
        peft_config: Any = None,
        sha256: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        dtype: str | torch.dtype | None = None,
        trainable: bool = False,
        accept: Iterable[str] = (),
        offline: bool = False,
        hotswap: bool | str = False,
    ) -> None:
        """Attach one more adapter, from any source, with the checks of a manifest's adapters.

        ``source`` is text as in a manifest, or a path; a relative one counts from the current
        folder. Or hand it over in memory: ``peft_config`` (PEFT's object, or its fields) and
        ``adapter_state_dict`` (PEFT's names on disk to tensors). ``sha256`` is the digest of its
        folder, ``dtype`` what its factors are kept in (else the dtype of the module they sit on).
        It does not become active. ``hotswap`` puts it in the place of the one with its name (with
        ``"auto"`` where there is one), whatever rank, alpha and targets that has: calls that are
        running end with the old one, and what meant the old one means the new. The policies,
        mirrors, rules and aliases of the model's manifest bind. Raises the errors of
        :mod:`adapterdock.manifests.errors`; the model is then as it was.
        """
        from .one import load_adapter

        load_adapter(
            self,
            source,
            adapter_name,
            adapter_state_dict=adapter_state_dict,
            peft_config=peft_config,
            sha256=sha256,
            storage_options=storage_options,
            dtype=dtype,
            trainable=trainable,
            accept=accept,
            offline=offline,
            hotswap=hotswap,
        )

    def delete_adapter(self, adapter_names: str | list[str]) -> None:
        """Remove adapters. A call that runs on one of them finishes with it.

        If one was part of the default, the others of the default stay active; if none is left the
        base answers alone, and a warning says so. One that a composition needs is refused.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        with self.changing():
            self._check_deletable(names)
            self.check_unmerged("it cannot be deleted", names)
            with self._attachments.lock:
                gone = [self._adapters[name] for name in dict.fromkeys(names)]
                rest = tuple(t for t in self._default.terms if t[0] not in gone)
                self.__dict__["_selected"] = without(self._selected, names)
                emptied = bool(self._default.terms) and not rest
                if rest:
                    _check_rules(self._rules, (*self._merged_terms, *rest))
                if len(rest) != len(self._default.terms):
                    self._shrink_default(rest)
                for adapter in gone:
                    self._forget(adapter)
                    self._compositions.pop(adapter.name, None)
                    self._recipes.pop(adapter.name, None)
        if emptied and not self.merged_adapters:
            _warn(codes.ACTIVE_DELETED.finding(f"{', '.join(names)} was the default"))

    def _check_deletable(self, names: list[str]) -> None:
        problems: list[Finding] = []
        for name in names:
            if name not in self._adapters:
                raise _unknown(name, f"attached are: {', '.join(self._adapters) or 'none'}")
            for composition, weights in self._compositions.items():
                if name in weights:
                    problems.append(
                        codes.ADAPTER_IN_USE.finding(f"{composition!r} is made of {name!r}")
                    )
        if problems:
            raise RoutingError(*problems)

    def get_base_model(self) -> nn.Module:
        """The base model itself."""
        return self._base

    def detach(self) -> nn.Module:
        """Take every adapter away and give the base back, as it was before the first one; what is
        merged is unmerged first."""
        with self.changing(), self._attachments.lock:
            if busy := self._attachments.busy():
                raise RoutingError(
                    codes.ADAPTER_IN_USE.finding(f"calls are running on {', '.join(busy)}")
                )
            self.unmerge_adapter()
            for adapter in list(self._adapters.values()):
                self._forget(adapter)
            self._compositions.clear()
            self._recipes.clear()
            stop_carrying(self._checkpointed())
            self.__dict__.update(_default=BASE, _detached=True)
            return self._base

    def _forget_copies(self) -> None:
        """What was copied out of the adapters' tensors, which are about to be others."""
        self._gathered.clear()
        if self._compiled is not None:
            self._compiled.forget()

    def _apply(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._forget_copies()
        return super()._apply(*args, **kwargs)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """See :meth:`StandIn.load_state_dict`."""
        self._forget_copies()
        return super().load_state_dict(state_dict, strict, assign)

    # -- what attaching needs --------------------------------------------------------------

    @contextmanager
    def changing(self) -> Generator[None, None, None]:
        """Only one change at a time; calls go on."""
        with self._changing:
            self._check_alive()
            yield

    @property
    def modules_of_base(self) -> ModuleMap:
        """The base's modules by name; walked once, and again only if the base was rebuilt."""
        if not self._map.current():
            self.__dict__["_map"] = ModuleMap(self._base)
        return self._map

    def name_problem(self, name: object, where: Where = Where()) -> Finding | None:  # noqa: B008
        """Why ``name`` cannot be given to another adapter or composition; ``None`` if it can."""
        if not isinstance(name, str) or not name or name == BASE_ROW:
            return codes.NAME_INVALID.finding(f"{name!r} cannot name an adapter", where)
        if name in self._adapters or name in self._compositions:
            return codes.NAME_TAKEN.finding(f"{name!r} is taken", where, found=name)
        return None

    def add(
        self,
        adapter: Adapter,
        outputs: Mapping[str, tuple[Factors, ...]],
        twins: Mapping[str, nn.Module],
        weights: Mapping[str, tuple[WeightFactors, ...]] = types.MappingProxyType({}),
    ) -> None:
        """Put a finished adapter in place, or in that of one with its name; taken back whole if
        anything goes wrong.

        Calls that are running on the one that is replaced end with it; the default, compositions
        and ``using`` blocks mean the new one from now on. Raises :class:`PolicyError` if the rules
        forbid the default with it.
        """
        modules = self._map.by_name
        self._attachments.check_current(modules)
        with self._attachments.lock:
            old = self._adapters.get(adapter.name)
            default = tuple((adapter if a is old else a, w) for a, w in self._default.terms)
            try:
                self._attachments.put(adapter, outputs, twins, weights, modules)
                self._parameters.update(adapter.parameters)
                self._modules.update(adapter.twins)
                self._adapters[adapter.name] = adapter
                if old is not None and default != self._default.terms:
                    if problems := mix_problems(default):
                        raise RoutingError(*problems)
                    _check_rules(self._rules, default)  # the rank may be another
                if self._rules is None:  # nothing to ask: the first switch is a look-up too
                    self._routings[adapter.name] = Routing(((adapter, 1.0),))
            except BaseException:
                self._forget(adapter)
                if old is not None:
                    self._parameters.update(old.parameters)
                    self._modules.update(old.twins)
                    self._adapters[old.name] = old
                raise
            if old is not None:
                old.reported = True
                self._forget(old)
                self.__dict__["_default"] = Routing(default) if default else BASE

    def factors_of(self, adapter: Adapter) -> Mapping[str, tuple[Factors, ...]]:
        """What an attached adapter adds, by module."""
        return self._attachments.factors_of(adapter)

    def twins_of(self, adapter: Adapter) -> Mapping[str, nn.Module]:
        """What an attached adapter puts in place of whole modules, by module."""
        return self._attachments.twins_of(adapter)

    def _forget(self, adapter: Adapter) -> None:
        """Take an adapter out of everything."""
        for name, parameter in adapter.parameters.items():
            if self._parameters.get(name) is parameter:
                del self._parameters[name]
        for name, twin in adapter.twins.items():
            if self._modules.get(name) is twin:
                del self._modules[name]
        self._gathered.clear()
        self._attachments.remove(adapter)
        self._routings.clear()

    def _note_use(self, routing: Routing) -> None:
        for adapter, _ in routing.terms:
            adapter.used = True
            if adapter.unfired and not adapter.reported:
                adapter.reported = True
                if finding := _never_fired(adapter):
                    _warn(finding)

    def _folder_of_base(self) -> Path | None:
        return self._deployment.base_folder if self._deployment else None

    def _check_alive(self) -> None:
        if self._detached:
            raise RoutingError(codes.MODEL_DETACHED.finding("this model was detached"))

    def __repr__(self) -> str:
        parts = [
            f"{n} ({'+'.join(a.methods) or 'whole'} r={a.rank})" for n, a in self._adapters.items()
        ]
        return (
            f"AdaptedModel({type(self._base).__name__}, adapters=[{', '.join(parts)}], "
            f"active={self.active_weights()}"
            + (f", merged={self.merged_adapters})" if self.merged_adapters else ")")
        )


@functools.cache
def _class_for(base: type[nn.Module]) -> type[AdaptedModel]:
    """The subclass for one class of base: its name, and its forward's signature."""

    def forward(self: AdaptedModel, *args: Any, **kwargs: Any) -> Any:
        return AdaptedModel.forward(self, *args, **kwargs)

    forward.__doc__ = base.forward.__doc__
    forward.__signature__ = inspect.signature(base.forward)  # type: ignore[attr-defined]
    made = type(
        base.__name__,
        (AdaptedModel,),
        {
            "__module__": __name__,
            "__qualname__": f"AdaptedModel[{base.__name__}]",
            "__doc__": AdaptedModel.__doc__,
            "forward": forward,
        },
    )
    return cast("type[AdaptedModel]", made)


def _check_rules(rules: Rules | None, terms: tuple[tuple[Adapter, Weight], ...]) -> None:
    broken = list(rules(taking_part(terms))) if rules and terms else []
    if broken:
        raise PolicyError(*broken)


def _never_fired(adapter: Adapter) -> Finding | None:
    names = sorted(adapter.unfired)
    if not names:
        return None
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return codes.SITE_NEVER_FIRED.finding(
        f"{adapter.name!r} has not acted on {shown}",
        found=f"{len(names)} of {len(adapter.modules)} modules never ran",
    )


def _warn(finding: Finding) -> None:
    warnings.warn(AdapterWarning(str(finding)), stacklevel=3)


def _with_prompt(act: Callable[..., Any], *given: Any) -> Callable[..., Any]:
    """``act`` in the place of the base's forward or ``generate``."""
    return lambda *args, **kwargs: act(*given, args, kwargs)


def _copies_of_a_row(base: nn.Module, kwargs: Mapping[str, Any]) -> int:
    """How often ``generate`` repeats each row: beams, or returned sequences."""
    config = kwargs.get("generation_config") or getattr(base, "generation_config", None)
    wanted = (
        kwargs.get(n) or getattr(config, n, None) for n in ("num_beams", "num_return_sequences")
    )
    return max((int(number) for number in wanted if number), default=1)


def _unknown(name: str, why: str) -> RoutingError:
    return RoutingError(codes.ADAPTER_UNKNOWN.finding(f"there is no {name!r} here: {why}"))
