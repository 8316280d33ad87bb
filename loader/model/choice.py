"""Which adapters answer: the default, the choice of a thread or a call, and rows of a batch."""

from __future__ import annotations

import threading
import types
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings import merging as merging_codes
from ...manifests.findings.errors import RoutingError
from ...manifests.language.schema import Composition
from ...manifests.language.weights import Weight
from ..adapter.adapter import Adapter, AdapterInfo
from ..base.live_base import LiveBase
from ..merge.merge import Merge, Terms
from ..routing.routing import BASE, CURRENT, Routing, Using, chosen
from ..routing.rows import GatheredCache, Rows, routings_of
from ..routing.selection import Rules, Selection, check_rules, key_of, route, snapshot
from ..sites.attachments import Attachments
from ..sites.compiled import CompiledBase
from .all_or_nothing import AllOrNothing
from .parameter_tree import ROOT, ParameterTree
from .residency import Residency
from .stand_in import StandIn


class Unsaid:
    def __repr__(self) -> str:
        return "the default"


UNSAID = Unsaid()
_KEPT_ROUTINGS = 256


class Choosing(StandIn):
    """The part of an adapted model that says what is active, and sees that it is there.

    Which adapters answer: those named in the call (``adapter=``), else those of the ``using``
    around it, else the default of :meth:`set_adapter`, else none.
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
    _exchanging: bool
    _live: LiveBase
    _gathered: GatheredCache
    _residency: Residency
    _compiled: CompiledBase | None
    _merge: Merge | None

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        owner = object()
        attachments, live = Attachments(base, owner), LiveBase(base)
        tree = ParameterTree()
        self.__dict__.update(
            _base=base,
            _owner=owner,
            _changing=threading.RLock(),
            _attachments=attachments,
            _compositions={},
            _recipes={},
            _selected=None,
            _routings={},
            _default=BASE,
            _rules=None,
            _disabled=False,
            _detached=False,
            _exchanging=False,
            _live=live,
            _gathered=GatheredCache(),
            _tree=tree,
            _residency=Residency(attachments, tree, live),
            _compiled=None,
            _merge=None,
        )
        self._modules.update({"base_model": base, ROOT: tree})

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
            self.__dict__.update(_rules=rules, _routings={})

    @property
    def merged_adapters(self) -> list[str]:
        """The adapters that are in the base's weights now."""
        return list(self._merge.weights) if self._merge is not None else []

    @property
    def _merged_terms(self) -> Terms:
        return self._merge.terms if self._merge is not None else ()

    def check_unmerged(self, what: str, of: Iterable[str] | None = None) -> None:
        """Raise :class:`RoutingError` if something is merged (one of the adapters ``of``)."""
        merged = self.merged_adapters
        names = merged if of is None else [name for name in of if name in merged]
        if names:
            raise RoutingError(
                merging_codes.ADAPTERS_MERGED.finding(f"{what}: {', '.join(names)} is merged")
            )

    def get_base_model(self) -> nn.Module:
        """The base model itself."""
        return self._base

    # -- adapters that are there ---------------------------------------------------------------

    @property
    def adapters(self) -> Mapping[str, AdapterInfo]:
        """The attached adapters by name: methods, rank, modules, size, dtype, device."""
        return types.MappingProxyType({n: a.info() for n, a in self._adapters.items()})

    @property
    def attached(self) -> Mapping[str, Adapter]:
        """The adapters themselves, by name."""
        return types.MappingProxyType(self._adapters)

    @property
    def _adapters(self) -> dict[str, Adapter]:
        return self._attachments.adapters

    @property
    def live(self) -> LiveBase:
        """The base as whoever builds adapters sees it."""
        return self._live

    @contextmanager
    def changing(self) -> Generator[None, None, None]:
        """Only one change at a time; calls go on."""
        with self._changing:
            self._check_alive()
            yield

    def _check_alive(self) -> None:
        if self._detached:
            raise RoutingError(codes.MODEL_DETACHED.finding("this model was detached"))

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
        call = threading.Lock()
        try:
            with call:
                self._held(call, resolve)
                yield
        finally:
            self._attachments.let_go(call)

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
            with AllOrNothing(self):
                self._residency.budget = budget
                self._residency.check(self._adapters.values())
                self._residency.arrived(self._adapters.values())
                self._gathered.clear()

    # -- what a call begins with ---------------------------------------------------------------

    def _take(
        self,
        call: threading.Lock,
        adapter: Selection | Unsaid,
        names: Sequence[str | None] | None = None,
        copies: int = 1,
    ) -> Routing:
        """The routing of a call that begins now. Its adapters stay as long as the ``call`` has its
        lock, even if they are replaced or deleted meanwhile."""
        return self._held(call, lambda: self._allowed(adapter, names, copies))

    def _allowed(
        self, adapter: Selection | Unsaid, names: Sequence[str | None] | None, copies: int
    ) -> Routing:
        """What is active; raises where that is the base alone, and something is merged."""
        routing = self._active(adapter, names, copies)
        chose_base = adapter is UNSAID and routing is not self._default and not self._disabled
        if chose_base and not routing.terms:
            self.check_unmerged("the base alone cannot answer")
        return routing

    def _held(self, mine: threading.Lock, resolve: Callable[[], Routing]) -> Routing:
        """What ``resolve`` says, its adapters loaded and held as long as the call has its lock
        (``mine``)."""
        while True:
            with self._attachments.lock:
                routing = resolve()
                call = CURRENT.get()
                nested = call is not None and call.owner is self._owner
                while not self._residency.claim(mine, routing.terms, nested=nested):
                    routing = resolve()
            if not self._residency.bring(routing.terms):
                return routing
            with self._attachments.lock:
                self._gathered.clear()
                self._routings.clear()  # what is loaded may bring other modules whole
                again = resolve()
                if again.terms == routing.terms:
                    return again
                self._attachments.let_go(mine)

    def _chosen(self) -> Routing | None:
        choice = chosen(self._owner, UNSAID)
        return None if choice is UNSAID else self.routing(cast(Selection, choice))

    def _active(
        self,
        adapter: Selection | Unsaid,
        names: Sequence[str | None] | None = None,
        copies: int = 1,
    ) -> Routing:
        if names is not None:
            routing = self._by_rows(adapter, names, copies)
        elif adapter is UNSAID:
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
        self, adapter: Selection | Unsaid, names: Sequence[str | None], copies: int
    ) -> Routing:
        """The routing of a batch with a name for each row; each row may stand ``copies`` times."""
        if adapter is not UNSAID or isinstance(names, str) or not len(names):
            raise RoutingError(
                codes.SELECTION_INVALID.finding("adapter_names wants a list, and no adapter beside")
            )
        routings = routings_of(names, self.routing)
        first = routings[0]
        if all(routing is first for routing in routings):
            return first
        repeats = (1,) if copies == 1 else (1, copies)
        rows = Rows(routings, repeats, self._gathered, self._live.known_modules.foreign)
        adapters = dict.fromkeys(a for routing in routings for a, _ in routing.terms)
        return Routing(tuple((one, 1.0) for one in adapters), rows)
