"""What a method's row works from to create a new adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..files.facts import Layout, ModuleKind
from .patterns import Patterns
from .places import EMBEDDING_NAMES


@dataclass(frozen=True)
class NewAdapter:
    """``config`` is the method's typed view, ``said`` the fields that it was read from; ``chosen``
    are the modules that it selects, in the order of the model."""

    config: Any
    said: Mapping[str, Any]
    layout: Layout
    chosen: tuple[str, ...]
    patterns: Patterns


def input_embedding(layout: Layout) -> str | None:
    """The token embedding: the largest with a usual name, else the largest; the first on a tie."""
    tables = [(n, m) for n, m in layout.modules.items() if m.kind is ModuleKind.EMBEDDING]
    usual = [(n, m) for n, m in tables if n.rpartition(".")[2] in EMBEDDING_NAMES]
    chosen = max(usual or tables, key=lambda entry: entry[1].in_features or 0, default=None)
    return None if chosen is None else chosen[0]
