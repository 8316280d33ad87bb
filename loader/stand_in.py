"""Passing for the base: its attributes and methods, and a module's own ways of being handled."""

from __future__ import annotations

import functools
import types
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from torch import nn

from ..manifests.codes import loader as codes
from ..manifests.codes.code import Code
from ..manifests.errors import AttachError
from . import adapter_state

if TYPE_CHECKING:
    from typing_extensions import Self

_BASE_ONLY = frozenset(
    {
        "enable_peft_hotswap",
        "get_adapter_state_dict",
        "init_weights",
        "push_to_hub",
        "resize_token_embeddings",
        "set_input_embeddings",
        "set_output_embeddings",
    }
)
"""Methods of a transformers model that would leave the adapters out, or pull the modules away
from under them."""


class StandIn(nn.Module):
    """A module that stands in for ``_base``, which is its child ``base_model``.

    What it lacks is the base's: attributes are read from there (and set there, where the base
    has them), methods run through :meth:`_run_on_base`. Its state is its own and not the base's.
    It is not copied, pickled or replicated.
    """

    _base: nn.Module

    @abstractmethod
    def _run_on_base(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The base's method ``name``, with the active adapters."""

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The adapters' tensors by PEFT's live names; nothing of the base."""
        return adapter_state.collect(self, *args, **kwargs)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Copy values into the attached adapters; all of them or none.

        Raises :class:`AttachError` for missing and unknown keys (unless not ``strict``) and for
        other shapes. ``assign`` is refused: sites hold the tensors that are there.
        """
        return adapter_state.load(self, state_dict, strict=strict, assign=assign)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or convert base and adapters; the base's own ``to`` has the first word."""
        self._base.to(*args, **kwargs)
        return super().to(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            base = self.__dict__.get("_base")
            private = name.startswith("_") and not hasattr(type(base), name)
            if base is None or private or name.startswith("__"):
                raise
        value = getattr(base, name)
        if isinstance(value, types.MethodType) and value.__self__ is base:
            return self._delegate(name, value)
        return value

    def _delegate(self, name: str, method: types.MethodType) -> Callable[..., Any]:
        if name in _BASE_ONLY:

            @functools.wraps(method)
            def refuse(*_: Any, **__: Any) -> NoReturn:
                raise refusal(codes.NOT_THROUGH_WRAPPER, f"{name}() leaves the adapters out")

            return refuse

        @functools.wraps(method)
        def run(*args: Any, **kwargs: Any) -> Any:
            return self._run_on_base(name, args, kwargs)

        return run

    def __setattr__(self, name: str, value: Any) -> None:
        base = self.__dict__.get("_base")
        own = base is None or name in self.__dict__ or hasattr(type(self), name)
        if not own and not name.startswith("_") and hasattr(base, name):
            setattr(base, name, value)  # model.generation_config = ...: the base reads it
        else:
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._base)})

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        raise refusal(codes.COPY_REFUSED, "an adapted model cannot be deep-copied")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise refusal(codes.COPY_REFUSED, "an adapted model cannot be copied or pickled")

    def _replicate_for_data_parallel(self) -> NoReturn:
        raise refusal(codes.COPY_REFUSED, "an adapted model cannot be replicated by DataParallel")


def refusal(code: Code, message: str) -> AttachError:
    return AttachError(code.finding(message))
