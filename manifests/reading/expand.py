"""``${NAME}`` and ``${NAME:-default}``: environment variables, only in places that may differ
between machines.

As in a shell, the default replaces a variable that is unset or empty. ``$$`` is a dollar sign. A
value without quotes is read after expanding (so ``${N}`` can become a number), a value in quotes
is always text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..findings import language as codes
from ..findings.finding import Finding
from .nodes import Entry, Items, Map, Node, Path, Scalar, describe
from .secrets import is_secret_name

REST = "**"
EXPANDABLE: tuple[tuple[str, ...], ...] = (
    ("base", "model"),
    ("base", "dtype"),
    ("base", "device_map", REST),
    ("base", "storage_options", REST),
    ("adapters", "*", "source"),
    ("adapters", "*", "dtype"),
    ("adapters", "*", "storage_options", REST),
    ("registries", "*"),
    ("mirrors", "*"),
)
"""Where variables are expanded; ``*`` is any one key, ``**`` everything inside."""

PLACES = (
    "sources, base.model, registries, mirrors, storage_options, dtype and device_map "
    "(there as ${NAME} or ${NAME:-default})"
)

_DOLLAR = re.compile(
    r"\$(?:(?P<dollar>\$)"
    r"|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^${}]*))?\})?"
)


_PLACE = re.compile(r"(?:^|_)(?:ENDPOINT|MIRROR|URL|HOST|HUB|ACCOUNT)(?:_|$)")
"""Names of variables with a place that the user chose. In CI, others have what a stranger wrote: a
branch, a commit's title."""


@dataclass
class Expansion:
    """A tree with its variables expanded, the variables used, and what was wrong."""

    root: Map
    used: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def expand(root: Map, environ: Mapping[str, str]) -> Expansion:
    """Expand every variable in ``root`` (without its ``x-`` keys)."""
    work = _Expander(environ)
    result = work.node(root, ())
    assert isinstance(result, Map)
    return Expansion(result, work.used, work.findings)


def matches(path: Path, pattern: tuple[str, ...]) -> bool:
    """Whether ``path`` is where ``pattern`` points."""
    if pattern[-1] == REST:
        pattern = pattern[:-1]
        path = path[: len(pattern)]
    return len(path) == len(pattern) and all(
        want in ("*", part) for want, part in zip(pattern, path, strict=True)
    )


def is_storage_option(path: Path) -> bool:
    """Whether ``path`` is a value within storage options."""
    return any(
        len(path) >= len(pattern) and matches(path, pattern)
        for pattern in EXPANDABLE
        if pattern[-2:] == ("storage_options", REST)
    )


class _Expander:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.used: dict[str, str] = {}
        self.findings: list[Finding] = []

    def node(self, node: Node, path: Path) -> Node:
        if isinstance(node, Scalar):
            return self.scalar(node, path)
        if isinstance(node, Items):
            items = tuple(self.node(item, (*path, index)) for index, item in enumerate(node.items))
            return replace(node, items=items)
        entries: dict[str, Entry] = {}
        for key, entry in node.entries.items():
            inner = (*path, key)
            if "${" in key:
                self.misplaced(entry.key, inner)
            value = self.node(entry.value, inner)
            if not (_expanded_to_nothing(value) and is_storage_option(inner)):
                entries[key] = entry if value is entry.value else replace(entry, value=value)
        return replace(node, entries=entries)

    def misplaced(self, scalar: Scalar, path: Path) -> None:
        self.findings.append(
            codes.VARIABLE_MISPLACED.finding(
                "Variables are not allowed here",
                scalar.spot.at(path),
                found=describe(scalar),
                expected=f"variables only in {PLACES}",
            )
        )

    def scalar(self, scalar: Scalar, path: Path) -> Scalar:
        if not isinstance(scalar.value, str) or "$" not in scalar.text:
            return scalar
        if not any(matches(path, pattern) for pattern in EXPANDABLE):
            if "${" in scalar.text:
                self.misplaced(scalar, path)
            return scalar
        where = scalar.spot.at(path)
        bad: dict[str, Finding] = {}
        unreadable = False
        names: dict[str, str] = {}

        def replaced(match: re.Match[str]) -> str:
            nonlocal unreadable
            name = match["name"]
            if match["dollar"]:
                return "$"
            if name is None:
                unreadable = True
                return ""
            if is_secret_name(name):
                bad[name] = codes.VARIABLE_SECRET.finding(
                    f"By its name, the variable {name} contains a secret, "
                    "and its value would be written into the lock",
                    where,
                    found="${" + name + "}",
                )
                return ""
            value = self.environ.get(name)
            default = match["default"]
            if default is not None and not value:
                value = default
            if value is None:
                bad[name] = codes.VARIABLE_UNSET.finding(
                    f"The environment variable {name} is not set",
                    where,
                    found=describe(scalar),
                    hint=f"Set {name}, or write a default: ${{{name}:-default}}.",
                )
                return ""
            names[name] = value
            return value

        text = _DOLLAR.sub(replaced, scalar.text)
        if unreadable:  # reported once
            bad = {
                "$": codes.VARIABLE_SYNTAX.finding(
                    "Invalid variable after '$'",
                    where,
                    found=describe(scalar),
                    expected="${NAME}, ${NAME:-default}, or $$ for a dollar sign",
                )
            }
        self.findings += bad.values()
        if bad:
            return scalar
        self.used.update(names)
        single = _DOLLAR.fullmatch(scalar.text)
        name = single["name"] if single is not None else None
        only_where = bool(name and _PLACE.search(name))
        return replace(
            scalar,
            text=text,
            written=scalar.text,
            variables=tuple(names),
            by_user=bool(only_where and name and self.environ.get(name)),
            only_where=only_where,
        )


def _expanded_to_nothing(node: Node) -> bool:
    """An option such as ``endpoint_url: "${S3_ENDPOINT:-}"`` where the variable is not set."""
    return isinstance(node, Scalar) and not node.text and bool(node.variables)
