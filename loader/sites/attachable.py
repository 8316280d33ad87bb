"""Whether adapters can be attached to a model."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AttachError
from ...manifests.findings.finding import Finding
from ..base.interception import intercepted
from .sites import RootGuard


def check_attachable(base: Any) -> None:
    """Raise :class:`AttachError` for a wrapped or compiled model, or another kind of object."""
    problems: list[Finding] = []
    if not isinstance(base, nn.Module):
        message = f"A {type(base).__name__} is not an nn.Module"
        hint = "Load the base first, such as with AutoModelForCausalLM.from_pretrained."
        if isinstance(base, str | os.PathLike):
            hint += " Or call `adapterdock.load` with a manifest, which loads it too."
        raise AttachError(codes.MODEL_WRAPPED.finding(message, found=base, hint=hint))
    if hasattr(base, "peft_config") or getattr(base, "_hf_peft_config_loaded", False):
        problems.append(codes.MODEL_WRAPPED.finding("The model contains PEFT adapters"))
    elif any(type(m).__module__.startswith("peft.") for m in base.modules()):
        problems.append(codes.MODEL_WRAPPED.finding("The model contains PEFT's layers"))
    if intercepted(base, RootGuard):
        gc.collect()  # an unreachable wrapper releases its base
    if intercepted(base, RootGuard):
        problems.append(
            codes.MODEL_WRAPPED.finding(
                "Another AdaptedModel uses this base",
                hint="Add the adapter to that model with `load_adapter` or `add_adapter`, or take "
                "the base back with its `detach()`.",
            )
        )
    if problems:
        raise AttachError(*problems)
    check_not_compiled(base, base.modules())


def check_not_compiled(base: nn.Module, modules: Iterable[nn.Module]) -> None:
    """Raise :class:`AttachError` if any of ``modules`` is compiled: it would ignore hooks."""
    compiled = (torch._dynamo.eval_frame.OptimizedModule, torch.jit.ScriptModule)  # pyright: ignore[reportPrivateUsage]
    for module in modules:
        if module.__dict__.get("_compiled_call_impl") or isinstance(module, compiled):
            kind = type(base).__name__
            raise AttachError(codes.MODEL_COMPILED.finding(f"This {kind} is compiled"))
