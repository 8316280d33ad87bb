"""The wrapper: a base model, untouched, and the adapters that act on it."""

from __future__ import annotations

import functools
import inspect
import os
import threading
import types
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
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
from .mergeable import Mergeable
from .modules import ModuleMap, check_attachable
from .routing import BASE, CURRENT, Call, Routing, Using, chosen, run_with
from .selection import Rules, Selection, check_composition, key_of, route
from .sites import Factors
from .stand_in import refusal

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
    _compositions: dict[str, Mapping[str, float]]
    _routings: dict[Any, Routing]
    _default: Routing
    _rules: Rules | None
    _disabled: bool
    _detached: bool
    _map: ModuleMap
    _view: nn.Module | None
    _checkpointable: tuple[nn.Module, ...] | None

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
        self._start_unmerged()
        self._modules["base_model"] = base
        self.training = base.training

    # -- running ---------------------------------------------------------------------------

    def forward(self, *args: Any, adapter: Selection | _Unsaid = _UNSAID, **kwargs: Any) -> Any:
        """The base's forward with the active adapters, or with those that ``adapter`` names."""
        routing = self._active(adapter)
        if not routing.terms:
            return self._enter(routing, self._base, args, kwargs, inside=True)
        gradients = torch.is_grad_enabled()
        if gradients and self._base.training:
            carry(self._checkpointed())
        out = self._enter(routing, self._base, args, kwargs, inside=True, gradients=gradients)
        self._note_use(routing)
        return out

    def generate(self, *args: Any, adapter: Selection | _Unsaid = _UNSAID, **kwargs: Any) -> Any:
        """The base's ``generate``, all of it with the adapters that were active at its start, or
        with those that ``adapter`` names."""
        routing = self._active(adapter)
        generate = getattr(self._seen(), "generate", None)
        if generate is None:
            name = type(self._base).__name__
            raise RoutingError(codes.CANNOT_GENERATE.finding(f"a {name} cannot generate"))
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
        self._check_alive()
        self._attachments.hold(routing.terms)
        try:
            call = Call(self._owner, routing.terms, inside, gradients)
            return run_with(call, function, args, kwargs)
        finally:
            self._attachments.let_go(routing.terms)

    def _enter_base(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The base's forward on behalf of a method of the base that is running through us."""
        call = CURRENT.get()
        if call is None or call.owner is not self._owner:
            return self.forward(*args, **kwargs)
        entered = Call(self._owner, call.terms, True, torch.is_grad_enabled(), call.carried)
        return run_with(entered, self._base, args, kwargs)

    def _run_on_base(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        routing = self._active(_UNSAID)
        gradients = torch.is_grad_enabled()
        method = getattr(self._seen(), name)
        out = self._enter(routing, method, args, kwargs, inside=False, gradients=gradients)
        return self._stepwise(routing, out) if inspect.isgenerator(out) else out

    def _stepwise(self, routing: Routing, steps: Generator[Any, Any, Any]) -> Iterator[Any]:
        """A generator of the base's: its body runs later, each step with the same routing."""
        end = object()
        gradients = torch.is_grad_enabled()
        while True:
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
        self.__dict__["_default"] = self.routing(adapter)

    def using(self, adapter: Selection) -> Using:
        """``with model.using("tone"):`` makes it the choice in this thread (and asyncio task)
        until the end of the block. Nests; does not touch the default."""
        return Using(self._owner, self.routing(adapter))

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

    def active_weights(self) -> dict[str, float]:
        """The same with their weights."""
        if self._disabled:
            return {}
        return dict((chosen(self._owner) or self._default).weights)

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
        with self._attachments.lock:
            _check_rules(rules, (*self._merged_terms, *self._default.terms))
            self.__dict__["_rules"] = rules
            self._routings.clear()

    def _active(self, adapter: Selection | _Unsaid) -> Routing:
        if adapter is _UNSAID:
            routing = chosen(self._owner)
            if routing is None:
                return BASE if self._disabled else self._default
            if not routing.terms:
                self.check_unmerged("the base alone cannot answer")
        else:
            routing = self.routing(cast(Selection, adapter))
        if self._disabled and routing.terms:
            names = ", ".join(routing.weights)
            raise RoutingError(
                codes.ADAPTERS_DISABLED.finding(f"{names}: all adapters are disabled")
            )
        return routing

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
    ) -> None:
        """Attach one more adapter, from any source, with the checks of a manifest's adapters.

        ``source`` is text as in a manifest, or a path; a relative one counts from the current
        folder. Or hand it over in memory: ``peft_config`` (PEFT's object, or its fields) and
        ``adapter_state_dict`` (PEFT's names on disk to tensors). ``sha256`` is the digest of its
        folder, ``dtype`` what its factors are kept in (else the dtype of the module they sit on).
        It does not become active. The policies, mirrors, rules and aliases of the model's
        manifest bind. Raises the errors of :mod:`adapterdock.manifests.errors`; the model is then
        as it was.
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
                emptied = bool(self._default.terms) and not rest
                if rest:
                    _check_rules(self._rules, (*self._merged_terms, *rest))
                if len(rest) != len(self._default.terms):
                    self._shrink_default(rest)
                for adapter in gone:
                    self._forget(adapter)
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
            stop_carrying(self._checkpointed())
            self.__dict__.update(_default=BASE, _detached=True)
            return self._base

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
        """Put a finished adapter in place; taken back whole if anything goes wrong."""
        modules = self._map.by_name
        self._attachments.check_current(modules)
        with self._attachments.lock:
            try:
                self._attachments.put(adapter, outputs, twins, modules)
                self._parameters.update(adapter.parameters)
                self._modules.update(adapter.twins)
                self._adapters[adapter.name] = adapter
                if self._rules is None:  # nothing to ask: the first switch is a look-up too
                    self._routings[adapter.name] = Routing(((adapter, 1.0),))
            except BaseException:
                self._forget(adapter)
                raise

    def _forget(self, adapter: Adapter) -> None:
        """Take an adapter out of everything."""
        for name, parameter in adapter.parameters.items():
            if self._parameters.get(name) is parameter:
                del self._parameters[name]
        for name, twin in adapter.twins.items():
            if self._modules.get(name) is twin:
                del self._modules[name]
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

    def forward(
        self: AdaptedModel, *args: Any, adapter: Selection | _Unsaid = _UNSAID, **kwargs: Any
    ) -> Any:
        return AdaptedModel.forward(self, *args, adapter=adapter, **kwargs)

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


def _unknown(name: str, why: str) -> RoutingError:
    return RoutingError(codes.ADAPTER_UNKNOWN.finding(f"there is no {name!r} here: {why}"))
