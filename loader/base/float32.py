"""Modules that stay in float32 inside a half-precision model.

The inputs of such a module are widened, and its outputs cast back to the dtype of the inputs: if a
norm returned float32, the next bfloat16 linear would raise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AttachError
from ...manifests.findings.finding import Finding, Where
from ..weights.dtypes import COMPUTE, HALVES
from .interception import intercepted, intercepting, interception_of, place, release


class InFloat32:
    """Runs a forward in float32 and returns the dtype of the first floating input. Where no input
    is floating (an embedding takes ids), it returns ``own``, the dtype the module was loaded in."""

    def __init__(self, own: torch.dtype) -> None:
        self.own: torch.dtype = own

    def __call__(
        self, inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        back = self.answers_in(args, kwargs)
        if back not in HALVES:
            return inner(*args, **kwargs)
        return run_in(torch.float32, back, inner, args, kwargs)

    def answers_in(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.dtype:
        """The dtype of its output for these inputs."""
        tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)]
        came = [tensor.dtype for tensor in tensors if tensor.dtype in COMPUTE] or [self.own]
        return next((dtype for dtype in came if dtype in HALVES), torch.float32)


def keep_float32(
    model: nn.Module,
    patterns: Sequence[str],
    originals: Mapping[str, torch.Tensor] | None = None,
    where: Where = Where(),  # noqa: B008 - frozen
) -> tuple[str, ...]:
    """Widen the modules whose complete names match one of ``patterns`` (shell globs, case counts),
    with everything inside them, and return their names.

    ``originals`` has the parameters by live name in the checkpoint's precision. Without it the
    live ones are widened, which does not restore the digits that loading rounded off. Called after
    loading and before attaching; a second call changes nothing. Raises :class:`AttachError`, and
    changes nothing, for a pattern without a module and for a module that cannot be widened
    (offloaded or quantised).
    """
    chosen, problems = _choose(model, patterns, where)
    for name, module in chosen.items():
        stuck = [n for n, p in module.named_parameters() if p.is_meta or p.dtype not in COMPUTE]
        if stuck:
            problems.append(
                codes.FLOAT32_NO_MODULE.finding(
                    f"Cannot keep {name} in float32: {stuck[0]} is offloaded or quantised",
                    where,
                )
            )
    if problems:
        raise AttachError(*problems)
    loaded_in = {name: next(module.parameters()).dtype for name, module in chosen.items()}
    for name, module in chosen.items():
        _widen(name, module, originals or {})
        if not intercepted(module, InFloat32):
            place(module, intercepting(module, InFloat32(loaded_in[name]), travels=True))
    return tuple(chosen)


def answers_in(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.dtype | None:
    """The dtype of the module's output for these inputs, where it or a part of it is kept in
    float32; else ``None``."""
    for part in module.modules():
        kept = interception_of(part, InFloat32)
        if kept is not None:
            return cast(InFloat32, kept.around).answers_in(args, kwargs)
    return None


def widen_no_more(module: nn.Module) -> None:
    """Stop the widening of those parts of a copy whose own weights are in half precision."""
    for part in module.modules():
        kept = interception_of(part, InFloat32)
        if kept is not None and any(p.dtype in HALVES for p in part.parameters()):
            release(part, kept)


def _choose(
    model: nn.Module, patterns: Sequence[str], where: Where
) -> tuple[dict[str, nn.Module], list[Finding]]:
    """The outermost matching modules, and a finding for each pattern that matches none."""
    chosen: dict[str, nn.Module] = {}
    matched: set[str] = set()
    for name, module in model.named_modules():
        hits = {pattern for pattern in patterns if name and fnmatchcase(name, pattern)}
        if not hits or next(module.parameters(), None) is None:
            continue
        matched |= hits
        if not any(name.startswith(f"{outer}.") for outer in chosen):
            chosen[name] = module
    chosen |= _tied_to(model, chosen)
    missing = [pattern for pattern in patterns if pattern not in matched]
    return chosen, [
        codes.FLOAT32_NO_MODULE.finding(
            f"{pattern!r} matches no module with parameters", where, found=pattern
        )
        for pattern in missing
    ]


def _tied_to(model: nn.Module, chosen: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Other modules that share a parameter with a chosen one: it is widened for them as well."""
    shared = {id(p) for module in chosen.values() for p in module.parameters()}
    inside = {id(m) for module in chosen.values() for m in module.modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if id(module) not in inside
        and any(id(p) in shared for p in module.parameters(recurse=False))
    }


def _widen(name: str, module: nn.Module, originals: Mapping[str, torch.Tensor]) -> None:
    for path, parameter in module.named_parameters():
        original = originals.get(f"{name}.{path}")
        source = parameter.data if original is None else original.to(parameter.device)
        parameter.data = source.to(torch.float32)
    for buffer in module.buffers():
        if buffer.dtype in HALVES:
            buffer.data = buffer.data.to(torch.float32)


def run_in(
    dtype: torch.dtype,
    back: torch.dtype,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """``function`` with its floating inputs in ``dtype``, and its outputs cast to ``back``."""
    inside = {k: cast_floats(v, dtype) for k, v in kwargs.items()}
    return cast_floats(function(*(cast_floats(v, dtype) for v in args), **inside), back)


def cast_floats(value: Any, dtype: torch.dtype) -> Any:
    """``value`` with its half- and single-precision tensors in ``dtype``, also inside of tuples,
    lists, mappings and transformers' outputs."""
    if isinstance(value, torch.Tensor):
        fits = value.dtype in HALVES or value.dtype is torch.float32
        return value.to(dtype) if fits and value.dtype is not dtype else value
    if type(value) in (tuple, list):
        items = cast("Sequence[Any]", value)
        return type(value)([cast_floats(item, dtype) for item in items])
    if isinstance(value, tuple) and hasattr(value, "_replace"):  # a named one
        named = cast(Any, value)
        return named._replace(**{k: cast_floats(v, dtype) for k, v in named._asdict().items()})
    if isinstance(value, dict):
        parts = cast("dict[Any, Any]", value)
        changed = copy.copy(parts)  # a ModelOutput's keys are its attributes too
        for key, part in parts.items():
            changed[key] = cast_floats(part, dtype)
        return changed
    return value
