"""An instance-level ``forward`` in front of a module's own, which can be removed exactly.

Used where an output hook is too late: a replaced module must not run (it could raise for new token
ids, or change state), and float32 modules need other inputs. accelerate works in the same way, and
may have placed its own first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

Around = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""``around(inner, args, kwargs)`` runs instead of ``inner``, and may call it."""


class Interception:
    """The object in ``module.__dict__['forward']``.

    A deep copy or a pickle of the module has the module's own forward instead, because a copy is
    not adapted. An interception that ``travels`` is copied as well: it belongs to the module.
    """

    def __init__(
        self, inner: Callable[..., Any], around: Around, natural: bool, travels: bool = False
    ) -> None:
        self.inner = inner
        self.around = around
        self.natural = natural
        """Whether ``inner`` came from the class, and not from the instance's dictionary."""
        self.travels = travels
        self.placed = False
        """Whether it is in front of its module's forward, and should stay there."""
        self.__wrapped__ = inner  # inspect.signature looks here

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.around(self.inner, args, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        inner = copy.deepcopy(self.inner, memo)
        return Interception(inner, self.around, self.natural, True) if self.travels else inner

    def __reduce__(self) -> Any:
        if self.travels:
            return Interception, (self.inner, self.around, self.natural, True)
        return itself, (self.inner,)


def intercepting(module: nn.Module, around: Around, *, travels: bool = False) -> Interception:
    """An interception of ``module``'s forward, to be put there by :func:`place`."""
    natural = "forward" not in module.__dict__
    return Interception(module.forward, around, natural, travels)


def place(module: nn.Module, interception: Interception) -> None:
    """Put it in front of the module's forward."""
    module.__dict__["forward"] = interception
    interception.placed = True


def release(module: nn.Module, interception: Interception) -> None:
    """Remove it, wherever in the chain of forwards it is; nothing happens if it was removed."""
    interception.placed = False
    own = module.__dict__
    inner: Any = interception.inner
    if own.get("forward") is interception:
        if interception.natural:
            del own["forward"]
        else:
            own["forward"] = inner
        return
    # something else was put in front of it (accelerate keeps the forward before in _old_forward)
    if own.get("_old_forward") is interception:
        own["_old_forward"] = inner
        return
    for place in ("forward", "_old_forward"):
        outer = own.get(place)
        while isinstance(outer, Interception):
            if outer.inner is interception:
                outer.natural = (
                    interception.natural
                )  # first: if interrupted here, it is found again
                outer.inner = outer.__wrapped__ = inner
                return
            outer = outer.inner
    interception.around = _through


def interception_of(module: nn.Module, by: type[Any]) -> Interception | None:
    """The interception in the chain whose ``around`` is of this type, if there is one."""
    forward = module.__dict__.get("forward")
    while isinstance(forward, Interception):
        if isinstance(forward.around, by):
            return forward
        forward = forward.inner
    return None


def intercepted(module: nn.Module, by: type[Any]) -> bool:
    """Whether an interception whose ``around`` is of this type is in the chain."""
    return interception_of(module, by) is not None


def _through(inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return inner(*args, **kwargs)


def itself(value: Any) -> Any:
    """What unpickling calls where a copy has something else in an object's place."""
    return value
