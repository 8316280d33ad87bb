"""Where a manifest refers to an adapter or a composition by its name."""

from __future__ import annotations

from collections.abc import Iterator

from .schema import Manifest


def uses_of(manifest: Manifest, name: str) -> Iterator[tuple[str | int, ...]]:
    """The path of each place that refers to ``name``: compositions, rules and ``active``."""
    for other, composition in manifest.compositions.items():
        if name in composition.of:
            yield ("compositions", other, "of", name)
    for group, names in enumerate(manifest.rules.exclusive):
        for index, one in enumerate(names):
            if one == name:
                yield ("rules", "exclusive", group, index)
    for other, names in manifest.rules.requires.items():
        if other == name:
            yield ("rules", "requires", other)
        for index, one in enumerate(names):
            if one == name:
                yield ("rules", "requires", other, index)
    active = manifest.active
    if active == name:
        yield ("active",)
    elif isinstance(active, tuple) and name in active:
        yield ("active", active.index(name))
