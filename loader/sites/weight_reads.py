"""Parameters that a model reads outside of the module that holds them.

A head may multiply with ``embeddings.weight`` and never call the embedding. In PEFT (0.21,
``utils/other.py``, ``ModulesToSaveWrapper`` and ``TrainableTokensWrapper``) a wrapper returns the
active adapter's tensor for such a read. Here the base is not wrapped: the module keeps its
parameters, and the dictionary that holds them returns the tensor for the running call. Code that
lists the parameters (``state_dict``, ``named_parameters``), other threads and direct calls of the
base get the base's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ...manifests.language.weights import Weight, weight_at
from ..adapter.adapter import Adapter
from ..routing.routing import CURRENT, Call
from ..weights.placement import own_parameter
from .sites import InterceptingSite, note_use

Read = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
"""``read(own, now, weight)``: an adapter's change of ``now``; the base has ``own``."""

_RUNNING: ContextVar[tuple[object, ...]] = ContextVar("adapterdock_running", default=())


class ReadSite(InterceptingSite[Mapping[str, Read]]):
    """One module whose parameters are the active adapter's where they are read outside of its own
    forward. Inside, and for ``placement.own_parameter``, they are the base's: there the other
    sites act."""

    __slots__ = ("_places",)

    def __init__(self, owner: object, name: str, module: nn.Module) -> None:
        super().__init__(owner, name, module)
        self._places: list[nn.Module] = []

    def install(self) -> None:
        super().install()
        for path, part in self.module.named_modules():
            if part._parameters:  # pyright: ignore[reportPrivateUsage]
                if part not in self._places:
                    self._places.append(part)
                _Parameters.of(part).answer(self, f"{path}." if path else "")

    def remove(self) -> None:
        super().remove()
        for part in self._places:
            _Parameters.of(part).leave(self, part)
        self._places = []

    def __call__(
        self, inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        token = _RUNNING.set((*_RUNNING.get(), self))
        try:
            return inner(*args, **kwargs)
        finally:
            _RUNNING.reset(token)

    def read(self, path: str, own: torch.Tensor) -> torch.Tensor:
        """The parameter at ``path`` for the call that runs in this thread."""
        call = CURRENT.get()
        if call is None or call.owner is not self.owner or call.probe is not None:
            return own
        if self in _RUNNING.get():
            return own
        terms = self._acting(call.terms, path)
        if not terms:
            return own
        if call.rows is not None:
            each = [self._acting(row, path) for row in call.rows.terms]
            if any(one != each[0] for one in each):
                return _OfNoRow.of(own, self.name)
            terms = each[0]
        return self._changed(call, terms, path, own)

    def _acting(
        self, terms: tuple[tuple[Adapter, Weight], ...], path: str
    ) -> list[tuple[Adapter, float]]:
        known = [(a, weight_at(w, self.name)) for a, w in terms if path in self.factors.get(a, ())]
        return [(adapter, weight) for adapter, weight in known if weight]

    def _changed(
        self, call: Call, terms: list[tuple[Adapter, float]], path: str, own: torch.Tensor
    ) -> torch.Tensor:
        note_use(call, self.name, (adapter for adapter, _ in terms))
        now = own
        for adapter, weight in terms:
            now = self.factors[adapter][path](own, now, weight)
        as_own = own.is_meta or (now.dtype is own.dtype and now.device == own.device)
        return now if as_own else now.to(own)


class _Parameters(dict[str, Any]):
    """A module's ``_parameters``, in which access by name is answered by sites: its own, and those
    of the modules around it."""

    def __init__(self, own: dict[str, Any]) -> None:
        super().__init__(own)
        self._own = own
        self._sites: tuple[tuple[ReadSite, str], ...] = ()

    @classmethod
    def of(cls, part: nn.Module) -> _Parameters:
        """Those of this module, in place of its plain dictionary."""
        now = part._parameters  # pyright: ignore[reportPrivateUsage]
        if type(now) is not cls:
            now = vars(part)["_parameters"] = cls(now)
        return now

    def answer(self, site: ReadSite, prefix: str) -> None:
        if not any(one is site for one, _ in self._sites):
            self._sites = (*self._sites, (site, prefix))

    def leave(self, site: ReadSite, part: nn.Module) -> None:
        """Remove a site; with the last one, ``part`` gets its own dictionary back."""
        self._sites = tuple(one for one in self._sites if one[0] is not site)
        if not self._sites:
            self._own.clear()
            self._own.update(self)  # the base may have new parameters by now
            vars(part)["_parameters"] = self._own

    def __getitem__(self, name: str) -> Any:
        own: Any = super().__getitem__(name)
        if own is None:
            return None
        for site, prefix in self._sites:
            found = site.read(prefix + name, own)
            if found is not own:
                return found
        return own

    def __reduce_ex__(self, protocol: Any) -> Any:
        return dict, (dict(self),)  # a copy of the base is not adapted

    def copy(self) -> dict[str, Any]:
        return dict(self)


class _OfNoRow(torch.Tensor):
    """A parameter that differs between rows of the batch: its dtype and sizes can be read, and
    computing with it raises."""

    read_of: str

    @classmethod
    def of(cls, own: torch.Tensor, name: str) -> _OfNoRow:
        found = own.detach().as_subclass(cls)
        found.read_of = name
        return found

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        asked = getattr(getattr(func, "__self__", None), "__name__", func.__name__)
        if asked in FACTS:
            return super().__torch_function__(func, types, args, kwargs or {})
        name = next((one.read_of for one in args if isinstance(one, cls)), "a module")
        raise RoutingError(
            codes.ROWS_LOST.finding(f"The weight of {name} is read for all rows at once")
        )


FACTS = frozenset(
    {
        *("dtype", "device", "layout", "shape", "size", "dim", "ndim", "numel", "stride"),
        *("is_meta", "is_cuda", "is_cpu", "is_floating_point", "is_quantized", "is_complex"),
        *("requires_grad", "is_leaf", "element_size", "itemsize", "__len__"),
    }
)
"""Attributes and methods of a tensor that do not need its values."""


def reads_of_replacement(replacement: nn.Module) -> Mapping[str, Read]:
    """The parameters of a module's replacement, by their paths under it."""
    found: dict[str, Read] = {}
    for path, part in replacement.named_modules():
        for name in part._parameters:  # pyright: ignore[reportPrivateUsage]
            found[f"{path}.{name}" if path else name] = _instead(part, name)
    return found


def _instead(part: nn.Module, name: str) -> Read:
    def read(own: torch.Tensor, now: torch.Tensor, weight: float) -> torch.Tensor:
        found = own_parameter(part, name)
        return now if found is None else found

    return read
