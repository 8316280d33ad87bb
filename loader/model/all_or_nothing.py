"""A change of an adapted model that is made whole, or not at all, whatever interrupts it.

An exchange of adapters touches many dictionaries: names, sites, hooks, compositions, the default.
``KeyboardInterrupt`` and ``MemoryError`` may come at any line of it. So what a change touches is
written down before its first step, and put back if it does not come to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from ..adapter.memory import returned
from ..sites.refill import reorder
from .stand_in import StandIn

_SAID = (
    "_compositions",
    "_recipes",
    "_selected",
    "_default",
    "_default_before_merge",
    "_rules",
    "_disabled",
    "_detached",
    "_exchanging",
    "_compiled",
    "_merge",
    "_deployment",
)
"""What a model says of its adapters. Each is given another value and never changed in place."""

_OF_ITS_USE = frozenset({"used", "unfired", "loading", "serial"})
"""Fields of an adapter that calls write, or that stay for ever."""


class AllOrNothing:
    """``with lock, AllOrNothing(model) as change:`` undoes what the block did if it raises.

    The attachments' lock must be held. Weights of the base are put back where :meth:`keep` was
    told of them before they changed. Blocks nest: an outer one undoes what inner ones did.
    """

    def __init__(self, model: StandIn) -> None:
        self._undo = ExitStack()
        self._model = model

    def __enter__(self) -> AllOrNothing:
        self._undo.callback(_as_it_is(self._model))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._undo.close()

    def keep(self, undo: Callable[[], None]) -> None:
        """Have ``undo`` called before all that was kept earlier, if the change does not end."""
        self._undo.callback(undo)


def _as_it_is(model: StandIn) -> Callable[[], None]:
    """How to make the model what it is now."""
    said = {key: model.__dict__[key] for key in _SAID if key in model.__dict__}
    tree = model._tree  # pyright: ignore[reportPrivateUsage]
    parameters, modules = dict(tree.held_parameters), dict(tree.held_modules)
    residency = model.__dict__["_residency"]
    budget, here = residency.as_it_is()
    attachments = model.__dict__["_attachments"]
    sites = attachments.as_it_is()
    adapters = {
        adapter: {key: value for key, value in vars(adapter).items() if key not in _OF_ITS_USE}
        for adapter in attachments.adapters.values()
    }

    def put_back() -> None:
        for adapter, fields in adapters.items():
            if fields["loaded"]:
                returned(adapter)
            vars(adapter).update(fields)
        sites()
        tree.restore(adapters)
        reorder(tree.held_parameters, parameters)
        reorder(tree.held_modules, modules)
        residency.be(budget, here)
        model.__dict__.update(said, _routings={})
        model.__dict__["_gathered"].clear()

    return put_back
