"""Which adapters are active: by default, in a thread or a call, and for rows of a batch."""

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
    """The type of ``adapter`` in a call that does not pass it."""

    def __repr__(self) -> str:
        return "the default"


UNSAID = Unsaid()
_KEPT_ROUTINGS = 256


class Choice:
    """Which adapters of a set are active; loads and holds them for calls."""

    def __init__(self, adapters: AdapterSet) -> None:
        self._set = adapters
        self._owner = adapters.attachments.owner

    def set_default(self, selection: Selection) -> None:
        """Make this active wherever nothing else is selected."""
        self._load_now(selection)
        with self._set.lock:  # resolved again, since adapters may have changed
            self._set.state = self._set.state.chosen(self.routing(selection), selection)

    def using(self, selection: Selection) -> Using:
        """Select it in this thread (and asyncio task) for a block."""
        self.routing(selection)  # raises for an invalid selection
        self._load_now(selection)
        return Using(self._owner, snapshot(selection))

    def disable(self) -> None:
        """Run the base alone, whatever is selected."""
        self._set.state.check_unmerged("Cannot run the base model")
        self._set.say(disabled=True)

    def set_rules(self, rules: Rules | None) -> None:
        """Check every new set of active adapters with ``rules``. Raises :class:`PolicyError` if the
        default breaks them."""
        with self._set.changing(), self._set.lock:
            replaced = replace(self._set.state, rules=rules, routings={})
            replaced.check_rules(replaced.default.terms)
            self._set.state = replaced

    def active(self) -> Terms:
        """What would be active in a call made here and now."""
        state = self._set.state
        return () if state.disabled else (self._chosen() or state.default).terms

    def routing(self, selection: Selection) -> Routing:
        """The routing of a selection; cached, so that a switch is a look-up."""
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
            if len(state.routings) >= _KEPT_ROUTINGS:  # such as weights from a slider
                state.routings.clear()
            if key is not None:
                state.routings[key] = found
            return found

    # -- loaded adapters -----------------------------------------------------------------------

    def holding(self, selection: Selection) -> AbstractContextManager[None]:
        """Keep the weights of the selected adapters on the model's device during the block."""
        return self._holding(lambda: self.routing(selection))

    def present(self, adapters: Iterable[Adapter]) -> AbstractContextManager[None]:
        """The same for adapters that need not be allowed to be active together."""
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
        """Load the adapters of a selection for the calls that follow."""
        for adapter, _ in self.routing(selection).terms:
            if not adapter.loaded and not self._set.state.exchanging:
                with self.holding(selection):
                    return

    # -- at the start of a call ----------------------------------------------------------------

    def hold(self, mine: threading.Lock, resolve: Callable[[], Routing]) -> Routing:
        """The routing that ``resolve`` returns, its adapters loaded and held while the lock of the
        call (``mine``) is locked."""
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
                self._set.say(routings={})  # a loaded adapter may replace other modules
                again = resolve()
                if again.terms == routing.terms:
                    return again
                self._set.attachments.let_go(mine)

    def _chosen(self) -> Routing | None:
        choice = chosen(self._owner, UNSAID)
        return None if choice is UNSAID else self.routing(cast(Selection, choice))

    def resolve(
        self,
        adapter: Selection | Unsaid = UNSAID,
        names: Sequence[str | None] | None = None,
        copies: int = 1,
    ) -> Routing:
        """The routing of a call that starts now."""
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
                codes.ADAPTERS_DISABLED.finding(f"Cannot use {names}: all adapters are disabled")
            )
        return routing

    def _by_rows(
        self, adapter: Selection | Unsaid, names: Sequence[str | None], copies: int
    ) -> Routing:
        """The routing of a batch with a name for each row; ``generate`` may repeat rows ``copies``
        times."""
        if adapter is not UNSAID or isinstance(names, str) or not len(names):
            raise RoutingError(
                codes.SELECTION_INVALID.finding("adapter_names must be a list, without adapter=")
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
