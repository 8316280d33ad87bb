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
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from ..manifests.codes import loader as codes
from ..manifests.errors import RoutingError
from ..manifests.findings import Finding, Where
from ..manifests.names import NAME_RULE, is_name
from ..manifests.schema import Composition
from ..manifests.weights import Weight, Written
from ..registry.facts import Layout
from .adapter import Adapter, AdapterInfo, Built
from .attachments import Attachments
from .base_view import view_of
from .checkpointing import carry, checkpointable, stop_carrying
from .compiled import CompiledBase
from .kv_cache import check_cache, mark_cache
from .layout import layout_of_model
from .mergeable import Mergeable
from .modules import ModuleMap, check_attachable
from .prompts import prompt_of
from .residency import Residency, bytes_of
from .routing import BASE, CURRENT, Call, Routing, Using, chosen, run_with
from .rows import GatheredCache, Rows
from .selection import (
    Rules,
    Selection,
    check_composition,
    check_rules,
    key_of,
    mix_problems,
    names_in,
    route,
    snapshot,
    without,
)
from .stand_in import refusal

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..registry.fingerprint import Measured
    from ..registry.plan import Plan
    from ..registry.project import ManifestSource
    from .load import Deployment, InMemory
    from .watch import Watch


class AdapterWarning(UserWarning):
    """A warning of the loader; its text is a finding."""


class _Unsaid:
    def __repr__(self) -> str:
        return "the default"


_UNSAID = _Unsaid()
_KEPT_ROUTINGS = 256
_SAID = ("_compositions", "_recipes", "_default", "_selected", "_rules")


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
    _measured: tuple[Any, Measured] | None
    _residency: Residency
    _exchanging: bool

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
        state["_measured"] = None
        state["_residency"] = Residency(self._attachments, self._parameters, self._modules)
        state["_exchanging"] = False
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
            single = rows is not None and rows.check_batch(args, kwargs)
            call = Call(self._owner, routing.terms, inside, gradients, False, rows, single)
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
        single = call.rows is not None and call.rows.check_batch(args, kwargs)
        entered = dataclasses.replace(
            call, inside=True, gradients=torch.is_grad_enabled(), single=single
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
            self._held(lambda: routing)
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
        self._load_now(adapter)
        with self._attachments.lock:  # what it means now, unless the adapters change just now
            self.__dict__.update(_default=self.routing(adapter), _selected=adapter)

    def using(self, adapter: Selection) -> Using:
        """``with model.using("tone"):`` makes it the choice in this thread (and asyncio task)
        until the end of the block. Nests; does not touch the default."""
        self.routing(adapter)  # what cannot be chosen is refused here
        self._load_now(adapter)
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

    @property
    def default_weights(self) -> dict[str, Weight]:
        """The adapters of the default with their weights, whatever ``using`` or disabling says."""
        return dict(self._default.weights)

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
            self.name_composition(composition, recipe, new)

    def refresh_compositions(self, changed: Iterable[str]) -> list[str]:
        """Make again what was computed from adapters that have other values now, since they were
        trained; returns the names. A sum needs none of it, and replacing an adapter does it by
        itself."""
        from .attach import put_adapters
        from .composing import made_again

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
        from .composing import combination, save_combination

        with self.changing():
            recipe, weights = self._recipe(name), self._compositions[name]
            with self.present(self._adapters[member] for member in weights):
                members = {member: self.built_of(member) for member in weights}
                combined = combination(self, recipe, weights, members)
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

    def name_composition(
        self, name: str, recipe: Composition, weights: Mapping[str, Weight]
    ) -> None:
        """Make a composition known (of another method than ``sum``, its adapter is there), and let
        a default that names it follow; nothing if the rules forbid."""
        with self._attachments.lock:
            known = {**self._compositions, name: types.MappingProxyType(dict(weights))}
            if recipe.combine == "sum" and name in names_in(self._selected):
                default = route(self._selected, self._adapters, known, self._rules, self._merge)
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
        with self.changing(), self._attachments.lock:
            check_rules(rules, (*self._merged_terms, *self._default.terms))
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
        return self._held(lambda: self._allowed(adapter, names, copies))

    def _allowed(
        self, adapter: Selection | _Unsaid, names: Sequence[str | None] | None, copies: int
    ) -> Routing:
        """What is active; raises where that is the base alone, and something is merged."""
        routing = self._active(adapter, names, copies)
        chose_base = adapter is _UNSAID and routing is not self._default and not self._disabled
        if chose_base and not routing.terms:
            self.check_unmerged("the base alone cannot answer")
        return routing

    def _held(self, resolve: Callable[[], Routing]) -> Routing:
        """What ``resolve`` says, its adapters loaded and held until they are let go."""
        while True:
            with self._attachments.lock:
                routing = resolve()
                call = CURRENT.get()
                nested = call is not None and call.owner is self._owner
                while not self._residency.claim(routing.terms, nested=nested):
                    routing = resolve()
            if not self._residency.bring(self, routing.terms):
                return routing
            with self._attachments.lock:
                self._gathered.clear()
                self._routings.clear()  # what is loaded may bring other modules whole
                try:
                    again = resolve()
                except BaseException:
                    self._attachments.let_go(routing.terms)
                    raise
                if again.terms == routing.terms:
                    return again
                self._attachments.let_go(routing.terms)

    def holding(self, adapter: Selection) -> AbstractContextManager[None]:
        """``with model.holding("tone"):`` keeps the weights of what is selected on the model's
        device during the block, loaded if they were away. Calls do so by themselves."""
        return self._holding(lambda: self.routing(adapter))

    def present(self, adapters: Iterable[Adapter]) -> AbstractContextManager[None]:
        """The same of adapters that are not to be active together, and whatever the rules say."""
        routing = Routing(tuple((adapter, 1.0) for adapter in adapters))
        return self._holding(lambda: routing)

    @contextmanager
    def _holding(self, resolve: Callable[[], Routing]) -> Generator[None, None, None]:
        routing = self._held(resolve)
        try:
            yield
        finally:
            self._attachments.let_go(routing.terms)

    def _load_now(self, selection: Selection) -> None:
        """Load what is away of a selection that is chosen for calls to come."""
        terms = self.routing(selection).terms
        if not self._exchanging and not all(adapter.loaded for adapter, _ in terms):
            with self.holding(selection):
                pass

    @property
    def residency(self) -> int | None:
        """Bytes that adapters' weights may take on the model's device; ``None`` for any number.

        The least recently used make room: from a GPU they go to the CPU, on the CPU they are
        dropped and read again from their verified files. Never sent away are adapters that a call
        runs on, trainable ones, and those that code made or changed.
        """
        return self._residency.budget

    @residency.setter
    def residency(self, budget: int | None) -> None:
        with self.changing(), self._attachments.lock:
            if budget is not None and self._compiled is not None:
                raise RoutingError(codes.NOT_COMPILED_FOR.finding("a residency budget"))
            old, self._residency.budget = self._residency.budget, budget
            try:
                self._residency.check(self._adapters.values())
            except BaseException:
                self._residency.budget = old
                raise
            self._residency.arrived(self._adapters.values())
            self._gathered.clear()

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

    @property
    def measured(self) -> Measured:
        """The base's fingerprint as it is now; measured again only if its weights were changed."""
        stamp = tuple(map(_stamp, self._base.parameters()))
        if self._measured is None or self._measured[0] != stamp:
            from .fingerprint import fingerprint_of_model

            self.__dict__["_measured"] = (stamp, fingerprint_of_model(self._base))
        return cast("tuple[Any, Measured]", self._measured)[1]

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

    def add_adapter(
        self, adapter_name: str, peft_config: Any, *, dtype: str | torch.dtype | None = None
    ) -> None:
        """Begin a new adapter of any method that trains, with PEFT's initialisation, on the modules
        that the config selects.

        ``peft_config`` is PEFT's config object or a mapping with its fields (``peft_type`` among
        them); where it names no modules, PEFT's for the base's ``model_type`` are meant. First
        values are drawn from torch's own generator, as PEFT draws them. Its parameters have
        gradients, in float32 unless ``dtype`` says otherwise; the base has none until the adapter
        is deleted. It does not become active. Raises :class:`FitError` for a config that is wrong,
        :class:`AttachError` for one that cannot be begun; the model is then as it was.
        """
        from .fresh import add_adapter

        with self.changing():
            add_adapter(self, adapter_name, peft_config, dtype)

    def save_adapter(self, save_directory: str | os.PathLike[str], adapter_name: str) -> None:
        """Write an adapter as PEFT does: ``adapter_config.json``, and ``adapter_model.safetensors``
        with PEFT's names, in the dtype that it is in, and the base's fingerprint in its metadata.

        The folder is a ``source``, and PEFT loads it. Each file is written elsewhere and renamed.
        Raises :class:`RoutingError` for an unknown name, :class:`AttachError` where it cannot be
        written.
        """
        from .save import save_adapter

        with self.changing():
            if adapter_name not in self._adapters:
                attached = ", ".join(self._adapters) or "none"
                raise _unknown(adapter_name, f"attached are: {attached}")
            self.check_unmerged(f"{adapter_name!r} cannot be saved with its base's fingerprint")
            save_adapter(self, save_directory, adapter_name)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Write every adapter as :meth:`save_adapter` does, and ``adapterdock.yaml``: a manifest
        of adapters, compositions, rules, what is active, and the base by its source and
        fingerprint. ``adapterdock.load(save_directory)`` brings the model back.

        The one adapter that is trained lies in the folder itself, the others in folders of their
        names. While something is trained, ``model.safetensors`` has that once more by its live
        names: ``Trainer`` saves its checkpoints through here, and resumes from it. What cannot
        be written (a base made in memory has no source) is warned of. While adapters are merged,
        it writes the base with them in its weights, as a plain model. Raises as
        :meth:`save_adapter`.
        """
        from .save_model import save_pretrained

        if is_main_process:
            with self.changing():
                save_pretrained(self, save_directory, state_dict)

    def plan(
        self,
        manifest: ManifestSource,
        *,
        policy: str | os.PathLike[str] | None = None,
        accept: Iterable[str] = (),
        frozen: bool = False,
        offline: bool = False,
        sources: Mapping[str, InMemory] | None = None,
    ) -> Plan:
        """What :meth:`apply` would change for this model to be as if it had been loaded from
        ``manifest``; nothing is changed. ``print(plan)`` shows it, and it is false where that is
        nothing.

        Adapters are the same where their digest, dtype and ``trainable`` are; those that the
        manifest does not name are removed, however they came here. Options are those of
        :func:`adapterdock.attach`. Raises :class:`FingerprintError` for a manifest of another
        base, and whatever reading and locking it raises.
        """
        from .change import plan_change

        return plan_change(
            self,
            manifest,
            policy=policy,
            accept=accept,
            frozen=frozen,
            offline=offline,
            sources=sources,
        )

    def apply(self, fn: Plan | Callable[[nn.Module], Any]) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Change the adapters as a plan says, all at once or not at all. (A function is what
        ``nn.Module.apply`` takes, and is applied to every module.)

        Everything new is fetched, verified, checked and built first, while calls go on; then each
        call sees wholly the old set or wholly the new one, and those that are running end with
        the old. What does not change is not touched. Raises :class:`AttachError` for a plan that
        is no longer about this model as it is, and the errors of loading; the model then answers
        as before.
        """
        from ..registry.plan import Plan
        from .change import apply_plan

        if not isinstance(fn, Plan):
            return super().apply(fn)
        apply_plan(self, fn)
        return self

    def watch(self, path: str | os.PathLike[str], **options: Any) -> Watch:
        """Follow the manifest at ``path`` from now on; see :func:`adapterdock.watch`."""
        from .watch import watch

        return watch(self, path, **options)

    def overrides(self) -> dict[str, str | None]:
        """What stood in place of the manifest's own ``model`` and ``dtype`` at load."""
        said = self._deployment.file.overrides if self._deployment else {}
        return {"model": said.get("model"), "dtype": said.get("dtype")}

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
                    check_rules(self._rules, (*self._merged_terms, *rest))
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
        found = super()._apply(*args, **kwargs)
        with self._attachments.lock:
            for adapter in self._adapters.values():
                if adapter.loaded:
                    adapter.nbytes = bytes_of(adapter)
            self._residency.arrived(self._adapters.values())
        return found

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """See :meth:`StandIn.load_state_dict`."""
        self._forget_copies()
        changed = tuple(state_dict)
        for adapter in self._adapters.values():
            if any(key.startswith((*adapter.parameters, *adapter.twins)) for key in changed):
                adapter.reload = None  # what its files hold is no longer what it is
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
        if not isinstance(name, str) or not is_name(name):
            return codes.NAME_INVALID.finding(
                f"{name!r} is no name", where, found=name, expected=NAME_RULE
            )
        if name in self._adapters or name in self._compositions:
            return codes.NAME_TAKEN.finding(f"{name!r} is taken", where, found=name)
        return None

    def add(self, built: Built) -> None:
        """Put a finished adapter in place, under a name that none has; taken back whole if anything
        goes wrong."""
        modules, adapter = self._map.by_name, built.adapter
        self._attachments.check_current(modules)
        with self._attachments.lock:
            try:
                self._residency.check([adapter])
                self._put(built, modules)
                if self._rules is None:  # nothing to ask: the first switch is a look-up too
                    self._routings[adapter.name] = Routing(((adapter, 1.0),))
            except BaseException:
                self._forget(adapter)
                raise
            self._residency.arrived([adapter])

    def _put(self, built: Built, modules: Mapping[str, nn.Module]) -> None:
        adapter = built.adapter
        if adapter.loaded:
            self._attachments.put(adapter, built.outputs, built.twins, built.weights, modules)
        self._parameters.update(adapter.parameters)
        self._modules.update(adapter.twins)
        self._adapters[adapter.name] = adapter

    def exchange(
        self,
        arriving: Sequence[Built],
        leaving: Collection[str] = (),
        define: Callable[[], int | None] | None = None,
    ) -> None:
        """Put adapters in place, take out those ``leaving`` and those of the same names, and let
        ``define`` say anew what compositions, rules and default there are, and return the residency
        budget; without it they stay, and mean the new adapters.

        Calls that begin on any thread see all of it or nothing; those that are running end with
        the old ones. If anything raises, all is as it was.
        """
        modules = self._map.by_name
        self._attachments.check_current(modules)
        with self.changing(), self._attachments.lock:
            self.check_unmerged("the adapters cannot change")
            before = (dict(self._adapters), dict(self._parameters), dict(self._modules))
            said = {key: self.__dict__[key] for key in _SAID}
            budget = self._residency.budget
            names = {*leaving, *(built.adapter.name for built in arriving)}
            gone = [adapter for name, adapter in before[0].items() if name in names]
            try:
                self.__dict__["_exchanging"] = True
                self._routings.clear()
                for adapter in gone:
                    del self._adapters[adapter.name]
                for built in arriving:
                    self._put(built, modules)
                if define is None:
                    self._follow(self._adapters)
                else:
                    self.__dict__.update(
                        _compositions={}, _recipes={}, _default=BASE, _selected=None, _rules=None
                    )
                    self._residency.budget = define()
                self._residency.check(self._adapters.values())
            except BaseException:
                now = (self._adapters, self._parameters, self._modules)
                for known, old in zip(now, before, strict=True):
                    known.clear()
                    known.update(cast("dict[str, Any]", old))
                self.__dict__.update(said)
                self._residency.budget = budget
                for built in arriving:
                    self._forget(built.adapter)
                raise
            finally:
                self.__dict__["_exchanging"] = False
            for adapter in gone:
                adapter.reported = True
                self._forget(adapter)
            self._residency.arrived(self._adapters.values())

    def _follow(self, adapters: Mapping[str, Adapter]) -> None:
        """Let the default mean the adapters that now have its names; raises where it cannot."""
        terms = tuple((adapters[adapter.name], weight) for adapter, weight in self._default.terms)
        if problems := mix_problems(terms):
            raise RoutingError(*problems)
        check_rules(self._rules, terms)  # the ranks may be others
        self.__dict__["_default"] = Routing(terms) if terms else BASE

    def built_of(self, name: str) -> Built:
        """An attached adapter as it was put here."""
        adapter, attached = self._adapters[name], self._attachments
        return Built(adapter, attached.factors_of(adapter), attached.twins_of(adapter), {})

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

    def passes_for(self: AdaptedModel) -> type[Any]:
        return base

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
            # isinstance is asked of this too: Trainer saves through save_pretrained then
            "__class__": property(passes_for),
        },
    )
    return cast("type[AdaptedModel]", made)


def _stamp(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What changes when a parameter is given other values, in place or as another tensor."""
    place = tensor.data_ptr() if type(tensor.data) is torch.Tensor else 0  # quantised: no pointer
    return id(tensor), place, 0 if tensor.is_inference() else tensor._version, tensor.dtype


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
