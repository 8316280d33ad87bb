"""Copies from the host to a device, counted where there is none: the meta device stands for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")


class Transfers(TorchDispatchMode):
    """Inside ``with Transfers() as sent:`` the bytes of each tensor that goes from the CPU to
    :data:`DEVICE` are in ``sent.sizes``."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        copies = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        if copies and out.device == DEVICE:
            source = args[1] if func is torch.ops.aten.copy_.default else args[0]
            if source.device.type == "cpu":
                self.sizes.append(source.numel() * source.element_size())
        return out


def on_the_device(base: nn.Module) -> nn.Module:
    """``base`` as one that computes on :data:`DEVICE`; it cannot be run."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    base.to(DEVICE)
    for module in base.modules():
        add_hook_to_module(module, AlignDevicesHook(execution_device=DEVICE))
    return base
