"""Writes the reference of the manifest language, the lock and the Python API from the code itself.

``python docs/reference.py`` puts the tables of keys into ``reference/manifest.md`` and
``reference/lock.md``, the signatures and docstrings into ``reference/python.md`` and the calls of
other libraries into ``reference/names.md``: each between a line ``<!-- keys: NAME -->``,
``<!-- lock: NAME -->``, ``<!-- names: NAME NAME ... -->`` or ``<!-- upstream: calls -->`` and the
next ``<!-- end -->``. ``--check`` writes nothing, and
exits 1 where a page differs.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import adapterdock
from adapterdock.manifests.json_schema import json_schema
from adapterdock.manifests.lockfile import Lock
from adapterdock.registry.upstream_names import table

PAGES = Path(__file__).parent / "reference"
_PART = re.compile(r"(<!-- (keys|lock|names|upstream): (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
_SECTION = re.compile(r"^(Args|Returns|Raises|Yields):$")


def filled(text: str) -> str:
    """A page with its generated parts made again."""
    make: dict[str, Callable[[str], str]] = {
        "keys": keys_table,
        "lock": lock_table,
        "names": api_of,
        "upstream": lambda _: f"{table()}\n",
    }
    return _PART.sub(lambda part: part[1] + make[part[2]](part[3]) + part[4], text)


# -- the manifest -------------------------------------------------------------------------------


def keys_table(name: str) -> str:
    """The keys of one mapping of the language, from its JSON Schema."""
    return _table(json_schema()["$defs"][name])


def lock_table(name: str) -> str:
    """The keys of one mapping of a lock, from the model that reads it."""
    schema = Lock.model_json_schema(mode="serialization")
    return _table(schema if name == "Lock" else schema["$defs"][name])


def _table(definition: dict[str, Any]) -> str:
    required = definition.get("required", ())
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, schema in definition["properties"].items():
        default = "required" if key in required else _default(schema)
        meaning = schema.get("description", "")
        rows.append(
            f"| `{key}` | {_value(schema)} | {default} | {meaning} |".replace("|  |", "| |")
        )
    return "\n".join(rows) + "\n"


def _default(schema: dict[str, Any]) -> str:
    default = schema.get("default")
    return "" if default in (None, [], {}, False) else f"`{default}`"


def _value(schema: dict[str, Any]) -> str:
    """What a value may be, in words. Variables (``${NAME}``) are left out: a page says where."""
    if "$ref" in schema:
        return f"[{_last(schema)}](#{_last(schema).lower()})"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        kinds = [
            _value(one)
            for one in schema["anyOf"]
            if one.get("type") != "null" and one.get("pattern") != r"\$"
        ]
        return " or ".join(dict.fromkeys(kinds))
    if schema.get("type") == "array":
        return f"list of {_value(schema.get('items', {}))}"
    if schema.get("type") == "object":
        patterns = list(schema.get("patternProperties", {}).values())
        inner = patterns[0] if patterns else schema.get("additionalProperties")
        return f"names to {_value(inner)}" if isinstance(inner, dict) else "mapping"
    if isinstance(schema.get("type"), list):
        kinds = [kind for kind in schema["type"] if kind != "null"]
        return "text" if "string" in kinds else " or ".join(_value({"type": k}) for k in kinds)
    words = {"string": "text", "integer": "integer", "number": "number", "boolean": "boolean"}
    return words.get(schema.get("type", ""), "any value")


def _last(schema: dict[str, Any]) -> str:
    return schema["$ref"].rpartition("/")[2]


# -- the API ------------------------------------------------------------------------------------


def api_of(names: str) -> str:
    """Signatures and docstrings of public names; of a class, its public members too."""
    return "\n".join(part for name in names.split() for part in _entries(name))


def _entries(name: str) -> Iterator[str]:
    value = getattr(adapterdock, name)
    yield f"### {name}\n"
    if not inspect.isclass(value):
        yield _signature(name, value)
        yield _prose(value)
        return
    if issubclass(value, Exception):
        yield _prose(value)
        return
    yield _prose(value)
    for member, found in _members(value).items():
        if member.startswith("_") or not (callable(found) or isinstance(found, property)):
            continue
        if not inspect.getdoc(found):
            continue
        yield f"#### {name}.{member}\n"
        if isinstance(found, property):
            kind = inspect.signature(found.fget).return_annotation if found.fget else ""
            yield f"```python\n{member}: {kind}\n```\n"
        else:
            yield _signature(member, found)
        yield _prose(found)


def _members(kind: type) -> dict[str, Any]:
    """Those of a class, and of the parts of it that are beside its file."""
    folder = kind.__module__.rpartition(".")[0]
    parts = (one for one in kind.__mro__ if one.__module__.rpartition(".")[0] == folder)
    return {name: found for part in parts for name, found in vars(part).items()}


def _signature(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    parts = [_plain(str(p)) for p in signature.parameters.values() if p.name != "self"]
    kinds = [p.kind for p in signature.parameters.values() if p.name != "self"]
    only = inspect.Parameter.KEYWORD_ONLY
    if only in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        parts.insert(kinds.index(only), "*")
    back = signature.return_annotation
    arrow = "" if back is inspect.Signature.empty else f" -> {_plain(str(back))}"
    line = f"{name}({', '.join(parts)}){arrow}"
    if len(line) > 88:
        inner = "".join(f"    {part},\n" for part in parts)
        line = f"{name}(\n{inner}){arrow}"
    return f"```python\n{line}\n```\n"


def _plain(annotated: str) -> str:
    """Without the quotes of an annotation that is kept as text."""
    return re.sub(r"""^(\**\w+: )(['"])(.*?)\2""", r"\1\3", annotated)


def _prose(value: Any) -> str:
    """A Google docstring as Markdown."""
    lines: list[str] = []
    items = False
    for line in (inspect.getdoc(value) or "").splitlines():
        if match := _SECTION.match(line):
            items = match[1] in ("Args", "Raises")
            lines += [f"**{match[1]}**", ""]
        elif items and re.match(r"    \S", line):
            name, _, rest = line.strip().partition(": ")
            lines.append(f"- `{name.replace(', ', '`, `')}`: {rest}")
        elif items and line.startswith("     "):
            lines.append(f"  {line.strip()}")
        else:
            if line and not line.startswith(" "):
                items = False
            lines.append(line.strip())
    text = "\n".join(lines).strip()
    text = re.sub(r":\w+:`~?(?:\w+\.)*?([\w.]+)`", r"`\1`", text)
    return text.replace("``", "`") + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if they differ")
    check = parser.parse_args().check
    stale: list[str] = []
    for name in ("manifest.md", "lock.md", "python.md", "names.md"):
        page = PAGES / name
        text = page.read_text(encoding="utf-8")
        made = filled(text)
        if made != text:
            stale.append(name)
            if not check:
                page.write_text(made, encoding="utf-8")
    if check and stale:
        sys.exit(f"{', '.join(stale)}: not current; run `make docs`")


if __name__ == "__main__":
    main()
