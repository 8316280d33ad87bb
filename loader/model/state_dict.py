"""The state dict of an adapted model: its adapters, without the base."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AttachError
from ...manifests.findings.finding import Finding
from ..weights.own_storage import with_own_storage
from .parameter_tree import ParameterTree

_mismatch = codes.STATE_MISMATCH.finding


def collect(
    tree: ParameterTree,
    destination: dict[str, Any] | None = None,
    prefix: str = "",
    keep_vars: bool = False,
) -> dict[str, Any]:
    """The adapters' tensors by PEFT's live names, as ``nn.Module.state_dict`` returns them."""
    found: dict[str, Any] = OrderedDict() if destination is None else destination
    others = set(found)
    for name, held in tree.held.items():
        if isinstance(held, nn.Module):
            held.state_dict(destination=found, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        else:
            found[prefix + name] = held if keep_vars else held.detach()
    if not keep_vars:
        for name in found.keys() - others:
            if isinstance(found[name], torch.Tensor):  # a module may add other things
                found[name] = with_own_storage(found[name])
    return found


def load(tree: ParameterTree, state: Mapping[str, Any], *, strict: bool, assign: bool) -> Any:
    """Copy ``state`` into the adapters, after checking all of it. Names are PEFT's live ones, or
    those of ``named_parameters``."""
    own = collect(tree, keep_vars=True)
    state = {tree.key_of(name): value for name, value in state.items()}
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    problems: list[Finding] = []
    if assign:
        problems.append(_mismatch("assign=True is not supported", expected="assign=False"))
    if strict and (missing or unexpected):
        problems.append(
            _mismatch(
                f"{len(missing)} keys are missing and {len(unexpected)} are unknown",
                found=f"missing {missing[:3]}, unknown {unexpected[:3]}",
            )
        )
    for name in own.keys() & state.keys():
        value = state[name]
        if not isinstance(value, torch.Tensor) or value.shape != own[name].shape:
            found = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            problems.append(
                _mismatch(f"Wrong shape of {name}", found=found, expected=tuple(own[name].shape))
            )
    if problems:
        raise AttachError(*problems)
    known = {name: state[name] for name in own if name in state}
    before = {name: own[name].detach().clone() for name in known}
    try:
        _copy(own, known)
        return torch.nn.modules.module._IncompatibleKeys(missing, unexpected)  # pyright: ignore[reportPrivateUsage]
    except BaseException:
        _copy(own, before)
        raise


def _copy(own: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
