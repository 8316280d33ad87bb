"""Exports what transformers' config classes fill in, for fingerprints without transformers.

``python -m adapterdock.loader.tables.config_defaults`` writes
``registry/baseconfig_v1.json``. The file is
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
from random import Random
from typing import Any, cast

from ...registry.base.base_config import canonical_by, derived, raw_fields

_FACTORS = ("2", "3", "4", "8")


def export() -> dict[str, dict[str, Any]]:
    """``{model type: {defaults, rules, open, ignored, others, aliases, parts}}``, sorted;
    ``others`` are fields that are absent (``None``) by default."""
    rows: dict[str, dict[str, Any]] = {}
    for model_type, cls in _classes():
        try:
            rows[model_type] = _row(cls)
        except Exception as error:
            print(f"{model_type}: {error!r}"[:150], file=sys.stderr)
    for model_type, cls in _classes():
        if "parts" in rows.get(model_type, ()):
            _add_absent_parts(rows, model_type, cls)
    for model_type, cls in _classes():
        if model_type in rows and not _agrees(rows, model_type, cls):
            rows[model_type]["inexact"] = True
    return dict(sorted(rows.items()))


def _add_absent_parts(rows: dict[str, dict[str, Any]], model_type: str, cls: Any) -> None:
    """What a class puts where a part is absent, as far as it is not the part's own defaults."""
    whole = canonical_by(rows, cls().to_dict()).fields
    found: dict[str, dict[str, Any]] = {}
    for part in rows[model_type]["parts"]:
        left = {k[len(part) + 1 :]: v for k, v in whole.items() if k.startswith(part + ".")}
        if left:
            found[part] = left
    if found:
        rows[model_type]["absent"] = found


def _agrees(rows: dict[str, dict[str, Any]], model_type: str, cls: Any) -> bool:
    """Whether files that say little and files that say all come out alike, tried on a few."""
    random = Random(model_type)
    numbers = {
        key: value
        for key, value in cls().to_dict().items()
        if isinstance(value, (int, float)) and not key.startswith("_")
    }
    for size in (0, 1, 1, 2, 2, 3, 3, 4):
        keys = random.sample(list(numbers), min(size, len(numbers)))
        given = {key: _varied(numbers[key], random) for key in keys}
        try:
            file = json.loads(cls(**given).to_json_string())
            full = cls.from_dict(dict(file)).to_dict()
        except Exception:
            continue
        forms = [
            canonical_by(rows, form) for form in ({**given, "model_type": model_type}, file, full)
        ]
        if len({form.digest for form in forms}) > 1 and not any(form.doubt for form in forms):
            return False
    return True


def _varied(value: float, random: Random) -> float:
    return (not value) if isinstance(value, bool) else value * random.choice((1, 2, 3))


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
    trials, ignored = _trials(cls, base, parts)
    rules: dict[str, str] = {}
    opened: list[str] = []
    for path in base:
        followed = {changed for changed, fields in trials if fields.get(path) != base[path]}
        if path in ignored or not followed - {path}:
            continue
        heard = {name: value for name, value in base.items() if name not in ignored}
        rule = None if "." in path else _rule(path, heard, trials)
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
        "ignored": ignored,
        "others": sorted(k for k, v in base.items() if v is None and k not in rules),
        "aliases": aliases,
        "parts": parts,
    }
    return {key: value for key, value in row.items() if value}


def _trials(
    cls: Any, base: Mapping[str, Any], parts: Mapping[str, str]
) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """(field changed, all fields then) for every field that can be changed, and the fields that
    the class sets itself, whatever it is given."""
    trials: list[tuple[str, dict[str, Any]]] = []
    deaf: list[str] = []
    for path, value in base.items():
        if "." in path:
            continue
        heard: list[bool] = []
        for other in _others(value):
            try:
                changed = cls(**{path: other}).to_dict()
            except Exception:
                continue
            fields = raw_fields(changed, frozenset(parts))
            if fields.get(path) == other:
                trials.append((path, fields))
            heard.append(fields.get(path) != base[path])
        if heard and not any(heard) and not _heard_under_a_flag(cls, path, base):
            deaf.append(path)
    return trials, deaf


def _heard_under_a_flag(cls: Any, path: str, base: Mapping[str, Any]) -> bool:
    """Whether the class takes the field after all where one of its flags is the other way."""
    for flag, value in base.items():
        if not isinstance(value, bool) or "." in flag or flag == path:
            continue
        for other in _others(base[path]):
            try:
                plain, given = cls(**{flag: not value}), cls(**{flag: not value, path: other})
                if plain.to_dict().get(path) != given.to_dict().get(path):
                    return True
            except Exception:
                continue
    return False


def _others(value: Any) -> tuple[Any, ...]:
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return (value * 2, value * 3) if value else (1,)
    if isinstance(value, float):
        return (value * 2,) if value else (1.0,)
    if isinstance(value, list) and len(cast(list[Any], value)) > 1:
        return (value[:-1],)
    return ()


def _rule(
    path: str, base: Mapping[str, Any], trials: list[tuple[str, dict[str, Any]]]
) -> str | None:
    """The first rule that explains ``path`` in every trial; where only trials of one flag speak
    against it, with that flag as its condition (``rule?flag``)."""
    states = [base, *(fields for changed, fields in trials if changed != path)]
    for rule in _family(path, base):
        if not _explains(rule, path, states[:1]):
            continue
        against = [s for s in states if not _explains(rule, path, [s])]
        if not against:
            return rule
        flags = {
            name
            for name, value in base.items()
            if isinstance(value, bool) and all(s.get(name) == (not value) for s in against)
        }
        if flags:
            return f"{rule}?{min(flags)}"
    return None


def _explains(rule: str, path: str, states: list[Mapping[str, Any]]) -> bool:
    return all(derived(rule, state, {}) == state.get(path) for state in states)


def _family(path: str, base: Mapping[str, Any]) -> Iterator[str]:
    value = base[path]
    numbers = [
        name
        for name, other in base.items()
        if isinstance(other, int)
        and not isinstance(other, bool)
        and name != path
        and "." not in name
    ]
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        kinds = sorted(set(cast(list[str], value)))
        for count in [n for n in numbers if base[n] == len(value)]:
            yield from (f"{count}:all:{kind}" for kind in kinds)
            for each in ("1", "2", "3", "4", "5", "6", "8", *numbers):
                for kind in ("every", "first"):
                    yield from (
                        f"{count}:{kind}:{each}:{a}:{b}" for a in kinds for b in kinds if a != b
                    )
    elif isinstance(value, int) and not isinstance(value, bool):
        yield from numbers
        yield from (f"{a}//{b}" for a in numbers for b in numbers if a != b)
        yield from (f"{a}{sign}{f}" for a in numbers for sign in ("*", "//") for f in _FACTORS)
        yield from (f"{a}{sign}{b}" for a in numbers for sign in "*+" for b in numbers if a < b)


def main() -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    target = Path(__file__).resolve().parents[2] / "registry" / "baseconfig_v1.json"
    lines = [
        f"{json.dumps(key)}: {json.dumps(row, sort_keys=True)}" for key, row in export().items()
    ]
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
