"""A change of an adapted model that is made whole, or not at all, whatever interrupts it.

An exchange of adapters touches many dictionaries: names, sites, hooks, compositions, the default.
``KeyboardInterrupt`` and ``MemoryError`` may come at any line of it. So what a change touches is
written down before its first step, and put back if it does not come to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType


class AllOrNothing:
    """``with lock, AllOrNothing(adapters.as_it_is) as change:`` undoes what the block did if it
    raises. ``as_it_is`` is asked at the start, and gives what puts everything back.

    The attachments' lock must be held. Weights of the base are put back where :meth:`keep` was
    told of them before they changed. Blocks nest: an outer one undoes what inner ones did.
    """

    def __init__(self, as_it_is: Callable[[], Callable[[], None]]) -> None:
        self._undo = ExitStack()
        self._as_it_is = as_it_is

    def __enter__(self) -> AllOrNothing:
        self._undo.callback(self._as_it_is())
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
