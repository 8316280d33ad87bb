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
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from ..manifests.codes import loader as codes
from ..manifests.errors import PolicyError, RoutingError
from ..manifests.findings import Finding, Where
from ..manifests.names import BASE_ROW
from ..registry.facts import Layout
from .adapter import Adapter, AdapterInfo
from .attachments import Attachments
from .base_view import view_of
from .checkpointing import carry, checkpointable, stop_carrying
from .layout import layout_of_model
from .modules import ModuleMap, check_attachable
from .residency import Residency, bytes_of
from .routing import BASE, CURRENT, Call, Routing, Using, chosen, run_with
from .rows import GatheredCache, Rows
from .selection import Rules, Selection, check_composition, key_of, route, snapshot
from .sites import Factors
from .stand_in import StandIn, refusal

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..registry.plan import Plan
    from ..registry.project import ManifestSource
    from .attach import Built
    from .load import Deployment, InMemory
    from .watch import Watch


class AdapterWarning(UserWarning):
    """A warning of the loader; its text is a finding."""


class _Unsaid:
    def __repr__(self) -> str:
        return "the default"


_UNSAID = _Unsaid()
_KEPT_ROUTINGS = 256


class AdaptedModel(StandIn):
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
    _compositions: dict[str, Mapping[str, float]]
    _routings: dict[Any, Routing]
    _default: Routing
    _rules: Rules | None
    _disabled: bool
    _detached: bool
    _map: ModuleMap
    _view: nn.Module | None
    _checkpointable: tuple[nn.Module, ...] | None
    _gathered: GatheredCache
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
        state["_compositions"] = dict[str, Mapping[str, float]]()
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
            single = rows is not None and rows.check_batch(args, kwargs)
            call = Call(self._owner, routing.terms, inside, gradients, False, rows, single)
            return run_with(call, function, args, kwargs)
        finally:
            self._attachments.let_go(routing.terms)

    def _enter_base(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The base's forward on behalf of a method of the base that is running through us."""
        call = CURRENT.get()
        if call is None or call.owner is not self._owner:
            return self.forward(*args, **kwargs)
        single = call.rows is not None and call.rows.check_batch(args, kwargs)
        entered = dataclasses.replace(
            call, inside=True, gradients=torch.is_grad_enabled(), single=single
        )
        return run_with(entered, self._base, args, kwargs)

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
            self.__dict__["_default"] = self.routing(adapter)

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
        self.__dict__["_disabled"] = True

    def enable_adapters(self) -> None:
        """Undo :meth:`disable_adapters`; what was the default is the default again."""
        self.__dict__["_disabled"] = False

    def active_adapters(self) -> list[str]:
        """The adapters that would answer a call made here and now, in order."""
        return list(self.active_weights())

    def active_weights(self) -> dict[str, float]:
        """The same with their weights."""
        if self._disabled:
            return {}
        choice = chosen(self._owner, _UNSAID)
        routing = self._default if choice is _UNSAID else self.routing(cast(Selection, choice))
        return dict(routing.weights)

    def default_weights(self) -> dict[str, float]:
        """The adapters of the default, with their weights, whatever ``using`` is around."""
        return dict(self._default.weights)

    def routing(self, selection: Selection) -> Routing:
        """What ``selection`` means on this model; kept, so that a switch is a look-up."""
        if selection is None:
            return BASE
        key = key_of(selection)
        known = self._routings.get(key) if key is not None else None
        if known is not None:
            return known
        with self._attachments.lock:
            self._check_alive()
            found = route(selection, self._adapters, self._compositions, self._rules)
            if len(self._routings) >= _KEPT_ROUTINGS:  # weights moved by a slider, say
                self._routings.clear()
            if key is not None:
                self._routings[key] = found
            return found

    def define_composition(self, name: str, of: Mapping[str, float]) -> None:
        """Give a weighted sum of adapters a name. Adapters and compositions share one namespace."""
        with self.changing():
            if problem := self.name_problem(name):
                raise RoutingError(problem)
            weights = check_composition(name, of, self._adapters)
            with self._attachments.lock:
                self._compositions[name] = types.MappingProxyType(weights)
                self._routings.clear()

    def delete_composition(self, name: str) -> None:
        """Forget a composition; its adapters stay, and so does a default made of it."""
        with self.changing(), self._attachments.lock:
            if name not in self._compositions:
                raise _unknown(name, "no composition has this name")
            del self._compositions[name]
            self._routings.clear()

    @property
    def compositions(self) -> Mapping[str, Mapping[str, float]]:
        """The named weighted sums."""
        return types.MappingProxyType(self._compositions)

    @property
    def rules(self) -> Rules | None:
        """Asked of every set of weighted adapters before it is active, by whatever road."""
        return self._rules

    @rules.setter
    def rules(self, rules: Rules | None) -> None:
        with self.changing(), self._attachments.lock:
            _check_rules(rules, self._default.terms)
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
        return self._held(lambda: self._active(adapter, names, copies))

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

    @contextmanager
    def holding(self, adapter: Selection) -> Generator[None, None, None]:
        """Keep the weights of these adapters on the model's device during the block, loaded if
        they were away. Calls do so by themselves."""
        routing = self._held(lambda: self.routing(adapter))
        try:
            yield
        finally:
            self._attachments.let_go(routing.terms)

    def _load_now(self, adapter: Selection) -> None:
        """Load what is away of a selection that is chosen for calls to come."""
        if not self._exchanging and any(not a.loaded for a, _ in self.routing(adapter).terms):
            with self.holding(adapter):
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
            old, self._residency.budget = self._residency.budget, budget
            try:
                self._residency.check(self._adapters.values())
            except BaseException:
                self._residency.budget = old
                raise
            self._residency.arrived(self._adapters.values())
            self._gathered.clear()

    def _active(
        self,
        adapter: Selection | _Unsaid,
        names: Sequence[str | None] | None = None,
        copies: int = 1,
    ) -> Routing:
        if names is not None:
            routing = self._by_rows(adapter, names, copies)
        else:
            choice = chosen(self._owner, _UNSAID) if adapter is _UNSAID else adapter
            if choice is _UNSAID:
                return BASE if self._disabled else self._default
            routing = self.routing(cast(Selection, choice))
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
            with self._attachments.lock:
                gone = [self._adapters[name] for name in dict.fromkeys(names)]
                rest = tuple(t for t in self._default.terms if t[0] not in gone)
                emptied = bool(self._default.terms) and not rest
                if rest:
                    _check_rules(self._rules, rest)
                if len(rest) != len(self._default.terms):
                    self.__dict__["_default"] = Routing(rest) if rest else BASE
                for adapter in gone:
                    self._forget(adapter)
        if emptied:
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
        """Take every adapter away and give the base back, as it was before the first one."""
        with self.changing(), self._attachments.lock:
            if busy := self._attachments.busy():
                raise RoutingError(
                    codes.ADAPTER_IN_USE.finding(f"calls are running on {', '.join(busy)}")
                )
            for adapter in list(self._adapters.values()):
                self._forget(adapter)
            self._compositions.clear()
            stop_carrying(self._checkpointed())
            self.__dict__.update(_default=BASE, _detached=True)
            return self._base

    def _apply(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._gathered.clear()  # of tensors that are about to be others
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
        self._gathered.clear()
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
                self._residency.check([adapter])
                if adapter.loaded:
                    self._attachments.put(adapter, outputs, twins, modules)
                self._parameters.update(adapter.parameters)
                self._modules.update(adapter.twins)
                self._adapters[adapter.name] = adapter
                if old is not None and default != self._default.terms:
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
                self._forget(old)
                self.__dict__["_default"] = Routing(default) if default else BASE
            self._residency.arrived([adapter])

    def exchange(
        self,
        arriving: Sequence[Built],
        leaving: Collection[str],
        define: Callable[[], None],
        residency: int | None = None,
    ) -> None:
        """Put adapters in place, take out those ``leaving`` and those of the same names, and let
        ``define`` say anew what compositions, rules and default there are; ``residency`` is the
        budget from then on.

        Calls that begin on any thread see all of it or nothing. If anything raises, all is as it
        was.
        """
        with self.changing(), self._attachments.lock:
            modules = self._map.by_name
            self._attachments.check_current(modules)
            before, parameters, children = (
                dict(self._adapters),
                dict(self._parameters),
                dict(self._modules),
            )
            said = {key: self.__dict__[key] for key in ("_compositions", "_default", "_rules")}
            budget = self._residency.budget
            names = {*leaving, *(built.adapter.name for built in arriving)}
            gone = [adapter for name, adapter in before.items() if name in names]
            try:
                self._residency.budget = residency
                stay = [adapter for name, adapter in before.items() if name not in names]
                self._residency.check([*stay, *(built.adapter for built in arriving)])
                self.__dict__.update(_compositions={}, _default=BASE, _rules=None, _exchanging=True)
                self._routings.clear()
                for adapter in gone:
                    del self._adapters[adapter.name]
                for built in arriving:
                    if built.adapter.loaded:
                        self._attachments.put(built.adapter, built.outputs, built.twins, modules)
                    self._parameters.update(built.adapter.parameters)
                    self._modules.update(built.adapter.twins)
                    self._adapters[built.adapter.name] = built.adapter
                define()
            except BaseException:
                for known, old in (
                    (self._adapters, before),
                    (self._parameters, parameters),
                    (self._modules, children),
                ):
                    known.clear()
                    known.update(cast("dict[str, Any]", old))
                self.__dict__.update(said)
                self._residency.budget = budget
                for built in arriving:
                    self._forget(built.adapter)
                self._routings.clear()
                raise
            finally:
                self.__dict__["_exchanging"] = False
            for adapter in gone:
                self._forget(adapter)
            self._residency.arrived(self._adapters.values())

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

    def _check_alive(self) -> None:
        if self._detached:
            raise RoutingError(codes.MODEL_DETACHED.finding("this model was detached"))

    def __repr__(self) -> str:
        parts = [
            f"{n} ({'+'.join(a.methods) or 'whole'} r={a.rank})" for n, a in self._adapters.items()
        ]
        return (
            f"AdaptedModel({type(self._base).__name__}, adapters=[{', '.join(parts)}], "
            f"active={self.active_weights()})"
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


def _check_rules(rules: Rules | None, terms: tuple[tuple[Adapter, float], ...]) -> None:
    broken = list(rules({a.name: w for a, w in terms})) if rules and terms else []
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


def _copies_of_a_row(base: nn.Module, kwargs: Mapping[str, Any]) -> int:
    """How often ``generate`` repeats each row: beams, or returned sequences."""
    config = kwargs.get("generation_config") or getattr(base, "generation_config", None)
    wanted = (
        kwargs.get(n) or getattr(config, n, None) for n in ("num_beams", "num_return_sequences")
    )
    return max((int(number) for number in wanted if number), default=1)


def _unknown(name: str, why: str) -> RoutingError:
    return RoutingError(codes.ADAPTER_UNKNOWN.finding(f"there is no {name!r} here: {why}"))
