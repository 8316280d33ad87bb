"""Build a class of transformers without memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import initialization as init


def build(cls: type[nn.Module], config: Any) -> nn.Module:
    """An instance on the ``meta`` device. Raises whatever the class raises for this config."""
    with torch.device("meta"), init.no_init_weights(), init.meta_device_safe_creation_ops():
        return cls(config)
