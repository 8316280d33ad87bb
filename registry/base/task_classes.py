"""transformers' class for a task, and the parameters of its head: committed data, made by
``loader.tables.task_classes``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

Size = int | str | None
"""A number, ``num_labels``, ``hidden_size``, or ``None`` where the table has none."""


def class_for(task: str, model_type: str | None) -> str | None:
    """The class that PEFT's auto class for ``task`` picks for a model of this type."""
    return _table()["classes"].get(task, {}).get(model_type)


def task_of(architecture: str | None) -> str | None:
    """The task of a class, of the tasks with labels."""
    for task in ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"):
        if architecture in _table()["classes"][task].values():
            return task
    return None


def task_types() -> frozenset[str]:
    """The task types with classes."""
    return frozenset(_table()["classes"])


def head_of(architecture: str) -> Mapping[str, tuple[Size, ...]] | None:
    """The parameters of a head, by their live names; ``None`` for an unknown class, or one without
    a head of its own."""
    found = _table()["heads"].get(architecture)
    return None if found is None else {name: tuple(sizes) for name, sizes in found.items()}


@cache
def _table() -> Mapping[str, Any]:
    return json.loads(Path(__file__).with_name("task_classes.json").read_text(encoding="utf-8"))
