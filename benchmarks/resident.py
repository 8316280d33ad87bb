"""How much memory a hundred adapters on one model take, and how much of it comes back."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import adapterdock
import psutil
from shape import BASE_NAME, build_model

COUNT = 100


@dataclass(frozen=True)
class Resident:
    """Bytes: of the adapters' parameters, by which the process grew, and that it kept."""

    parameters: int
    grew: int
    kept: int


def resident_adapters(adapters: list[Path]) -> Resident:
    """Attach :data:`COUNT` adapters, look, delete them all, look again."""
    model = adapterdock.attach(build_model(), {"version": 1, "base": {"aliases": [BASE_NAME]}})
    model.load_adapter(str(adapters[0]), "first")  # what is made once, for the first of all
    before = _bytes()
    for number in range(COUNT):
        model.load_adapter(str(adapters[number % len(adapters)]), f"r{number}")
    full = _bytes()
    parameters = sum(a.nbytes for n, a in model.adapters.items() if n != "first")
    model.delete_adapter([f"r{number}" for number in range(COUNT)])
    return Resident(parameters, full - before, _bytes() - before)


def _bytes() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss
