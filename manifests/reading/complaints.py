"""Pydantic's errors as findings, in plain words and at their places in the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..findings import language as codes
from ..findings.finding import Finding, Where
from ..language.names import NAME_PATTERN, NAME_RULE, did_you_mean, is_name, listed
from ..language.schema import (
    BYTE_SIZE_PATTERN,
    DIGEST_PATTERN,
    FINGERPRINT_PATTERN,
    URL_PREFIX_PATTERN,
)
from .conform import Shape, shape_at
from .nodes import Items, Locate, Map, Node, Path, Scalar, describe, find
from .secrets import is_secret_name, redact

MAX_EXPLAINED = 1000
"""Places that are explained: nobody reads more, and a hostile file may have many thousands."""

M = TypeVar("M", bound=BaseModel)

_SIZES = {
    "too_short": ("min_length", "at least", "entry", "entries"),
    "too_long": ("max_length", "at most", "entry", "entries"),
    "string_too_short": ("min_length", "at least", "character", "characters"),
    "string_too_long": ("max_length", "at most", "character", "characters"),
}
_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "none_required": "null",
    "mapping_type": "a mapping",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUNDS = {
    "greater_than": ("gt", "more than {}"),
    "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "less than {}"),
    "less_than_equal": ("le", "at most {}"),
}
_PATTERNS = {
    NAME_PATTERN: NAME_RULE,
    DIGEST_PATTERN: "sha256: followed by 64 digits of 0-9 a-f",
    FINGERPRINT_PATTERN: "v1:sha256: followed by 64 digits of 0-9 a-f",
    URL_PREFIX_PATTERN: "a prefix of a URL, such as hf:// or s3://bucket/",
    BYTE_SIZE_PATTERN: "a number and a unit, such as 500MB or 2GiB",
}


@dataclass
class _Problem:
    """All errors of pydantic at one place (for a union, one for each member)."""

    path: Path
    on_key: bool
    errors: list[Mapping[str, Any]]


def explain_invalid(
    error: ValidationError, root: Map, shape: Shape, locate: Locate
) -> list[Finding]:
    """One finding for each place in ``error``. ``root`` is what was read."""
    findings: list[Finding] = []
    for problem in islice(_by_place(error, root), MAX_EXPLAINED):
        where = locate(problem.path, key=problem.on_key)
        node = find(root, problem.path)
        findings.append(_finding(problem, where, node, root, shape))
    return findings


def first_problem(error: ValidationError, whole: str) -> str:
    """The first problem in plain words, with its place: ``threshold must be at least 1``.

    For JSON that was validated without a tree of its places. ``whole`` names all of it."""
    one = error.errors(include_url=False, include_input=False)[0]
    kind, path = one["type"], tuple(part for part in one["loc"] if part != "[key]")
    if kind in ("missing", "extra_forbidden") and path:
        owner = _cut(Where(path=path[:-1]).dotted) or whole
        word = "missing" if kind == "missing" else "unknown"
        return f"{word} key {_cut(str(path[-1]))!r} in {owner}"
    place = _cut(Where(path=path).dotted) or whole
    if kind == "value_error":
        return f"{place}: {one.get('ctx', {}).get('error', one['msg'])}"
    expected = expected_of(one)
    verb = "have" if kind in _SIZES else "be"
    return f"{place}: {one['msg']}" if expected is None else f"{place} must {verb} {expected}"


def expected_of(error: Mapping[str, Any]) -> str | None:
    """What one of pydantic's errors expects, in plain words; ``None`` for a kind without."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in _KINDS:
        return _KINDS[kind]
    if kind in _BOUNDS:
        key, said = _BOUNDS[kind]
        return said.format(context.get(key))
    if kind == "string_pattern_mismatch":
        pattern = str(context.get("pattern"))
        return _PATTERNS.get(pattern, f"text like {pattern}")
    if kind == "literal_error":
        return str(context.get("expected"))
    if kind in _SIZES:
        key, said, one, more = _SIZES[kind]
        count = context.get(key)
        return f"{said} {count} {one if count == 1 else more}"
    return "a finite number" if kind == "finite_number" else None


def _cut(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."


def salvage(model: type[M], data: Any, error: ValidationError, root: Map) -> M | None:
    """The model of what remains when everything wrong has been removed from ``data``.

    So checks of the complete manifest run in spite of errors elsewhere.
    """
    for _ in range(8):
        for problem in _by_place(error, root):
            path = problem.path
            if path == ("version",):
                data["version"] = 1
                continue
            if problem.errors[0]["type"] == "missing":
                path = path[:-1]
            within = next((i for i, part in enumerate(path) if isinstance(part, int)), len(path))
            _take_out(data, path[:within])
        try:
            return model.model_validate(data, strict=True)
        except ValidationError as next_error:
            error = next_error
    return None


def _take_out(data: Any, path: Path) -> None:
    """Remove one entry, and the mapping around it if that is then empty."""
    around: Any = None
    for part in path[:-1]:
        around, data = data, data.get(part) if isinstance(data, dict) else None
    if isinstance(data, dict) and path and path[-1] in data:
        del data[path[-1]]
        if not data and isinstance(around, dict):
            del around[path[-2]]


def _by_place(error: ValidationError, root: Map) -> Iterable[_Problem]:
    places: dict[tuple[Path, bool], _Problem] = {}
    for one in error.errors(include_url=False, include_input=False):
        path, on_key = _real_path(one, root)
        places.setdefault((path, on_key), _Problem(path, on_key, [])).errors.append(one)
    # Where one member of a union got further, the errors of the others do not matter.
    outer = {path[:cut] for path, _ in places for cut in range(len(path))}
    return [place for place in places.values() if not (_only_kinds(place) and place.path in outer)]


def _only_kinds(problem: _Problem) -> bool:
    return all(error["type"] in _KINDS for error in problem.errors)


def _real_path(error: Mapping[str, Any], root: Map) -> tuple[Path, bool]:
    """Pydantic's location without its additions for unions and keys."""
    location = list(error["loc"])
    kind = error["type"]
    on_key = kind == "extra_forbidden"
    if location and location[-1] == "[key]":
        location.pop()
        on_key = True
    path: Path = ()
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if find(root, (*path, part)) is not None or (last and kind == "missing"):
            path = (*path, part)
    return path, on_key


def _finding(
    problem: _Problem, where: Where, node: Node | None, root: Map, shape: Shape
) -> Finding:
    first, path = problem.errors[0], problem.path
    kind, last = first["type"], str(path[-1]) if path else ""
    found = None if node is None else describe(node)
    kinds = [error["type"] for error in problem.errors]
    if kind == "missing":
        owner = Where(path=path[:-1]).dotted or "the manifest"
        return codes.MISSING_KEY.finding(
            f"Missing key {last!r} in {owner}", where, found=found, expected=f"{last}: ..."
        )
    if kind == "extra_forbidden":
        return _unknown_key(path, where, shape)
    if problem.on_key:
        pattern = str(first.get("ctx", {}).get("pattern"))
        if pattern == NAME_PATTERN:
            return _bad_name(last, where, last)
        return _value(where.dotted, where, last, _PATTERNS.get(pattern, "another key"))
    if path == ("version",):
        return codes.UNKNOWN_VERSION.finding(
            "Unknown version of the manifest's language", where, found=found, expected="1"
        )
    if _only_kinds(problem):
        wanted = " or ".join(dict.fromkeys(_KINDS[one] for one in kinds))
        return codes.WRONG_TYPE.finding(
            f"{where.dotted} must be {wanted}",
            where,
            found=found,
            expected=wanted,
            hint=_type_hint(path, node, found, wanted, shape),
        )
    telling = next(error for error in problem.errors if error["type"] not in _KINDS)
    if telling["type"] == "literal_error":
        return _no_choice(where, found, shape_at(shape, path).choices)
    return _bad_value(telling, where, found)


def _type_hint(
    path: Path, node: Node | None, found: str | None, wanted: str, shape: Shape
) -> str | None:
    if wanted == "a mapping" and isinstance(node, Scalar | Items) and path:
        keys = listed(shape_at(shape, path).fields, 6)
        meant = _as_mapping(path, node)
        if meant is None:
            return keys and f"Write its keys below it: {keys}."
        return f"Write a mapping: {path[-1]}: {meant}."
    if found is not None and found.startswith('"') and wanted not in ("text", "a mapping"):
        return "Remove the quotes." if "list" not in wanted else f"Write it as a list: [{found}]."
    if wanted == "a list" and found is not None and not isinstance(node, Map):
        return f"Write it as a list: [{found}]."
    if wanted == "true or false":
        return "Only true and false are booleans; yes, no, on and off are text."
    return None


def _as_mapping(path: Path, node: Scalar | Items) -> str | None:
    """The value as the mapping that it was probably meant to be."""
    value = node.shown if isinstance(node, Scalar) and not node.is_null else "./folder"
    if path == ("base",):
        return f"{{model: {value}}}"
    if path == ("registries",):
        return f"{{team: {value}}}"
    if path == ("adapters",):
        return f"{{tone: {{source: {value}}}}}"
    if len(path) == 2 and path[0] == "adapters":
        return f"{{source: {value}}}"
    if len(path) == 2 and path[0] == "compositions":
        return "{of: {NAME: 1.0}}, with the names of adapters"
    if len(path) == 3 and path[0] == "compositions" and path[2] == "of":
        nodes = node.items if isinstance(node, Items) else (node,)
        names = [n.shown for n in nodes if isinstance(n, Scalar) and not n.is_null]
        return f"{{{', '.join(f'{name}: 1.0' for name in names or ['NAME'])}}}"
    return None


def _bad_name(name: str, where: Where, found: str | None) -> Finding:
    nearest = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower()).strip("-._")
    # A name made from a secret would still be one.
    hint = f"Use a name such as {nearest!r}." if is_name(nearest) and redact(name) == name else None
    return codes.BAD_NAME.finding(
        f"Invalid name {name!r}", where, found=found, expected=NAME_RULE, hint=hint
    )


def _no_choice(where: Where, found: str | None, choices: tuple[str, ...]) -> Finding:
    return codes.NOT_A_CHOICE.finding(
        f"{where.dotted} must be one of the allowed words",
        where,
        found=found,
        expected=", ".join(choices),
        hint=did_you_mean((found or "").strip('"'), choices),
    )


def _bad_value(error: Mapping[str, Any], where: Where, found: str | None) -> Finding:
    kind, context, path = error["type"], error.get("ctx", {}), where.dotted
    if kind == "string_pattern_mismatch":
        pattern = str(context.get("pattern"))
        if pattern == NAME_PATTERN:
            return _bad_name((found or "").strip('"'), where, found)
    if kind == "value_error":
        said = context.get("error", error["msg"])
        instead = getattr(said, "instead", None)
        return codes.BAD_SOURCE.finding(
            f"Invalid source in {path}: {said}",
            where,
            found=found,
            hint=None if instead is None else f"Write {instead}.",
        )
    return _value(path, where, found, expected_of(error) or str(error["msg"]))


def _value(path: str, where: Where, found: str | None, expected: str) -> Finding:
    return codes.BAD_VALUE.finding(
        f"Invalid value of {path}", where, found=found, expected=expected
    )


def _unknown_key(path: Path, where: Where, shape: Shape) -> Finding:
    key = str(path[-1])
    known = list(shape_at(shape, path[:-1]).fields)
    owner = Where(path=path[:-1]).dotted or ("the manifest" if "version" in known else "the policy")
    hint = did_you_mean(key, known)
    if hint is None and is_secret_name(key):
        hint = "Leave credentials in the environment or a profile; a manifest cannot contain them."
    return codes.UNKNOWN_KEY.finding(
        f"Unknown key {key!r} in {owner}",
        where,
        found=key,
        expected=listed(known),
        hint=hint,
    )
