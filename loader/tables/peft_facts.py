"""Exports what PEFT knows of its methods, for validation without PEFT.

``python -m adapterdock.loader.tables.peft_facts`` writes ``registry/peft.json`` for the installed
PEFT: the modules that it adapts by default (``utils/constants.py``), and the methods that have no
implementation here: the start of their parameters' names (``mapping.py``), and their config's
fields with the kinds of their values (each method's ``config.py``).
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...registry.methods.options import COMMON
from ...registry.methods.peft_table import PEFT_REFUSED
from ...registry.methods.table import METHODS

TABLE = Path(__file__).resolve().parents[2] / "registry" / "peft.json"
_REAL = ("alpha", "lambda", "lambda_pattern", "rank_pattern")
"""Ends of the names of fields that hold any number, whatever their annotation says."""
_SEEDS = frozenset({"random_seed", "random_loc_seed"})
"""Fields that may be null, whatever their annotation says."""


def table() -> dict[str, dict[str, Any]]:
    """``{targets: {method: {model type: modules}}, methods: {method: {prefix, fields}}}``."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING
    from peft.utils import constants

    targets: dict[str, Any] = {}
    for method, row in METHODS.items():
        name = f"TRANSFORMERS_MODELS_TO_{method.replace('LN_', 'LN')}_TARGET_MODULES_MAPPING"
        if row.kinds and row.trains and hasattr(constants, name):
            targets[method] = dict(sorted(getattr(constants, name).items()))
    inputs = constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING
    methods = {
        kind.value: {
            "prefix": PEFT_TYPE_TO_PREFIX_MAPPING[kind],
            "fields": _fields(config),
        }
        for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()
        if kind.value not in METHODS and kind.value not in PEFT_REFUSED
    }
    return {
        "targets": targets,
        "feedforward": {"IA3": dict(sorted(inputs.items()))},
        "methods": dict(sorted(methods.items())),
    }


def _fields(config: Any) -> dict[str, str]:
    hints = typing.get_type_hints(config)
    return {
        field.name: _kind(field.name, hints[field.name], field.default)
        for field in dataclasses.fields(config)
        if field.name not in COMMON
    }


def _kind(name: str, hint: Any, default: object) -> str:
    """The kind of a field's values; ``?`` where null is one of them."""
    allowed = types_of(hint)
    nullable = default is None or type(None) in allowed or name in _SEEDS
    optional = "?" if nullable else ""
    if dict in allowed:
        of_reals = name.endswith(_REAL)
        return ("map of real" if of_reals else "map of whole") + optional
    if bool in allowed:
        return "flag or text?" if str in allowed else "flag?"
    if name == "r":
        return f"rank{optional}"
    if float in allowed or name.endswith(_REAL):
        return f"real{optional}"
    return ("whole" if int in allowed else "text") + optional


def types_of(hint: Any) -> set[type]:
    """The plain types that an annotation allows."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return {type(value) for value in typing.get_args(hint)}
    if origin in (typing.Union, types.UnionType):
        return set().union(*map(types_of, typing.get_args(hint)))
    return {origin or hint}


def text_of(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The table as JSON, a line for each method."""
    parts = (
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in part.items())
        + "\n}"
        for name, part in rows.items()
    )
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    TABLE.write_text(text_of(table()), encoding="utf-8")
