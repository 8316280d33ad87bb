"""Which adapters are active: a frozen routing, resolved once per call and seen by the sites.

A site asks :data:`CURRENT`, which only the wrapper sets and only for the time of a call. So the
base's modules are inert unless they are entered through the wrapper, and threads (and asyncio
tasks) do not see one another's routing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import nn

from ...manifests.language.weights import Weight
from ..adapter.adapter import Adapter
from .activation import Activation
from .batched import RowFactors, RowSite
from .probe import Probe

Chosen = object
"""What a user passes: a name, a list of names, {name: weight}, or ``None`` for the base."""


class BatchRows(Protocol):
    """The rows of a batch that have routings of their own."""

    @property
    def routings(self) -> tuple[Routing, ...]: ...

    def factors(self, site: RowSite) -> RowFactors | None:
        """What the rows' adapters hold at ``site``."""

    def of(self, rows: Sequence[int]) -> BatchRows:
        """These rows alone."""
        ...

    def replacements(self, factors: Mapping[Adapter, nn.Module]) -> list[nn.Module | None]:
        """For each row the module that runs in place of the base's, if any."""
        ...

    def enter(
        self, owner: object, base: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> int:
        """How often each row stands in a batch that the base is given now."""
        ...

    def check_site(self, name: str, module: nn.Module, x: torch.Tensor, repeat: int) -> None:
        """Raise where the rows of ``x`` are not known to be those of the batch."""


@dataclass(frozen=True, eq=False)
class Routing:
    """The adapters of a call, in order, each with its weight (never 0). Empty: the base alone."""

    terms: tuple[tuple[Adapter, Weight], ...] = ()
    rows: BatchRows | None = None
    """Where the rows of the batch have routings of their own: ``terms`` are then all of theirs."""

    @property
    def weights(self) -> Mapping[str, Weight]:
        return {adapter.name: weight for adapter, weight in self.terms}


BASE = Routing()


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """One call on its way through a model.

    ``owner`` tells whose call it is (sites of another wrapper do not answer to it).
    ``inside`` is true from the moment the base's own forward is entered on the wrapper's behalf;
    between two such moments (in ``generate``) a direct call of the base is the base's own.
    ``carried`` is true in the parts that gradient checkpointing will run again with this call.
    """

    owner: object
    terms: tuple[tuple[Adapter, Weight], ...]
    inside: bool = True
    gradients: bool = False
    carried: bool = False
    rows: BatchRows | None = None
    repeat: int = 1
    """How often each of the rows stands in the batch, in place."""
    probe: Probe | None = None
    """What notes what the sites see, in a call that asks for it."""
    activation: Activation | None = None
    """Where aLoRAs among the adapters begin to act."""


CURRENT: ContextVar[Call | None] = ContextVar("adapterdock_call", default=None)

_Choices = tuple[tuple[object, Chosen], ...]
_CHOSEN: ContextVar[_Choices] = ContextVar("adapterdock_using", default=())


def chosen(owner: object, otherwise: Chosen) -> Chosen:
    """What the innermost ``using`` around this code says for ``owner``'s model."""
    for whose, selection in reversed(_CHOSEN.get()):
        if whose is owner:
            return selection
    return otherwise


@dataclass
class Using:
    """``with Using(owner, selection):`` makes it what ``owner``'s wrapper uses in this context.

    By its names: an adapter that is replaced meanwhile is the new one from the next call on. May
    be entered again, and nested; a thread that is started inside does not inherit it.
    """

    owner: object
    selection: Chosen
    _tokens: list[Token[_Choices]] = field(default_factory=list)

    def __enter__(self) -> None:
        self._tokens.append(_CHOSEN.set((*_CHOSEN.get(), (self.owner, self.selection))))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _CHOSEN.reset(self._tokens.pop())


def run_with(
    call: Call | None, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """``function(*args, **kwargs)`` with ``call`` as the current one."""
    token = CURRENT.set(call)
    try:
        return function(*args, **kwargs)
    finally:
        CURRENT.reset(token)
