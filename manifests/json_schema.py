"""The language of manifests as JSON Schema (draft 2020-12), for editors.

Made from the pydantic models; ``schema.json`` is the committed copy, which
``python -m adapterdock.manifests.json_schema`` writes and ``--check`` compares. It accepts a little
more than the language, never less: only the validator checks references and secrets.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable
from typing import Any

from .language.schema import Manifest
from .reading.expand import EXPANDABLE, REST
from .schema_file import SCHEMA_ADDRESS, SCHEMA_FILE

_VARIABLE: dict[str, Any] = {
    "type": "string",
    "pattern": r"\$",
    "description": "a value with ${NAME} or ${NAME:-default} in it",
}
_ORIGINS: dict[str, Any] = {
    "if": {"required": ["config"], "properties": {"config": {"type": "object"}}},
    "then": {
        "required": ["trainable"],
        "properties": {"trainable": {"const": True}, "source": {"type": "null"}},
    },
    "else": {"required": ["source"], "properties": {"source": {"type": "string"}}},
}
"""An adapter has a source, or is created from a config. With ``oneOf`` editors would offer
``null`` for ``source``, and say of an adapter without keys that it matches both."""
_NOTE: dict[str, Any] = {"description": "kept, never read"}
_LAYER = "Layer"


def json_schema() -> dict[str, Any]:
    """The schema as plain data.

    A manifest that extends another is a layer: everything in it is optional, and ``null`` removes
    what the other has.
    """
    plain = Manifest.model_json_schema()
    definitions: dict[str, Any] = plain.pop("$defs")
    definitions["Manifest"] = plain
    for name, definition in definitions.items():
        _each(definition, _open_notes)
        _each(definition, _free_text)
        _each(definition, _leave_to_the_description)
        _let_variables(name, definition)
    definitions["Manifest"]["properties"]["extends"] = {
        "type": "string",
        "minLength": 1,
        "description": "the manifest that this one changes; a path relative to this file's folder",
    }
    definitions["Adapter"] |= copy.deepcopy(_ORIGINS)
    layers = {f"{name}{_LAYER}": _layer(body) for name, body in definitions.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ADDRESS,
        "if": {"required": ["extends"]},
        "then": {"$ref": f"#/$defs/Manifest{_LAYER}"},
        "else": {"$ref": "#/$defs/Manifest"},
        "$defs": dict(sorted({**definitions, **layers}.items())),
    }


def rendered() -> str:
    """The schema as the text of ``schema.json``."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _each(node: Any, change: Callable[[dict[str, Any]], None]) -> None:
    """Change every schema object in ``node``, the innermost first."""
    if isinstance(node, dict):
        for value in list(node.values()):
            _each(value, change)
        change(node)
    elif isinstance(node, list):
        for value in node:
            _each(value, change)


def _open_notes(schema: dict[str, Any]) -> None:
    """Allow ``x-`` keys in models and in mappings whose keys are names, and null where there is a
    default."""
    if schema.get("additionalProperties") is False and "properties" in schema:
        schema["patternProperties"] = {"^x-": _NOTE}
        needed = schema.get("required", [])
        for name, inner in schema["properties"].items():
            if name not in needed:
                schema["properties"][name] = _or_null(inner)
        return
    form = schema.get("propertyNames", {}).get("pattern")
    if form is not None:
        schema["patternProperties"] = {form: schema.pop("additionalProperties")}
        del schema["propertyNames"]
    elif "properties" in schema or "patternProperties" not in schema:
        return
    schema["patternProperties"] = {**schema["patternProperties"], "^x-": _NOTE}
    schema["additionalProperties"] = False


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema``, or a key without a value, which counts as missing."""
    if schema.get("type") == "null" or {"type": "null"} in schema.get("anyOf", []):
        return schema
    outer = {key: schema.pop(key) for key in ("default", "description", "title") if key in schema}
    return {"anyOf": [schema, {"type": "null"}], **outer}


def _free_text(schema: dict[str, Any]) -> None:
    """Text without a pattern may look like a number to an editor (``2.10``)."""
    if schema.get("type") == "string" and not {"pattern", "enum", "const", "minLength"} & set(
        schema
    ):
        schema["type"] = ["string", "number", "boolean"]


def _leave_to_the_description(schema: dict[str, Any]) -> None:
    """Leave out what editors would show or insert: a title that is the key once more (for each form
    of its value), and ``null`` as the value of a key that has no default."""
    if isinstance(schema.get("title"), str):
        del schema["title"]
    if "default" in schema and schema["default"] is None:
        del schema["default"]
    if isinstance(schema.get("description"), str):
        schema["description"] = schema["description"].replace("``", "`")


def _let_variables(name: str, definition: dict[str, Any]) -> None:
    """Allow ``${NAME}`` where it is expanded (text without a pattern allows it already)."""
    owner = {"base": "Base", "adapters": "Adapter"}
    for pattern in EXPANDABLE:
        if pattern[-1] == REST or owner.get(pattern[0]) != name:
            continue
        inner = definition["properties"][pattern[-1]]
        choices = inner.get("anyOf")
        if choices is not None:
            choices.append(_VARIABLE)
        else:
            outer = {k: inner.pop(k) for k in ("default", "description", "title") if k in inner}
            definition["properties"][pattern[-1]] = {"anyOf": [dict(inner), _VARIABLE], **outer}


def _layer(definition: dict[str, Any]) -> dict[str, Any]:
    """The same where everything is optional or null."""
    layer = copy.deepcopy(definition)
    for keyword in _ORIGINS:
        layer.pop(keyword, None)

    def loosen(schema: dict[str, Any]) -> None:
        schema.pop("required", None)
        schema.pop("minProperties", None)
        reference = schema.get("$ref")
        if isinstance(reference, str):
            schema["$ref"] = reference + _LAYER
        for keyword in ("properties", "patternProperties"):
            if isinstance(schema.get(keyword), dict):
                schema[keyword] = {
                    key: inner if inner == _NOTE else _or_null(inner)
                    for key, inner in schema[keyword].items()
                }
        inner = schema.get("additionalProperties")
        if isinstance(inner, dict):
            schema["additionalProperties"] = _or_null(inner)

    _each(layer, loosen)
    return layer


def main(arguments: list[str] | None = None) -> int:
    """Write ``schema.json``, or with ``--check`` say whether it is current (exit status 1)."""
    parser = argparse.ArgumentParser(description="write manifests/schema.json")
    parser.add_argument("--check", action="store_true", help="only compare; 1 if it is stale")
    options = parser.parse_args(arguments)
    text = rendered()
    if options.check:
        current = SCHEMA_FILE.is_file() and SCHEMA_FILE.read_text(encoding="utf-8") == text
        if not current:
            print(f"{SCHEMA_FILE.name} is stale: run python -m adapterdock.manifests.json_schema")
        return 0 if current else 1
    SCHEMA_FILE.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
