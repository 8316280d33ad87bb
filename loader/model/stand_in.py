"""A module that can be used like the base: its attributes, methods and state dict."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings.code import Code
from ...manifests.findings.errors import AttachError
from ...manifests.language.names import did_you_mean
from ...registry.upstream_names import instead
from . import state_dict as adapter_state
from .copied import copied_base, copy_adapters
from .host import AdapterHost
from .parameter_tree import ROOT

if TYPE_CHECKING:
    from typing_extensions import Self

_ON_BASE = "To change the base alone, call it on `model.base_model` before you attach adapters."
_BASE_ONLY: Mapping[str, str] = {
    "enable_peft_hotswap": "Use `load_adapter(source, name, hotswap=True)`: it takes any rank, and "
    "does not compile again after `model.compile(max_rank=...)`.",
    "get_adapter_state_dict": "Use `adapterdock.get_peft_model_state_dict(model, name)`, or "
    "`model.save_adapter(folder, name)` to write one adapter.",
    "init_weights": _ON_BASE,
    "resize_token_embeddings": _ON_BASE,
    "set_input_embeddings": _ON_BASE,
    "set_output_embeddings": _ON_BASE,
}
"""Methods of a transformers model that would ignore the adapters or replace their modules, and what
to do instead."""


_OF_PEFT = ("peft_config", "active_peft_config")
_NEEDS_PEFT = "It needs PEFT: install `adapterdock[peft]`, or use `model.adapters`"
_NAMED = ("_modules", "_parameters", "_buffers")
"""A module's dictionaries by name, of which the wrapper has some entries of its own."""


class StandIn(nn.Module):
    """A module that can be used like a base, which is its child ``base_model``.

    Attributes that it lacks are the base's (they are also set there), and the base's methods run
    with the active adapters. Its state dict has the adapters, not the base. ``copy.deepcopy`` makes
    an independent copy of base and adapters; it cannot be pickled or replicated.
    """

    _base: nn.Module
    _host: AdapterHost

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        host = AdapterHost(base)
        self.__dict__.update(_base=base, _host=host)
        self._modules.update({"base_model": base, ROOT: host.adapters.tree})
        self.training = host.adapters.tree.training = base.training

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The adapters' tensors, without the base.

        Args:
            *args: ``destination``, ``prefix`` and ``keep_vars``, as for ``nn.Module.state_dict``.
            **kwargs: The same by name.

        Returns:
            Tensors by PEFT's live names, such as
            ``base_model.model.<module>.lora_A.<adapter>.weight``.
        """
        return adapter_state.collect(self._host.adapters.tree, *args, **kwargs)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Copy values into the attached adapters; all or nothing.

        Args:
            state_dict: Tensors by PEFT's live names, or by the names of ``named_parameters``.
            strict: Whether missing and unknown keys are errors.
            assign: Must be ``False``: values are copied, the adapters keep their tensors.

        Returns:
            ``missing_keys`` and ``unexpected_keys``, as ``nn.Module.load_state_dict``.

        Raises:
            AttachError: Missing or unknown keys, or a tensor of another shape.
        """
        return self._host.adapters.load_state(state_dict, strict=strict, assign=assign)

    def get_parameter(self, target: str) -> nn.Parameter:
        """The parameter with this name in ``named_parameters`` or in ``state_dict``."""
        found = self._host.adapters.tree.find(target)
        return found if isinstance(found, nn.Parameter) else super().get_parameter(target)

    def get_submodule(self, target: str) -> nn.Module:
        """The module with this name in ``named_modules``, or PEFT's name of a replacement."""
        found = self._host.adapters.tree.find(target)
        return found if isinstance(found, nn.Module) else super().get_submodule(target)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or convert the base and its adapters.

        Args:
            *args: As for ``nn.Module.to``. The base's own ``to`` runs first, and may refuse.
            **kwargs: The same by name.

        Returns:
            This model.
        """
        self._base.to(*args, **kwargs)
        return super().to(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._host.adapters.forget_copies()
        found = super()._apply(*args, **kwargs)
        self._host.adapters.measure()
        return found

    if TYPE_CHECKING:
        # torch declares that a module has every attribute; this lets type checkers find typos
        __getattr__: None  # pyright: ignore[reportIncompatibleMethodOverride]
    else:

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                base = self.__dict__.get("_base")
                private = name.startswith("_") and not hasattr(type(base), name)
                if base is None or private or name.startswith("__"):
                    raise
            try:
                value = getattr(base, name)
            except AttributeError as error:
                raise self._misspelt(name, error) from None
            if isinstance(value, types.MethodType) and value.__self__ is base:
                return self._delegate(name, value)
            return value

    def _misspelt(self, name: str, error: AttributeError) -> AttributeError:
        """The base's error, with what to use in place of a name of PEFT's, or the most similar
        public name."""
        if (ours := _NEEDS_PEFT if name in _OF_PEFT else instead(name)) is not None:
            return AttributeError(f"{error}. {ours}")
        public = {known for known in dir(self) if not known.startswith("_")}
        hint = None if name in public else did_you_mean(name, public)
        return error if hint is None else AttributeError(f"{error}. {hint}")

    def _delegate(self, name: str, method: types.MethodType) -> Callable[..., Any]:
        if name in _BASE_ONLY:

            @functools.wraps(method)
            def refuse(*_: Any, **__: Any) -> NoReturn:
                message = f"{name}() of the base ignores the adapters"
                raise refusal(codes.NOT_THROUGH_WRAPPER, message, _BASE_ONLY[name])

            return refuse

        @functools.wraps(method)
        def run(*args: Any, **kwargs: Any) -> Any:
            return self._host.calls.of_base(name, args, kwargs)

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

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        adapters = self._host.adapters
        with adapters.changing(), adapters.lock:  # new calls wait
            made = object.__new__(type(self))
            memo[id(self)] = made
            nn.Module.__init__(made)  # the base may lead back to the wrapper
            StandIn.__init__(made, copied_base(self._host, memo))
            copy_adapters(made._host, self._host, memo)
            for name, value in vars(self).items():
                if name in _NAMED:
                    known = vars(made)[name]
                    known |= {n: copy.deepcopy(v, memo) for n, v in value.items() if n not in known}
                elif name not in ("_base", "_host"):
                    vars(made)[name] = copy.deepcopy(value, memo)
            return made

    def __copy__(self) -> NoReturn:
        message = "A shallow copy of an adapted model would share its adapters"
        raise refusal(codes.COPY_REFUSED, message, "Use `copy.deepcopy(model)`.")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise refusal(codes.COPY_REFUSED, "An adapted model cannot be pickled")

    def _replicate_for_data_parallel(self) -> NoReturn:
        raise refusal(codes.COPY_REFUSED, "DataParallel cannot replicate an adapted model")


def refusal(code: Code, message: str, hint: str | None = None) -> AttachError:
    return AttachError(code.finding(message, hint=hint))


def host_of(model: StandIn) -> AdapterHost:
    """The parts of a model, for functions that change it. Raises :class:`AttachError` for any other
    model."""
    host = getattr(model, "_host", None)  # torch.compile's wrapper has it too
    if isinstance(host, AdapterHost):
        return host
    raise refusal(
        codes.NOT_THROUGH_WRAPPER,
        f"A {type(model).__name__} is not an AdaptedModel",
        "Pass an AdaptedModel: `AdaptedModel(base)`, or `.module` of a wrapper around one. For a "
        "model of PEFT's, call PEFT's own function.",
    )
