"""Export which class transformers has for a task, and the parameters of its head.

``python -m adapterdock.loader.tables.task_classes`` writes ``registry/base/task_classes.json`` for
the installed transformers:

- ``classes``: by PEFT's task type and by model type, the class that PEFT's auto class picks;
- ``heads``: for the classes for classification and question answering, the parameters that do not
  belong to a model inside. Each has its sizes: a number, ``num_labels``, ``hidden_size``, or
  ``null`` for any other.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, cast

import transformers
from torch import nn

from ..base.empty_model import build
from .architecture_survey import auto_choices
from .architecture_table import text_of
from .variants import needed_by

TABLE = Path(__file__).resolve().parents[2] / "registry" / "base" / "task_classes.json"

AUTOS = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "FEATURE_EXTRACTION": "AutoModel",
}
"""PEFT's task types, and the auto classes that it loads them with (``peft/auto.py``)."""
WITH_LABELS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
LABELS = 5
"""A number of labels that differs from all sizes of a model."""

Size = int | str | None


def classes() -> dict[str, dict[str, str]]:
    """The class by task and by model type."""
    choices = auto_choices(AUTOS.values())
    return {task: dict(sorted(choices[auto].items())) for task, auto in AUTOS.items()}


def head_of(name: str) -> dict[str, list[Size]] | None:
    """The parameters of a class's head with their sizes; ``None`` where it cannot be built."""
    cls = cast(Any, getattr(transformers, name, None))
    try:
        kind = cls.config_class
        needed = {**needed_by(cls), **_few(kind), "num_labels": LABELS}
        first = kind(**needed)
        width = first.get_text_config().hidden_size
        one = _own(build(cls, first))
        two = _own(build(cls, kind(**{**needed, **_wider(first)})))
    except Exception:  # it needs an option or a library that is missing here
        return None
    if one.keys() != two.keys():
        return None
    return {
        path: [_size(a, b, width) for a, b in zip(shape, two[path], strict=True)]
        for path, shape in one.items()
    }


def _few(kind: Any) -> dict[str, int]:
    """One layer is enough to see a head."""
    name = kind.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    return {name: 1} if isinstance(getattr(kind(), name, None), int) else {}


def _wider(config: Any) -> dict[str, int]:
    """The option that makes the hidden states of the same config twice as wide."""
    text = config.get_text_config()
    if text is not config:
        return {}
    return {config.attribute_map.get("hidden_size", "hidden_size"): 2 * text.hidden_size}


def _size(one: int, two: int, width: int) -> Size:
    if one == two == LABELS:
        return "num_labels"
    if one == width and two == 2 * width:
        return "hidden_size"
    return one if one == two and one < LABELS else None


def _own(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The parameters that are not in a model inside."""
    inside = tuple(
        f"{name}."
        for name, module in model.named_modules()
        if name and isinstance(module, transformers.PreTrainedModel)
    )
    return {n: tuple(p.shape) for n, p in model.named_parameters() if not n.startswith(inside)}


def table() -> dict[str, Any]:
    """The table for the installed transformers."""
    by_task = classes()
    names = sorted({name for task in WITH_LABELS for name in by_task[task].values()})
    heads = {name: found for name in names if (found := head_of(name)) is not None}
    return {"transformers": transformers.__version__, "classes": by_task, "heads": heads}


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    TABLE.write_text(text_of(table(), "classes", "heads"), encoding="utf-8")
