"""A place at which an adapter is to be begun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...registry.facts import ModuleShape


@dataclass(frozen=True)
class NewSite:
    """What a method's ``initial`` has to go by: the live module with its shape, the rank that the
    config gives it (0 for methods without one), and the config."""

    name: str
    module: nn.Module
    shape: ModuleShape
    rank: int
    config: Mapping[str, Any]
