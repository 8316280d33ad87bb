"""An instance-level ``forward`` in front of a module's own, put there and taken away exactly.

Used where an output hook is too late: a whole module that is replaced must not run (the base's
could raise for new token ids, or change state), and float32 modules need other inputs. accelerate
works in the same way, and may have been there before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

Around = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""``around(inner, args, kwargs)``: what runs instead; it may call ``inner``."""


class Interception:
    """What stands in ``module.__dict__['forward']``.

    A deep copy or a pickle of the module holds the module's own forward instead, for the copy is
    not ours; unless ``travels``, for what belongs to the module itself.
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
        """Whether it stands in front of its module's forward, and is to stay there."""
        self.__wrapped__ = inner  # inspect.signature looks here

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.around(self.inner, args, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        inner = copy.deepcopy(self.inner, memo)
        return Interception(inner, self.around, self.natural, True) if self.travels else inner

    def __reduce__(self) -> Any:
        if self.travels:
            return Interception, (self.inner, self.around, self.natural, True)
        return _same, (self.inner,)


def intercept(module: nn.Module, around: Around, *, travels: bool = False) -> Interception:
    """Put ``around`` in front of ``module``'s forward."""
    interception = intercepting(module, around, travels=travels)
    place(module, interception)
    return interception


def intercepting(module: nn.Module, around: Around, *, travels: bool = False) -> Interception:
    """What :func:`place` puts there."""
    natural = "forward" not in module.__dict__
    return Interception(module.forward, around, natural, travels)


def place(module: nn.Module, interception: Interception) -> None:
    """Put it in front."""
    module.__dict__["forward"] = interception
    interception.placed = True


def release(module: nn.Module, interception: Interception) -> None:
    """Take it away again, wherever in the chain of forwards it is by now; does nothing where it is
    away already."""
    interception.placed = False
    own = module.__dict__
    inner: Any = interception.inner
    if own.get("forward") is interception:
        if interception.natural:
            del own["forward"]
        else:
            own["forward"] = inner
        return
    # something came to stand in front of it (accelerate keeps what it found in _old_forward)
    if own.get("_old_forward") is interception:
        own["_old_forward"] = inner
        return
    for place in ("forward", "_old_forward"):
        outer = own.get(place)
        while isinstance(outer, Interception):
            if outer.inner is interception:
                outer.natural = interception.natural  # first: until the next line it is found again
                outer.inner = outer.__wrapped__ = inner
                return
            outer = outer.inner
    interception.around = _through


def interception_of(module: nn.Module, by: type[Any]) -> Interception | None:
    """The interception in the chain whose ``around`` is an object of this type, if there is one."""
    forward = module.__dict__.get("forward")
    while isinstance(forward, Interception):
        if isinstance(forward.around, by):
            return forward
        forward = forward.inner
    return None


def intercepted(module: nn.Module, by: type[Any]) -> bool:
    """Whether an interception whose ``around`` is an object of this type is in the chain."""
    return interception_of(module, by) is not None


def _through(inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return inner(*args, **kwargs)


def _same(forward: Any) -> Any:
    return forward
