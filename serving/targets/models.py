"""The architectures that engines list, from the committed table ``models.json``.

``serving/tables/vllm_models.py`` makes it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from .engine import Models

_TABLE = Path(__file__).parent / "models.json"


@cache
def models_of(name: str) -> Models | None:
    """The table ``name`` (``vllm 0.32``); ``None`` for none."""
    if not name:
        return None
    table = json.loads(_TABLE.read_text(encoding="utf-8"))[name]
    serves = {
        architecture: frozenset(modules.split())
        for modules, architectures in table["serves"].items()
        for architecture in architectures
    }
    return Models(serves, frozenset(table["without"]))
