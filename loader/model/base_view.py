"""A view of the base, on which the base's own methods run with adapters.

The base's ``generate`` calls ``self(...)``. On a view, that call goes to the wrapper, while a
user's direct call of the base (for example in a logits processor) does not. The view is an object
of a subclass of the base's class and shares the base's ``__dict__``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

from torch import nn

Enter = Callable[[tuple[Any, ...], dict[str, Any]], Any]


def view_of(base: nn.Module, enter: Enter) -> nn.Module:
    """A view of ``base`` whose calls go to ``enter(args, kwargs)``."""
    kind = _view_class(type(base))
    view = object.__new__(kind)
    object.__setattr__(view, "__dict__", base.__dict__)
    object.__setattr__(view, "_adapterdock_enter", enter)
    return cast(nn.Module, view)


@functools.cache
def _view_class(base: type[nn.Module]) -> type[Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._adapterdock_enter(args, kwargs)

    return type(
        base.__name__,
        (base,),
        {
            "__slots__": ("_adapterdock_enter",),
            "__module__": base.__module__,
            "__qualname__": base.__qualname__,
            "__call__": call,
        },
    )
