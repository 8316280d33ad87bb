"""An adapter's replacement of a module: a copy of the module with the adapter's parameters.

PEFT keeps it in a ``ModulesToSaveWrapper`` (``utils/other.py``). The replacement is a deep copy in
which the base's tensors are exchanged for the adapter's *while* copying, so that no tensor of the
base is copied.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from ..base.float32 import widen_no_more
from ..base.layout import persistent_buffers
from .sites import OutputSite

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def own_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Its parameters and persistent buffers, by their paths under it. A tied one (a decoder's bias
    that is the head's) is listed under every name."""
    found: dict[str, torch.Tensor] = dict(module.named_parameters(remove_duplicate=False))
    for path, part in module.named_modules(remove_duplicate=False):
        for name, buffer in persistent_buffers(part).items():
            found[f"{path}.{name}" if path else name] = buffer
    return found


def replacement_of(
    module: nn.Module, tensors: Mapping[str, torch.Tensor], *, trainable: bool
) -> nn.Module:
    """A copy of ``module`` with ``tensors`` (by path under it) as its own.

    Parameters not among ``tensors`` are shared with the base's module (a head's bias beside a
    saved embedding weight). Hooks and accelerate's are not copied: the replacement has its
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
    for kind in _HOOKS:  # those of the module itself run on the base's
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
    """Correct the sizes of an embedding or a head that has more rows than the base's."""
    weight = cast("torch.Tensor | None", getattr(replacement, "weight", None))
    if isinstance(replacement, nn.Embedding) and weight is not None:
        replacement.num_embeddings = weight.shape[0]
    elif isinstance(replacement, nn.Linear) and weight is not None:
        replacement.out_features = weight.shape[0]
