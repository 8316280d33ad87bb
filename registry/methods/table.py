"""The methods whose files are understood, one row each, by PEFT's ``peft_type``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..facts import AdapterPlan, Layout, TensorInfo
from ..patterns import Patterns
from . import lora
from .lora_config import OPTIONS as LORA_OPTIONS
from .lora_config import LoraConfig
from .naming import Naming
from .options import Option

ReadConfig = Callable[[Mapping[str, Any]], Any]


class MakePlan(Protocol):
    """A method's ``plan``; ``config`` is its own typed view."""

    def __call__(
        self,
        config: Any,
        tensors: Mapping[str, TensorInfo],
        layout: Layout | None,
        patterns: Patterns | None = None,
    ) -> tuple[AdapterPlan, Naming]: ...


@dataclass(frozen=True)
class Method:
    """One method: its config fields, its typed view of them, and its plan."""

    peft_type: str
    options: tuple[Option, ...]
    read_config: ReadConfig
    make_plan: MakePlan

    def plan(
        self,
        config: Mapping[str, Any],
        tensors: Mapping[str, TensorInfo],
        layout: Layout | None = None,
        patterns: Patterns | None = None,
    ) -> AdapterPlan:
        """Where every tensor goes, from ``adapter_config.json`` (its fields already checked, see
        :mod:`adapterdock.registry.checks`) and the header's tensors."""
        return self.make_plan(self.read_config(config), tensors, layout, patterns)[0]


METHODS: Mapping[str, Method] = {
    "LORA": Method("LORA", LORA_OPTIONS, LoraConfig.of, lora.plan),
}
