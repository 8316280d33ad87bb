"""Weights that a base computes with outside of the module that holds them.

Live, LoRA at an embedding acts where the embedding is called, as in PEFT. Merged, it is in the
weight, and so in everything else that the base computes with it: the output differs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree

from ..adapter.adapter import Adapter
from ..base.modules import ModuleMap
from ..routing.routing import Call
from ..routing.row_probe import run_alone
from ..sites.weight_reads import FACTS, Read, ReadSite


def read_elsewhere(base: nn.Module, modules: ModuleMap, names: Collection[str]) -> set[str]:
    """Those of the modules ``names`` whose ``weight`` is used where they do not run themselves.
    Found by a run of the base alone on a few tokens; none if it cannot run so."""
    found: set[str] = set()
    owner, adapter = object(), Adapter("")
    with ExitStack() as stack:
        for name in names:
            site = ReadSite(owner, name, modules.by_name[name])
            site.factors[adapter] = {"weight": _noting(name, found)}
            for _ in range(2):  # the second finishes what interrupts the first
                stack.callback(site.remove)
            site.install()
        run_alone(base, Call(owner, ((adapter, 1.0),)))
    return found


def _noting(name: str, found: set[str]) -> Read:
    def read(own: torch.Tensor, now: torch.Tensor, weight: float) -> torch.Tensor:
        noted = now.detach().as_subclass(_Noted)
        noted.read_of, noted.found = name, found
        return noted

    return read


class _Noted(torch.Tensor):
    """A weight that records its use, and gives plain tensors."""

    read_of: str
    found: set[str]

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(getattr(func, "__self__", None), "__name__", func.__name__)
        if name not in FACTS:
            for leaf in _pytree.tree_leaves((args, kwargs)):
                if isinstance(leaf, cls):
                    leaf.found.add(leaf.read_of)
        with torch._C.DisableTorchFunctionSubclass():  # pyright: ignore[reportPrivateUsage]
            return func(*args, **(kwargs or {}))
