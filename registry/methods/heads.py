"""Heads that a file holds but its config does not name.

PEFT (0.21, ``peft_model.py``) trains the complete head of a classification or question answering
task, and adds its names to ``modules_to_save`` in memory. PEFT before 0.11 wrote the config without
them (``"modules_to_save": null``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..files.facts import AdapterPlan
from .places import outermost
from .tuner_config import TASK_HEADS


def unnamed_heads(config: Mapping[str, Any], plan: AdapterPlan) -> tuple[str, ...]:
    """The names that PEFT adds for the config's task, if the file holds such a module and the
    config names none; ``plan`` was made without them. A head that only has factors or a trained
    bias does not count."""
    heads = TASK_HEADS.get(str(config.get("task_type")), ())
    added = tuple(head for head in heads if head not in (config.get("modules_to_save") or ()))
    unplaced = (*plan.leftovers, *plan.embeddings.values())
    held = (outermost(k.removesuffix(".weight"), added) for k in unplaced if k.endswith(".weight"))
    return added if any(held) else ()
