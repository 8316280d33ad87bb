"""What the checks of a manifest share: the manifest, its places, and common findings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..findings import language as codes
from ..findings.finding import Finding
from ..language.names import is_name
from ..language.rules import unknown_adapter
from ..language.schema import Manifest
from .nodes import Locate, Map, Path, find

MAX_HINTS = 100
"""Unknown names that are compared with every known one: more would take too long."""


@dataclass(frozen=True)
class Gaps:
    """What is missing in a manifest because it was removed for errors of its own.

    ``names`` are adapters and compositions, and ``registries`` registries, that are declared all
    the same, so they may be referred to. ``unsure`` compositions lack a field; ``unplaced``
    adapters have an invalid source or config.
    """

    names: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    unsure: frozenset[str] = frozenset()
    unplaced: frozenset[str] = frozenset()

    @classmethod
    def between(cls, root: Map, manifest: Manifest, wrong: Iterable[Finding]) -> Gaps:
        """What is in ``root`` and not in ``manifest``, because of what is ``wrong`` with it."""

        def declared(section: str) -> list[str]:
            node = find(root, (section,))
            return [n for n in node.entries if is_name(n)] if isinstance(node, Map) else []

        paths = [finding.where.path for finding in wrong if len(finding.where.path) > 2]
        here = {*manifest.adapters, *manifest.compositions}
        names = dict.fromkeys([*declared("adapters"), *declared("compositions")])
        return cls(
            names=tuple(name for name in names if name not in here),
            registries=tuple(declared("registries")),
            unsure=frozenset(
                str(name)
                for section, name, field, *_ in paths
                if section == "compositions" and field != "of"
            ),
            unplaced=frozenset(
                str(name)
                for section, name, field, *_ in paths
                if section == "adapters" and field in ("source", "config")
            ),
        )


@dataclass(frozen=True)
class Subject:
    """A manifest to check."""

    manifest: Manifest
    locate: Locate
    gaps: Gaps = Gaps()
    _hints: Iterator[int] = field(default_factory=lambda: iter(range(MAX_HINTS)), repr=False)

    @cached_property
    def names(self) -> Mapping[str, None]:
        """Every adapter and composition that may be referred to."""
        manifest = self.manifest
        return dict.fromkeys([*manifest.adapters, *manifest.compositions, *self.gaps.names])

    def unknown(self, name: str, path: Path, *, key: bool = False) -> list[Finding]:
        """The finding for a name that is not declared."""
        if name in self.names:
            return []
        hint = next(self._hints, None) is not None
        known = self.names
        if hint:
            known = [one for one in known if path[:2] != ("compositions", one)]
        return [unknown_adapter(name, known, self.locate(path, key=key), hint)]

    def repeated(self, names: Iterable[str], path: Path) -> Iterator[Finding]:
        """Entries that are more than once in a list."""
        seen: set[str] = set()
        for index, name in enumerate(names):
            if name in seen:
                where = self.locate((*path, index))
                yield codes.REPEATED_NAME.finding(f"Duplicate entry {name!r}", where, found=name)
            seen.add(name)

    def bad_value(self, path: Path, found: object, expected: str) -> Finding:
        where = self.locate(path)
        message = f"Invalid value of {where.dotted}"
        return codes.BAD_VALUE.finding(message, where, found=repr(found), expected=expected)

    def not_finite(self, value: Any, path: Path) -> Iterator[Finding]:
        """NaN and infinity in mappings that are passed on: they are locked, and neither YAML nor
        JSON can compare a NaN."""
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from self.not_finite(inner, (*path, key))
        elif isinstance(value, (list, tuple)):
            for index, inner in enumerate(value):
                yield from self.not_finite(inner, (*path, index))
        elif isinstance(value, float) and not math.isfinite(value):
            yield self.bad_value(path, value, "a finite number")
