"""The base as its own methods see it while they run with adapters.

``generate`` is the base's, and calls ``self(...)``; on a view of the base that call comes to the
wrapper, and a user's direct call of the base (from a logits processor, say) does not. The view is
an object of a subclass of the base's class that shares the base's ``__dict__``: same attributes,
same modules, same type checks.
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
