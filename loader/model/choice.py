"""Which adapters answer: the default, the choice of a thread or a call, and rows of a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import cast

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ..adapter.adapter import Adapter
from ..merge.merge import Terms
from ..routing.routing import BASE, CURRENT, Routing, Using, chosen, routings_of
from ..routing.rows import Rows
from ..routing.selection import Rules, Selection, key_of, route, snapshot
from .adapter_set import AdapterSet


class Unsaid:
    def __repr__(self) -> str:
        return "the default"


UNSAID = Unsaid()
_KEPT_ROUTINGS = 256


class Choice:
    """What is active on a set of adapters, and that it is there."""

    def __init__(self, adapters: AdapterSet) -> None:
        self._set = adapters
        self._owner = adapters.attachments.owner

    def set_default(self, selection: Selection) -> None:
        """Make this what answers where nothing else is said."""
        self._load_now(selection)
        with self._set.lock:  # what it means now, unless the adapters change just now
            self._set.state = self._set.state.chosen(self.routing(selection), selection)

    def using(self, selection: Selection) -> Using:
        """Makes it the choice in a thread (and asyncio task) for the time of a block."""
        self.routing(selection)  # what cannot be chosen is refused here
        self._load_now(selection)
        return Using(self._owner, snapshot(selection))

    def disable(self) -> None:
        """Let the base alone answer, whatever is chosen."""
        self._set.state.check_unmerged("the base alone cannot answer")
        self._set.say(disabled=True)

    def set_rules(self, rules: Rules | None) -> None:
        """Ask these of every set of adapters that is to be active. Raises :class:`PolicyError` if
        what is active breaks them."""
        with self._set.changing(), self._set.lock:
            replaced = replace(self._set.state, rules=rules, routings={})
            replaced.check_rules(replaced.default.terms)
            self._set.state = replaced

    def active(self) -> Terms:
        """What would answer a call made here and now."""
        state = self._set.state
        return () if state.disabled else (self._chosen() or state.default).terms

    def routing(self, selection: Selection) -> Routing:
        """What ``selection`` means on this model; kept, so that a switch is a look-up."""
        state = self._set.state
        if selection is None and state.merge is None:
            return BASE
        key = key_of(selection)
        known = state.routings.get(key) if key is not None else None
        if known is not None:
            return known
        with self._set.lock:
            state = self._set.state
            state.check_alive()
            adapters = self._set.attachments.adapters
            found = route(selection, adapters, state.compositions, state.rules, state.merge)
            if len(state.routings) >= _KEPT_ROUTINGS:  # weights moved by a slider, say
                state.routings.clear()
            if key is not None:
                state.routings[key] = found
            return found

    # -- adapters that are there ---------------------------------------------------------------

    def holding(self, selection: Selection) -> AbstractContextManager[None]:
        """Keeps the weights of what is selected on the model's device during the block, loaded if
        they were away."""
        return self._holding(lambda: self.routing(selection))

    def present(self, adapters: Iterable[Adapter]) -> AbstractContextManager[None]:
        """The same of adapters that are not to be active together, and whatever the rules say."""
        routing = Routing(tuple((adapter, 1.0) for adapter in adapters))
        return self._holding(lambda: routing)

    @contextmanager
    def _holding(self, resolve: Callable[[], Routing]) -> Generator[None, None, None]:
        call = threading.Lock()
        try:
            with call:
                self.hold(call, resolve)
                yield
        finally:
            self._set.attachments.let_go(call)

    def _load_now(self, selection: Selection) -> None:
        """Load what is away of a selection that is chosen for calls to come."""
        for adapter, _ in self.routing(selection).terms:
            if not adapter.loaded and not self._set.state.exchanging:
                with self.holding(selection):
                    return

    # -- what a call begins with ---------------------------------------------------------------

    def take(
        self,
        call: threading.Lock,
        adapter: Selection | Unsaid,
        names: Sequence[str | None] | None = None,
        copies: int = 1,
    ) -> Routing:
        """The routing of a call that begins now. Its adapters stay as long as the ``call`` has its
        lock, even if they are replaced or deleted meanwhile."""
        return self.hold(call, lambda: self._active(adapter, names, copies))

    def hold(self, mine: threading.Lock, resolve: Callable[[], Routing]) -> Routing:
        """What ``resolve`` says, its adapters loaded and held as long as the call has its lock
        (``mine``)."""
        while True:
            with self._set.lock:
                routing = resolve()
                call = CURRENT.get()
                nested = call is not None and call.owner is self._owner
                while not self._set.residency.claim(mine, routing.terms, nested=nested):
                    routing = resolve()
            if not self._set.residency.bring(routing.terms):
                return routing
            with self._set.lock:
                self._set.gathered.clear()
                self._set.say(routings={})  # what is loaded may bring other modules whole
                again = resolve()
                if again.terms == routing.terms:
                    return again
                self._set.attachments.let_go(mine)

    def _chosen(self) -> Routing | None:
        choice = chosen(self._owner, UNSAID)
        return None if choice is UNSAID else self.routing(cast(Selection, choice))

    def _active(
        self, adapter: Selection | Unsaid, names: Sequence[str | None] | None, copies: int
    ) -> Routing:
        state = self._set.state
        if names is not None:
            routing = self._by_rows(adapter, names, copies)
        elif adapter is UNSAID:
            routing = self._chosen()
            if routing is None:
                return BASE if state.disabled else state.default
        else:
            routing = self.routing(cast(Selection, adapter))
        if state.disabled and routing.terms:
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
        foreign = self._set.live.known_modules.foreign
        terms = tuple(routing.terms for routing in routings)
        rows = Rows(terms, repeats, self._set.gathered, foreign)
        adapters = dict.fromkeys(adapter for row in terms for adapter, _ in row)
        return Routing(tuple((one, 1.0) for one in adapters), rows)
