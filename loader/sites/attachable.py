"""Whether a base can take adapters at all."""

from __future__ import annotations

import gc
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
    """Raise :class:`AttachError` for a model that is not a plain one of its own kind."""
    problems: list[Finding] = []
    if not isinstance(base, nn.Module):
        raise AttachError(
            codes.MODEL_WRAPPED.finding(f"a {type(base).__name__} is no nn.Module", found=base)
        )
    if hasattr(base, "peft_config") or getattr(base, "_hf_peft_config_loaded", False):
        problems.append(codes.MODEL_WRAPPED.finding("PEFT adapters are in this model"))
    elif any(type(m).__module__.startswith("peft.") for m in base.modules()):
        problems.append(codes.MODEL_WRAPPED.finding("PEFT's layers are in this model"))
    if intercepted(base, RootGuard):
        gc.collect()  # one that nobody holds any more lets go
    if intercepted(base, RootGuard):
        problems.append(codes.MODEL_WRAPPED.finding("another AdaptedModel holds this base"))
    if problems:
        raise AttachError(*problems)
    check_not_compiled(base, base.modules())


def check_not_compiled(base: nn.Module, modules: Iterable[nn.Module]) -> None:
    """Raise :class:`AttachError` if any of ``modules`` is compiled: it would not see a hook."""
    compiled = (torch._dynamo.eval_frame.OptimizedModule, torch.jit.ScriptModule)  # pyright: ignore[reportPrivateUsage]
    for module in modules:
        if module.__dict__.get("_compiled_call_impl") or isinstance(module, compiled):
            kind = type(base).__name__
            raise AttachError(codes.MODEL_COMPILED.finding(f"this {kind} is compiled"))
