"""Heads that a file holds and whose names its config leaves out.

PEFT (0.21, ``peft_model.py``) trains the head of a classification or question answering task whole
and adds its names to ``modules_to_save`` in memory. PEFT before 0.11 wrote the config without them
(``"modules_to_save": null``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..files.facts import AdapterPlan
from .places import outermost
from .tuner_config import TASK_HEADS


def unnamed_heads(config: Mapping[str, Any], plan: AdapterPlan) -> tuple[str, ...]:
    """The names that PEFT adds for the config's task, where the file holds such a module and the
    config names none; ``plan`` was made without them. A head that only has factors, or a trained
    bias, is not held whole."""
    heads = TASK_HEADS.get(str(config.get("task_type")), ())
    added = tuple(head for head in heads if head not in (config.get("modules_to_save") or ()))
    unplaced = (*plan.leftovers, *plan.embeddings.values())
    held = (outermost(key.rpartition(".")[0], added) for key in unplaced if _is_weight(key))
    return added if any(held) else ()


def _is_weight(key: str) -> bool:
    return key.endswith(".weight")
