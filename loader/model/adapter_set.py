"""The adapters on one base: attached, exchanged, deleted; each change completely or not at all."""

from __future__ import annotations

import threading
import types
import weakref
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, cast

from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AdapterdockError, AttachError, RoutingError, UsageError
from ...manifests.findings.finding import Finding, Where
from ...manifests.findings.language import NAMES_IN_CASE
from ...manifests.language.names import NAME_RULE, did_you_mean, is_name, same_but_for_case
from ..adapter.adapter import Adapter, Built
from ..adapter.memory import bytes_of, returned
from ..adapter.warning import warn
from ..base.live_base import LiveBase
from ..build.build_adapter import attach_failed
from ..routing.routing import BASE, Routing
from ..routing.rows import GatheredCache
from ..routing.selection import check_rules, mix_problems, without
from ..sites.attachments import Attachments
from ..sites.refill import reorder
from . import state_dict as adapter_state
from .model_state import ModelState, routing_of
from .parameter_tree import ParameterTree
from .residency import Residency

_OF_ITS_USE = frozenset({"used", "unfired", "loading", "serial"})
"""Fields of an adapter that calls write or that never change."""


class AdapterSet:
    """The adapters on one base by name, their sites, and the model's state.

    ``lock`` is held for moments only, so that calls continue while adapters change; ``state`` is
    replaced under it. The sites are removed when the set is garbage-collected.
    """

    def __init__(self, base: nn.Module) -> None:
        self.live = LiveBase(base)
        self.attachments = Attachments(base, object())
        self.by_name: Mapping[str, Adapter] = types.MappingProxyType(self.attachments.adapters)
        self.lock = self.attachments.lock
        self.tree = ParameterTree()
        self.residency = Residency(self.attachments, self.tree, self.live)
        self.gathered = GatheredCache()
        self.state = ModelState()
        self._changing = threading.RLock()
        weakref.finalize(self, self.attachments.abandon).atexit = False

    def say(self, **fields: Any) -> None:
        """Replace these fields of the state."""
        with self.lock:
            self.state = replace(self.state, **fields)

    @contextmanager
    def changing(self) -> Generator[None, None, None]:
        """Only one change at a time; calls continue."""
        with self._changing:
            self.state.check_alive()
            yield

    @contextmanager
    def change(self) -> Generator[ExitStack, None, None]:
        """A block that is undone if anything interrupts it (``KeyboardInterrupt`` may at any line);
        no call starts or ends in it. Callbacks of the stack undo what :meth:`_snapshot` lacks."""
        with self.changing(), self.lock, ExitStack() as undo:
            undo.callback(self._snapshot())
            yield undo
            undo.pop_all()

    def _snapshot(self) -> Callable[[], None]:
        """A function that restores the adapters, their sites and the state as they are now."""
        state, tree = self.state, self.tree
        held = dict(tree.held)
        residency = self.residency.snapshot()
        sites = self.attachments.as_it_is()
        adapters = {
            adapter: {key: value for key, value in vars(adapter).items() if key not in _OF_ITS_USE}
            for adapter in self.by_name.values()
        }

        def restore() -> None:
            for adapter, fields in adapters.items():
                if fields["loaded"]:
                    returned(adapter)
                vars(adapter).update(fields)
            sites()
            tree.restore(adapters)
            reorder(tree.held, held)
            residency()
            self.state = replace(state, routings={})
            self.gathered.clear()

        return restore

    # -- names -----------------------------------------------------------------------------

    def name_problem(self, name: object, where: Where = Where()) -> Finding | None:  # noqa: B008
        """Why a new adapter or composition cannot have this name; ``None`` if it can."""
        if not isinstance(name, str) or not is_name(name):
            return codes.NAME_INVALID.finding(
                f"Invalid adapter name {name!r}", where, found=name, expected=NAME_RULE
            )
        here = (*self.by_name, *self.state.compositions)
        if name in here:
            hint = _TAKEN_BY_COMPOSITION if name in self.state.compositions else None
            message = f"{name!r} is already attached"
            return codes.NAME_TAKEN.finding(message, where, found=name, hint=hint)
        other = same_but_for_case(name, here)
        if other is None:
            return None
        return NAMES_IN_CASE.finding(
            f"{name!r} and the attached {other!r} differ only in case", where, found=name
        )

    def check_free(self, name: str, replace: bool, where: Where) -> None:
        """Raise :class:`AttachError` for a taken name (unless it is to be replaced), and
        :class:`RoutingError` while adapters are merged."""
        replaced = replace and name in self.by_name
        if not replaced and (problem := self.name_problem(name, where)):
            raise AttachError(problem)
        self.state.check_unmerged(f"Cannot attach {name!r}")

    def check_name(self, name: str, hotswap: bool | str, where: Where) -> bool:
        """Whether the new adapter replaces one (``hotswap``: ``True`` if it must, ``"auto"`` if it
        may). Before anything is fetched, raises :class:`UsageError` for an invalid name, and
        :class:`AttachError` for a taken one or if there is none to replace."""
        if not isinstance(cast(object, name), str) or not is_name(name):
            raise UsageError(
                codes.NAME_INVALID.finding(
                    f"Invalid adapter name {name!r}", found=name, expected=NAME_RULE
                )
            )
        if hotswap and name in self.by_name:
            return True
        if hotswap is True:
            raise AttachError(
                codes.ADAPTER_UNKNOWN.finding(
                    f"Cannot replace unknown adapter {name!r}",
                    where,
                    found=name,
                    expected=", ".join(self.by_name) or "an attached adapter",
                )
            )
        if problem := self.name_problem(name, where):
            raise AttachError(problem)
        return False

    def known(self, name: str) -> Adapter:
        """The adapter of this name. Raises :class:`RoutingError` if there is none."""
        if name not in self.by_name:
            raise unknown("adapter", name, self.by_name)
        return self.by_name[name]

    # -- attach, exchange, delete ----------------------------------------------------------

    def put(self, built: Sequence[Built], where: Where) -> None:
        """Attach finished adapters, replacing those with the same names; all or nothing."""
        try:
            if len(built) == 1 and built[0].adapter.name not in self.by_name:
                self._add(built[0])
            else:
                self.exchange(built)
        except AdapterdockError:
            raise
        except Exception as error:
            raise attach_failed(built[0].adapter.name, error, where) from error

    def _add(self, built: Built) -> None:
        modules, adapter = self.live.known_modules.by_name, built.adapter
        self.attachments.check_current(modules)
        with self.change():
            self.residency.check([adapter])
            self._put(built, modules)
            if self.state.rules is None:  # so the first switch is a look-up too
                self.state.routings[adapter.name] = Routing(((adapter, 1.0),))
            self.residency.arrived([adapter])

    def _put(self, built: Built, modules: Mapping[str, nn.Module]) -> None:
        adapter = built.adapter
        if adapter.loaded:
            self.attachments.put(adapter, built.outputs, built.replacements, built.weights, modules)
        self.tree.put(adapter)
        self.attachments.adapters[adapter.name] = adapter

    def exchange(
        self,
        arriving: Sequence[Built],
        leaving: Collection[str] = (),
        define: Callable[[], int | None] | None = None,
    ) -> None:
        """Attach adapters, and remove those ``leaving`` and those with the same names.

        ``define`` sets compositions, rules and default again and returns the residency budget;
        without it they stay, and refer to the new adapters. New calls see all of the change or
        none of it; running calls finish with the old adapters. If anything raises, nothing changed.
        """
        modules, adapters = self.live.known_modules.by_name, self.attachments.adapters
        self.attachments.check_current(modules)
        with self.change():
            self.state.check_unmerged("Cannot change the adapters")
            names = {*leaving, *(built.adapter.name for built in arriving)}
            gone = [adapter for name, adapter in adapters.items() if name in names]
            self.say(exchanging=True, routings={})
            for adapter in gone:
                del adapters[adapter.name]
            for built in arriving:
                self._put(built, modules)
            if define is None:
                self._follow()
            else:
                self.say(compositions={}, recipes={}, default=BASE, selected=None, rules=None)
                self.residency.budget = define()
            self.residency.check(adapters.values())
            for adapter in gone:
                adapter.reported = True
                self._forget(adapter)
            self.residency.arrived(adapters.values())
            self.say(exchanging=False)

    def _follow(self) -> None:
        """Let the default refer to the adapters that have its names now; raises if they cannot be
        active together."""
        default = self.state.default
        terms = tuple((self.by_name[adapter.name], weight) for adapter, weight in default.terms)
        if problems := mix_problems(terms):
            raise RoutingError(*problems)
        check_rules(self.state.rules, terms)  # the ranks may differ
        self.say(default=routing_of(terms))

    def built_of(self, name: str) -> Built:
        """An attached adapter with what is at its sites."""
        adapter, attached = self.by_name[name], self.attachments
        return Built(adapter, attached.factors_of(adapter), attached.replacements_of(adapter), {})

    def delete(self, names: Sequence[str]) -> None:
        """Remove all of these adapters, or none."""
        with self.change():
            before = self.state
            gone = [self.known(name) for name in dict.fromkeys(names)]
            if used := [
                _in_use(name, users)
                for name in dict.fromkeys(names)
                if (users := [one for one, of in before.compositions.items() if name in of])
            ]:
                raise RoutingError(*used)
            before.check_unmerged("Cannot delete adapters", names)
            rest = tuple(term for term in before.default.terms if term[0] not in gone)
            if rest:
                before.check_rules(rest)
            self.say(selected=without(before.selected, names))
            if len(rest) != len(before.default.terms):
                self.state = self.state.left(rest)
            for adapter in gone:
                self._forget(adapter)
            self.state = self.state.without_compositions(names)
        if before.default.terms and not rest and not before.merged_adapters:
            warn(codes.ACTIVE_DELETED.finding(f"Deleted the default: {', '.join(names)}"))

    def clear(self) -> None:
        """Remove everything for good."""
        for adapter in list(self.by_name.values()):
            self._forget(adapter)
        self.attachments.forget_compiled()
        self.say(
            compositions={}, recipes={}, default=BASE, detached=True, compiled=None, routings={}
        )

    def _forget(self, adapter: Adapter) -> None:
        """Remove one adapter."""
        self.tree.take(adapter)
        self.gathered.clear()
        self.attachments.remove(adapter)
        self.say(routings={})

    # -- their tensors ---------------------------------------------------------------------

    def set_budget(self, budget: int | None) -> None:
        """Limit the adapters' weights on the base's device to ``budget`` bytes."""
        with self.change():
            if budget is not None and self.state.compiled is not None:
                raise RoutingError(codes.NOT_COMPILED_FOR.finding("Cannot set a residency budget"))
            self.residency.budget = budget
            self.residency.check(self.by_name.values())
            self.residency.arrived(self.by_name.values())
            self.gathered.clear()

    def forget_copies(self) -> None:
        """Drop copies of the adapters' tensors, which are about to change."""
        self.gathered.clear()
        if self.state.compiled is not None:
            self.state.compiled.forget()

    def measure(self) -> None:
        """Take the adapters' sizes again, since their tensors were moved or converted."""
        with self.lock:
            for adapter in self.by_name.values():
                if adapter.loaded:
                    adapter.nbytes = bytes_of(adapter)
            self.residency.arrived(self.by_name.values())

    def load_state(self, state: Mapping[str, Any], *, strict: bool, assign: bool) -> Any:
        """Copy values into the adapters; all or nothing."""
        self.forget_copies()
        changed = tuple(self.tree.key_of(name) for name in state)
        reloads = {
            adapter: adapter.reload
            for adapter in self.by_name.values()
            if any(
                key.startswith((*adapter.resident.parameters, *adapter.resident.replacements))
                for key in changed
            )
        }
        try:
            for adapter in reloads:
                adapter.reload = None  # its files no longer hold its values
            return adapter_state.load(self.tree, state, strict=strict, assign=assign)
        except BaseException:
            for adapter, reload in reloads.items():
                adapter.reload = reload
            raise


def unknown(
    kind: str, name: str, known: Collection[str], *, of: str = "", hint: str | None = None
) -> RoutingError:
    """The error for a name that is not one of ``known``."""
    return RoutingError(
        codes.ADAPTER_UNKNOWN.finding(
            f"Unknown {kind} {name!r}{of}",
            found=name,
            expected=", ".join(known) or "none is attached",
            hint=did_you_mean(name, known) or hint,
        )
    )


_TAKEN_BY_COMPOSITION = (
    "Choose another name. To change the composition of this name, use `set_adapter_weights`, or "
    "delete it first with `delete_composition`."
)


def _in_use(name: str, compositions: Sequence[str]) -> Finding:
    """The finding for an adapter that cannot be deleted yet."""
    plural = len(compositions) > 1
    names = ", ".join(map(repr, compositions))
    return codes.ADAPTER_IN_USE.finding(
        f"The composition{'s' if plural else ''} {names} use{'' if plural else 's'} {name!r}",
        hint=f"Delete {'them' if plural else 'it'} first with `delete_composition`.",
    )
