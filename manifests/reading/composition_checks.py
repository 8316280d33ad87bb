"""Checks of compositions: their fields, their members, and what they multiply out to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..findings import language as codes
from ..findings.errors import RoutingError
from ..findings.finding import Finding, Where
from ..language.rules import Flat, check_active, cycles, members_of
from ..language.schema import Composition
from ..language.weights import weight_of
from .combine import check_fields
from .nodes import Path
from .subject import Subject


def check_compositions(subject: Subject) -> Iterator[Finding]:
    """Each composition by itself, and cycles among them."""
    flat: dict[str, Flat] = {}
    for name, composition in subject.manifest.compositions.items():
        if name not in subject.gaps.unsure:
            yield from _fields(subject, name, composition)
        for member, weight in composition.of.items():
            yield from _weight(subject, name, member, weight)
            yield from _member(subject, name, member)
        yield from _flat(subject, name, flat)
    for cycle in cycles(subject.manifest):
        yield codes.COMPOSITION_CYCLE.finding(
            f"{cycle[0]!r} contains itself: {' > '.join((*cycle, cycle[0]))}",
            subject.locate(("compositions", cycle[0]), key=True),
        )


def _fields(subject: Subject, name: str, composition: Composition) -> Iterator[Finding]:
    def locate(path: Path) -> Where:
        return subject.locate(("compositions", name, *path), key=True)

    return check_fields(composition, locate)


def _member(subject: Subject, name: str, member: str) -> Iterator[Finding]:
    manifest, path = subject.manifest, ("compositions", name, "of", member)
    if member in manifest.adapters or member not in manifest.compositions:
        yield from subject.unknown(member, path, key=True)
        return
    outer, inner = manifest.compositions[name].combine, manifest.compositions[member].combine
    if not subject.gaps.unsure & {name, member} and (outer != "sum" or inner != "sum"):
        yield codes.NESTED_COMPOSITION.finding(
            f"{name!r} ({outer}) cannot contain the composition {member!r} ({inner})",
            subject.locate(path, key=True),
            found=member,
            expected="adapters, or a sum in a sum",
        )


def _weight(
    subject: Subject, name: str, member: str, weight: float | Mapping[str, float]
) -> Iterator[Finding]:
    """Weights are finite, and at least one of several is not 0."""
    path: Path = ("compositions", name, "of", member)
    several = isinstance(weight, Mapping)
    found = dict(weight) if isinstance(weight, Mapping) else {"": weight}
    bad = [glob for glob, one in found.items() if not math.isfinite(one)]
    if not bad and any(found.values()):
        return
    yield codes.BAD_WEIGHT.finding(
        f"Invalid weight of {member!r} in {name!r}",
        subject.locate((*path, bad[0]) if several and bad else path),
        found=found[bad[0]] if bad else (found if several else weight),
        expected="a finite number other than 0",
    )


def _flat(subject: Subject, name: str, flat: dict[str, Flat]) -> Iterator[Finding]:
    where = subject.locate(("compositions", name), key=True)
    try:
        active = members_of(subject.manifest, name, flat).weights
    except RoutingError as error:  # unknown names and cycles are reported elsewhere
        deep = error.findings[0]
        if deep.expected is not None and deep.code == codes.COMPOSITION_CYCLE.id:
            yield replace(deep, where=where)
        return
    gone = [adapter for adapter, weight in active.items() if not weight]
    written = subject.manifest.compositions[name].of.values()
    if gone and all(weight_of(weight) for weight in written):
        yield codes.BAD_WEIGHT.finding(
            f"The weights of {', '.join(gone)} cancel out in {name!r}",
            subject.locate(("compositions", name, "of")),
            found="0 in total",
            expected="a total other than 0",
        )
    yield from check_active(subject.manifest.rules, active, None, where)
