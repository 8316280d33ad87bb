"""Export which class transformers has for a task, and what its head is made of.

``python -m adapterdock.loader.tables.task_classes`` writes ``registry/base/task_classes.json`` for
the installed transformers:

- ``classes``: by PEFT's task type and by model type, the class that PEFT's auto class picks;
- ``heads``: of the classes for classification and question answering, the parameters that are not
  those of a model inside: each with its sizes, a number, ``num_labels``, ``hidden_size``, or
  ``null`` where it is neither.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import transformers
from torch import nn
from transformers.models.auto import modeling_auto

from ..base.empty_model import build
from .variants import NEEDED

TABLE = Path(__file__).resolve().parents[2] / "registry" / "base" / "task_classes.json"

MAPPINGS = {
    "SEQ_CLS": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "TOKEN_CLS": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "QUESTION_ANS": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "CAUSAL_LM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "SEQ_2_SEQ_LM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "FEATURE_EXTRACTION": "MODEL_MAPPING_NAMES",
}
"""PEFT's task types, and where transformers lists the classes for them."""
WITH_LABELS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
LABELS = 5
"""A number of labels that no size of a model is by chance."""

Size = int | str | None


def classes() -> dict[str, dict[str, str]]:
    """The class by task and by model type."""
    found: dict[str, dict[str, str]] = {}
    for task, name in MAPPINGS.items():
        choices = cast("Mapping[str, str | tuple[str, ...]]", vars(modeling_auto)[name])
        found[task] = {
            kind: one if isinstance(one, str) else one[0] for kind, one in sorted(choices.items())
        }
    return found


def head_of(name: str) -> dict[str, list[Size]] | None:
    """The parameters of a class's head with their sizes; ``None`` where it cannot be built."""
    cls = cast(Any, getattr(transformers, name, None))
    try:
        kind = cls.config_class
        needed = {**NEEDED.get(kind.model_type, {}), **_few(kind), "num_labels": LABELS}
        first = kind(**needed)
        width = first.get_text_config().hidden_size
        one = _own(build(cls, first))
        two = _own(build(cls, kind(**{**needed, **_wider(first)})))
    except Exception:  # an option or a library that is not here: its sizes are not known
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
    """The same config twice as wide, and nothing else of it."""
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
    """The parameters that are in no model inside."""
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


def text_of(found: Mapping[str, Any]) -> str:
    """The file's text: one task or head a line."""
    parts = [f'"transformers": {json.dumps(found["transformers"])}']
    for section in ("classes", "heads"):
        lines = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found[section].items())
        parts.append(f'"{section}": {{\n' + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    TABLE.write_text(text_of(table()), encoding="utf-8")


if __name__ == "__main__":
    main()
