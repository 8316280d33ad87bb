"""Exports what transformers' config classes fill in, for fingerprints without transformers.

``python -m adapterdock.loader.baseconfig`` writes ``registry/baseconfig_v1.json``. The file is
frozen with version 1 of the fingerprint: this stays here to show how it was made, and for the
test that compares file and class; a new export is a new version of the fingerprint.

A class's defaults are read off an instance made without arguments. Which fields are derived
from others is found by trying: each number is changed in turn, and a field that follows is
derived; the rule is the first of a small family that explains every trial.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from ..registry.baseconfig import derived, raw_fields

_FACTORS = ("1", "2", "3", "4", "8")


def export() -> dict[str, dict[str, Any]]:
    """``{model type: {defaults, rules, open, fields, aliases, parts}}``, sorted."""
    rows: dict[str, dict[str, Any]] = {}
    for model_type, cls in _classes():
        try:
            rows[model_type] = _row(cls)
        except Exception as error:  # noqa: BLE001 - a class that cannot be made has no defaults
            print(f"{model_type}: {error!r}"[:150], file=sys.stderr)
    return dict(sorted(rows.items()))


def _classes() -> Iterator[tuple[str, Any]]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    seen: set[str] = set()
    for key in list(CONFIG_MAPPING.keys()):
        cls = cast(Any, CONFIG_MAPPING[key])
        model_type = str(cls.model_type or key)
        if model_type not in seen:
            seen.add(model_type)
            yield model_type, cls


def _row(cls: Any) -> dict[str, Any]:
    instance = cls()
    parts = {
        key: str(value.model_type)
        for key, value in vars(instance).items()
        if hasattr(value, "to_dict") and getattr(value, "model_type", "")
    }
    aliases = {k: v for k, v in dict(cls.attribute_map).items() if k != v}
    base = raw_fields(instance.to_dict(), frozenset(parts))
    trials = list(_trials(cls, instance, base, parts))
    rules: dict[str, str] = {}
    opened: list[str] = []
    for path in base:
        followed = [t for t in trials if path != t[0] and t[1].get(path) != base[path]]
        if not followed:
            continue
        rule = _rule(path, base, trials)
        if rule is None:
            opened.append(path)
        else:
            rules[path] = rule
    defaults = {
        path: value
        for path, value in base.items()
        if value is not None and path not in rules and path not in opened
    }
    row = {
        "defaults": defaults,
        "rules": rules,
        "open": opened,
        "fields": sorted({path.partition(".")[0] for path in base}),
        "aliases": aliases,
        "parts": parts,
    }
    return {key: value for key, value in row.items() if value}


def _trials(
    cls: Any, instance: Any, base: Mapping[str, Any], parts: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, value in base.items():
        if "." in path or isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
            continue
        for other in _others(value):
            try:
                changed = cls(**{path: other}).to_dict()
            except Exception:  # noqa: BLE001 - not every number is allowed
                continue
            fields = raw_fields(changed, frozenset(parts))
            if fields.get(path) == other:
                yield path, fields


def _others(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    if isinstance(value, int):
        return (value * 2, value * 3) if value else (1,)
    return (value * 2,)


def _rule(
    path: str, base: Mapping[str, Any], trials: list[tuple[str, dict[str, Any]]]
) -> str | None:
    numbers = [k for k, v in base.items() if isinstance(v, int) and not isinstance(v, bool) and k != path]
    value = base[path]
    family: list[str] = []
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        kinds = sorted(set(value))
        for count in [n for n in numbers if base[n] == len(value)]:
            family += [f"{count}:all:{k}" for k in kinds]
            family += [
                f"{count}:every:{each}:{a}:{b}"
                for each in ("2", "3", "4", "5", "6", "8", *numbers)
                for a in kinds
                for b in kinds
                if a != b
            ]
    elif isinstance(value, int) and not isinstance(value, bool):
        family += numbers
        family += [f"{a}//{b}" for a in numbers for b in numbers if a != b]
        family += [f"{a}*{f}" for a in numbers for f in _FACTORS[1:]]
        family += [f"{a}//{f}" for a in numbers for f in _FACTORS[1:]]
        family += [f"{a}*{b}" for a in numbers for b in numbers if a < b]
    states = [base, *(fields for changed, fields in trials if changed != path)]
    for rule in family:
        if all(derived(rule, state, {}) == state.get(path) for state in states):
            return rule
    return None


def main() -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    target = Path(__file__).parent.parent / "registry" / "baseconfig_v1.json"
    lines = [f"{json.dumps(key)}: {json.dumps(row, sort_keys=True)}" for key, row in export().items()]
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
