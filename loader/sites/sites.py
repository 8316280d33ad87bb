"""Sites: the places in a base where adapters act, each with ``{adapter: factors}``.

They do not appear in the base's names, types or ``state_dict``: an output site is a forward hook,
the others are an instance-level ``forward``. Both are removed with their last adapter.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointFunction
from torch.utils.hooks import RemovableHandle

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ...manifests.language.weights import weight_at
from ..adapter.adapter import Adapter
from ..adapter.factors import Factors
from ..base.float32 import answers_in, run_in
from ..base.interception import Interception, intercepting, itself, place, release
from ..routing.batched import rows_at
from ..routing.kv_cache import check_cache, mark_cache
from ..routing.routing import CURRENT, Call, run_with
from ..routing.rows import Rows
from ..weights.placement import compute_dtype
from .slot import Slot

T = TypeVar("T")
"""What an adapter has at a site."""


class OutputSite:
    """Adds to a module's output. The hook is this object itself."""

    __slots__ = ("_handle", "factors", "module", "name", "owner", "slot")

    def __init__(self, owner: object, name: str, module: nn.Module) -> None:
        self.owner = owner
        self.name = name
        self.module = module
        self.factors: dict[Adapter, tuple[Factors, ...]] = {}
        self.slot: Slot | None = None
        """In a compiled base: the buffers that the graph reads instead of the factors."""
        self._handle: RemovableHandle | None = None

    def install(self) -> None:
        if not self.installed:
            self._handle = self.module.register_forward_hook(self, with_kwargs=True)

    @property
    def installed(self) -> bool:
        hooks = self.module._forward_hooks  # pyright: ignore[reportPrivateUsage]
        return self._handle is not None and self._handle.id in hooks

    def remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        if self.slot is not None and torch.compiler.is_compiling():
            return self.slot.add(args[0] if args else next(iter(kwargs.values())), output)
        call = CURRENT.get()
        if call is None or call.owner is not self.owner:
            return None
        if call.rows is not None:
            return self._by_rows(call, call.rows, args, kwargs, output)
        if call.probe is not None:
            call.probe.see(self.name, args[0] if args else next(iter(kwargs.values()), None))
            return None
        x = base = result = None
        for adapter, weight in call.terms:
            factors = self.factors.get(adapter)
            if factors is None:
                continue
            if x is None or base is None or result is None:
                x, base = self._tensors(args, kwargs, output)
                result = base
                if call.gradients and not call.carried and not torch.is_grad_enabled():
                    refuse_lost_routing(self.name)
            if adapter.unfired:
                adapter.unfired.discard(self.name)
            if type(weight) is not float:
                weight = weight_at(weight, self.name)
                if not weight:
                    continue
            for one in factors:
                result = one.add(module, x, base, result, weight)
        if result is None or result.dtype is output.dtype:
            return result
        return result.to(output.dtype)

    def _by_rows(
        self,
        call: Call,
        rows: Rows,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,
    ) -> torch.Tensor | None:
        factors = rows.factors(self)
        if factors is None:
            return None
        x, base = self._tensors(args, kwargs, output)
        rows.check_site(self.name, self.module, x, call.repeat)
        note_use(call, self.name, factors.adapters)
        return factors.add(self.module, x, base, call.repeat).to(output.dtype)

    def _tensors(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(x, torch.Tensor) and isinstance(output, torch.Tensor):
            return x, output
        raise RoutingError(
            codes.OUTPUT_NOT_TENSOR.finding(
                f"{self.name} takes {type(x).__name__} and returns {type(output).__name__}",
                expected="a tensor each",
            )
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return _inert  # a copy of the base is not adapted

    def __reduce__(self) -> Any:
        return itself, (_inert,)


class Intercepting(ABC):
    """Runs in place of a module's forward, for one wrapper."""

    __slots__ = ("_interception", "module", "owner")

    def __init__(self, owner: object, module: nn.Module) -> None:
        self.owner = owner
        self.module = module
        self._interception: Interception | None = None

    def install(self) -> None:
        if not self.installed:
            self.remove()  # it may have been interrupted before
            self._interception = intercepting(self.module, self)
            place(self.module, self._interception)

    @property
    def installed(self) -> bool:
        return self._interception is not None and self._interception.placed

    @property
    def inner(self) -> Callable[..., Any]:
        """The forward behind it."""
        assert self._interception is not None
        return self._interception.inner

    def remove(self) -> None:
        if self._interception is not None:
            release(self.module, self._interception)

    @abstractmethod
    def __call__(
        self, inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any: ...


class InterceptingSite(Intercepting, Generic[T]):
    """A site that runs in place of its module's forward."""

    __slots__ = ("factors", "name")

    def __init__(self, owner: object, name: str, module: nn.Module) -> None:
        super().__init__(owner, module)
        self.name = name
        self.factors: dict[Adapter, T] = {}


class ModuleSite(InterceptingSite[nn.Module]):
    """Runs an adapter's replacement in place of the base's module, inside the same ``__call__``:
    hooks on the base's module run as usual, its forward does not."""

    __slots__ = ()

    def __call__(
        self, inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        call = CURRENT.get()
        if call is None or call.owner is not self.owner:
            return inner(*args, **kwargs)
        if call.rows is not None:
            return self._by_rows(call, call.rows, inner, args, kwargs)
        if call.probe is not None:
            call.probe.see(self.name, args[0] if len(args) == 1 and not kwargs else None)
            return inner(*args, **kwargs)
        for adapter, _ in call.terms:
            replacement = self.factors.get(adapter)
            if replacement is not None:
                note_use(call, self.name, (adapter,))
                return self._run(replacement, args, kwargs)
        return inner(*args, **kwargs)

    def _run(self, replacement: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if replacement.training is not self.module.training:
            replacement.train(self.module.training)
        inside = compute_dtype(replacement, replacement)
        outside = answers_in(self.module, args, kwargs) or compute_dtype(self.module, replacement)
        if inside is not outside:  # float32 while training, or as declared
            return run_in(inside, outside, replacement.forward, args, kwargs)
        return replacement.forward(*args, **kwargs)

    def _by_rows(
        self,
        call: Call,
        rows: Rows,
        inner: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run each module once, on its own rows."""
        replacements = rows.replacements(self.factors)
        if not any(replacements):
            return inner(*args, **kwargs)
        if len(args) != 1 or kwargs or not isinstance(args[0], torch.Tensor):
            raise RoutingError(codes.ROWS_LOST.finding(f"{self.name} takes more than one tensor"))
        x = args[0]
        rows.check_site(self.name, self.module, x, call.repeat)
        used = [a for a, _ in call.terms if self.factors.get(a) in replacements]
        note_use(call, self.name, used)
        parts: list[tuple[torch.Tensor, torch.Tensor]] = []
        for new in dict.fromkeys(replacements):
            at = rows_at([n for n, t in enumerate(replacements) if t is new], call.repeat, x.device)
            mine = x.index_select(0, at)
            found: Any = inner(mine) if new is None else self._run(new, (mine,), {})
            if not isinstance(found, torch.Tensor) or found.shape[:1] != mine.shape[:1]:
                raise RoutingError(  # for example the states of a recurrent module
                    codes.ROWS_LOST.finding(f"{self.name} returns more than the output of its rows")
                )
            parts.append((at, found))
        shapes = {tuple(found.shape[1:]) for _, found in parts}
        if len(shapes) > 1:
            raise RoutingError(
                codes.ROWS_LOST.finding(
                    f"{self.name} returns rows of different shapes: {sorted(shapes)}"
                )
            )
        first = parts[0][1]
        out = first.new_empty(len(x), *first.shape[1:])
        for at, found in parts:
            out = out.index_copy(0, at, found.to(out.dtype))
        return out


class RootGuard(Intercepting):
    """In front of the base's own forward: a direct call of the base runs without adapters, even
    during ``generate`` (for example in a logits processor that compares with the base). It also
    checks and marks key-value caches."""

    __slots__ = ()

    def __call__(
        self, inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        call = CURRENT.get()
        ours = call if call is not None and call.owner is self.owner and call.inside else None
        check_cache(ours, kwargs)
        if ours is None and call is not None and call.owner is self.owner:
            out = run_with(None, inner, args, kwargs)
        else:
            out = inner(*args, **kwargs)
        mark_cache(ours, out)
        return out


def note_use(call: Call, name: str, adapters: Iterable[Adapter]) -> None:
    """Record that adapters act at the site ``name``; raises as :func:`refuse_lost_routing`."""
    if call.gradients and not call.carried and not torch.is_grad_enabled():
        refuse_lost_routing(name)
    for adapter in adapters:
        if adapter.unfired:
            adapter.unfired.discard(name)


def refuse_lost_routing(name: str) -> None:
    """Raise if this forward runs inside reentrant checkpointing that loses the routing.

    Called where a call that records gradients reaches a part without them: a plain ``no_grad``
    region, which is allowed, or the first run of a part that backward will repeat.
    """
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    code = CheckpointFunction.forward.__code__
    while frame is not None:
        if frame.f_code is code:
            raise RoutingError(
                codes.ROUTING_LOST.finding(
                    f"{name} runs under the model's own reentrant gradient checkpointing"
                )
            )
        frame = frame.f_back


def unadapted(module: nn.Module) -> None:
    """Remove what copying an adapted module has left in the copy: hooks without effect, and the
    class's own forward on the instance."""
    hooks = module._forward_hooks  # pyright: ignore[reportPrivateUsage]
    for key in [key for key, hook in hooks.items() if hook is _inert]:
        del hooks[key]
        module._forward_hooks_with_kwargs.pop(key, None)  # pyright: ignore[reportPrivateUsage]
    forward = module.__dict__.get("forward")
    bound = isinstance(forward, MethodType) and forward.__self__ is module
    if bound and getattr(forward, "__func__", None) is type(module).forward:
        del module.__dict__["forward"]


def _inert(*_: Any) -> None:
    return None
