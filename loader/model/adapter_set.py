"""The adapters that a model holds: put in place, exchanged, deleted."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ...manifests.findings.finding import Finding, Where
from ...manifests.findings.language import NAMES_IN_CASE
from ...manifests.language.names import NAME_RULE, is_name, same_but_for_case
from ..adapter.adapter import Adapter, Built
from ..adapter.memory import bytes_of
from ..adapter.warning import warn
from ..routing.routing import BASE, Routing
from ..routing.selection import check_rules, mix_problems, without
from ..sites.checkpointing import stop_carrying
from .all_or_nothing import AllOrNothing
from .merged import Mergeable


class Holder(Mergeable):
    """The part of an adapted model that adapters are put on, and taken from: all or nothing."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        weakref.finalize(self, self._attachments.abandon).atexit = False

    def name_problem(self, name: object, where: Where = Where()) -> Finding | None:  # noqa: B008
        """Why ``name`` cannot be given to another adapter or composition; ``None`` if it can."""
        if not isinstance(name, str) or not is_name(name):
            return codes.NAME_INVALID.finding(
                f"{name!r} is no name", where, found=name, expected=NAME_RULE
            )
        if name in self._adapters or name in self._compositions:
            return codes.NAME_TAKEN.finding(f"{name!r} is taken", where, found=name)
        return self.case_problem(name, where)

    def case_problem(self, name: str, where: Where = Where()) -> Finding | None:  # noqa: B008
        """That an adapter or composition here is called the same but for case."""
        other = same_but_for_case(name, (*self._adapters, *self._compositions))
        if other is None:
            return None
        return NAMES_IN_CASE.finding(
            f"{name!r} and {other!r}, which is here, differ in nothing but case", where, found=name
        )

    def add(self, built: Built) -> None:
        """Put a finished adapter in place, under a name that none has; taken back whole if anything
        goes wrong."""
        modules, adapter = self.live.known_modules.by_name, built.adapter
        self._attachments.check_current(modules)
        with self._attachments.lock, AllOrNothing(self):
            self._residency.check([adapter])
            self._put(built, modules)
            if self._rules is None:  # nothing to ask: the first switch is a look-up too
                self._routings[adapter.name] = Routing(((adapter, 1.0),))
            self._residency.arrived([adapter])

    def _put(self, built: Built, modules: Mapping[str, nn.Module]) -> None:
        adapter = built.adapter
        if adapter.loaded:
            self._attachments.put(adapter, built.outputs, built.twins, built.weights, modules)
        self._tree.put(adapter)
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
        modules = self.live.known_modules.by_name
        self._attachments.check_current(modules)
        with self.changing(), self._attachments.lock, AllOrNothing(self):
            self.check_unmerged("the adapters cannot change")
            names = {*leaving, *(built.adapter.name for built in arriving)}
            gone = [adapter for name, adapter in self._adapters.items() if name in names]
            self.__dict__.update(_exchanging=True, _routings={})
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
            for adapter in gone:
                adapter.reported = True
                self._forget(adapter)
            self._residency.arrived(self._adapters.values())
            self.__dict__["_exchanging"] = False

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

    def delete_adapter(self, adapter_names: str | list[str]) -> None:
        """Remove adapters. A call that runs on one of them finishes with it.

        If one was part of the default, the others of the default stay active; if none is left the
        base answers alone, and a warning says so. One that a composition needs is refused.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        with self.changing():
            self._check_deletable(names)
            self.check_unmerged("it cannot be deleted", names)
            with self._attachments.lock, AllOrNothing(self):
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
                self._unname(names)
        if emptied and not self.merged_adapters:
            warn(codes.ACTIVE_DELETED.finding(f"{', '.join(names)} was the default"))

    def _check_deletable(self, names: list[str]) -> None:
        problems: list[Finding] = []
        for name in names:
            if name not in self._adapters:
                raise unknown_adapter(name, f"attached are: {', '.join(self._adapters) or 'none'}")
            for composition, weights in self._compositions.items():
                if name in weights:
                    problems.append(
                        codes.ADAPTER_IN_USE.finding(f"{composition!r} is made of {name!r}")
                    )
        if problems:
            raise RoutingError(*problems)

    def detach(self) -> nn.Module:
        """Take every adapter away and give the base back, as it was before the first one; what is
        merged is unmerged first."""
        with self.changing(), self._attachments.lock, AllOrNothing(self) as change:
            if busy := self._attachments.busy():
                raise RoutingError(
                    codes.ADAPTER_IN_USE.finding(f"calls are running on {', '.join(busy)}")
                )
            if self._merge is not None:
                self._check_idle()
                self._unmerge(change, self._merge)
            for adapter in list(self._adapters.values()):
                self._forget(adapter)
            self._unname([*self._compositions])
            self._attachments.forget_compiled()
            stop_carrying(self._checkpointed())
            self.__dict__.update(_default=BASE, _detached=True, _compiled=None)
            return self._base

    def _unname(self, names: Collection[str]) -> None:
        """Compositions of these names are no more."""
        self.__dict__.update(
            _compositions={n: of for n, of in self._compositions.items() if n not in names},
            _recipes={n: recipe for n, recipe in self._recipes.items() if n not in names},
            _routings={},
        )

    def _forget(self, adapter: Adapter) -> None:
        """Take an adapter out of everything."""
        self._tree.take(adapter)
        self._gathered.clear()
        self._attachments.remove(adapter)
        self._routings.clear()

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
        changed = tuple(self._tree.key_of(name) for name in state_dict)
        reloads = {
            adapter: adapter.reload
            for adapter in self._adapters.values()
            if any(
                key.startswith((*adapter.resident.parameters, *adapter.resident.replacements))
                for key in changed
            )
        }
        try:
            for adapter in reloads:
                adapter.reload = None  # what its files hold is no longer what it is
            return super().load_state_dict(state_dict, strict, assign)
        except BaseException:
            for adapter, reload in reloads.items():
                adapter.reload = reload
            raise


def unknown_adapter(name: str, why: str) -> RoutingError:
    return RoutingError(codes.ADAPTER_UNKNOWN.finding(f"there is no {name!r} here: {why}"))
