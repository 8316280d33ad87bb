"""The active adapters: a frozen routing, resolved once per call and read by the sites.

A site reads :data:`CURRENT`, which only the wrapper sets and only during a call. So the base's
modules run alone unless they are entered through the wrapper, and threads (and asyncio tasks) do
not see one another's routing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any

from ...manifests.findings.errors import RoutingError
from ...manifests.findings.finding import Finding
from ...manifests.language.weights import Weight
from ..adapter.adapter import Terms
from .activation import Activation
from .probe import Probe
from .rows import Rows


@dataclass(frozen=True, eq=False)
class Routing:
    """The adapters of a call, in order, each with its weight (never 0). Empty: the base alone."""

    terms: Terms = ()
    rows: Rows | None = None
    """The rows of the batch, if each has its own routing: ``terms`` are then all of theirs."""

    @property
    def weights(self) -> Mapping[str, Weight]:
        return {adapter.name: weight for adapter, weight in self.terms}


BASE = Routing()


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """One running call of a model.

    ``owner`` identifies the wrapper (sites of another wrapper ignore the call). ``inside`` is true
    while the base's forward runs for the wrapper; otherwise (in ``generate``) a direct call of the
    base is the base's own. ``carried`` is true in the parts that gradient checkpointing will run
    again with this call.
    """

    owner: object
    terms: Terms
    inside: bool = True
    gradients: bool = False
    carried: bool = False
    rows: Rows | None = None
    repeat: int = 1
    """How often each row is in the batch, in a row."""
    probe: Probe | None = None
    """Records what the sites see, in a call that asks for it."""
    activation: Activation | None = None
    """From where aLoRAs among the adapters act."""


CURRENT: ContextVar[Call | None] = ContextVar("adapterdock_call", default=None)

_Choices = tuple[tuple[object, object], ...]
_CHOSEN: ContextVar[_Choices] = ContextVar("adapterdock_using", default=())


def chosen(owner: object, otherwise: object) -> object:
    """The selection of the innermost ``using`` around this code for ``owner``'s model."""
    for whose, selection in reversed(_CHOSEN.get()):
        if whose is owner:
            return selection
    return otherwise


@dataclass
class Using:
    """``with Using(owner, selection):`` sets the selection of ``owner``'s wrapper in this context.

    It holds names: an adapter that is replaced meanwhile is the new one from the next call on. May
    be entered again, and nested; a thread that is started inside does not inherit it.
    """

    owner: object
    selection: object
    _tokens: list[Token[_Choices]] = field(default_factory=list)

    def __enter__(self) -> None:
        self._tokens.append(_CHOSEN.set((*_CHOSEN.get(), (self.owner, self.selection))))

    def __exit__(self, *error: object) -> None:
        _CHOSEN.reset(self._tokens.pop())


def routings_of(
    names: Sequence[str | None], routing: Callable[[str | None], Routing]
) -> tuple[Routing, ...]:
    """The routing of each row's name. Raises :class:`RoutingError` with every unknown name, once
    each."""
    found: list[Routing] = []
    problems: dict[Finding, None] = {}
    for name in names:
        try:
            found.append(routing(name))
        except RoutingError as error:
            problems.update(dict.fromkeys(error.findings))
    if problems:
        raise RoutingError(*problems)
    return tuple(found)


def run_with(
    call: Call | None, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """``function(*args, **kwargs)`` with ``call`` as the current one."""
    token = CURRENT.set(call)
    try:
        return function(*args, **kwargs)
    finally:
        CURRENT.reset(token)
