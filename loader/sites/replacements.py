"""A whole module of an adapter: the base's module again, with the adapter's parameters.

What PEFT keeps in its ``ModulesToSaveWrapper`` (``utils/other.py``). The twin is a deep copy in
which the base's tensors are exchanged for the adapter's *while* copying, so that nothing of the
base is copied and nothing of it is left in the twin.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from ..base.float32 import widen_no_more
from .sites import OutputSite

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def own_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Its parameters and persistent buffers, by their paths under it, each once.

    Of tied ones (a decoder's bias that is the head's) every name is given.
    """
    found: dict[str, torch.Tensor] = dict(module.named_parameters(remove_duplicate=False))
    for path, part in module.named_modules(remove_duplicate=False):
        kept_out = part._non_persistent_buffers_set  # pyright: ignore[reportPrivateUsage]
        for name, buffer in part.named_buffers(recurse=False):
            if name not in kept_out:
                found[f"{path}.{name}" if path else name] = buffer
    return found


def replacement_of(
    module: nn.Module, tensors: Mapping[str, torch.Tensor], *, trainable: bool
) -> nn.Module:
    """A module like ``module`` with ``tensors`` (by path under it) for its own.

    Parameters not among ``tensors`` are shared with the base's module (a head's bias beside a
    saved embedding weight). Hooks and accelerate's machinery stay behind: the twin has its
    weights, and runs inside the base module's ``__call__``.
    """
    memo: dict[int, Any] = {}
    for path, old in own_tensors(module).items():
        memo.setdefault(id(old), _new(old, tensors.get(path), trainable))
    parts = list(module.modules())
    for part in parts:
        for kind in _HOOKS:
            hooks = cast("dict[int, Any]", getattr(part, kind))
            memo[id(hooks)] = OrderedDict(
                (k, h) for k, h in hooks.items() if not isinstance(h, OutputSite)
            )
        hook = part.__dict__.get("_hf_hook")
        if hook is not None:
            memo[id(hook)] = None
            memo[id(part.__dict__.get("forward"))] = None
    replacement = copy.deepcopy(module, memo)
    for part in replacement.modules():
        if "_hf_hook" in part.__dict__:
            for name in ("_hf_hook", "_old_forward", "forward"):
                part.__dict__.pop(name, None)
    widen_no_more(replacement)
    for kind in _HOOKS:  # those at the top run on the base's module
        getattr(replacement, kind).clear()
    _resize(replacement)
    return replacement


def _new(old: torch.Tensor, new: torch.Tensor | None, trainable: bool) -> torch.Tensor:
    if new is None:
        return old
    if isinstance(old, nn.Parameter):
        return nn.Parameter(new, requires_grad=trainable and new.is_floating_point())
    return new


def _resize(replacement: nn.Module) -> None:
    """An embedding, or a head, with more rows than the base's says so."""
    weight = cast("torch.Tensor | None", getattr(replacement, "weight", None))
    if isinstance(replacement, nn.Embedding) and weight is not None:
        replacement.num_embeddings = weight.shape[0]
    elif isinstance(replacement, nn.Linear) and weight is not None:
        replacement.out_features = weight.shape[0]
