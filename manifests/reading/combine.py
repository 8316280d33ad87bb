"""Which fields of a composition each way of combining uses, and which it needs.

The names are those of PEFT's ``LoraModel.add_weighted_adapter``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ..findings import language as codes
from ..findings.finding import Finding, Where
from ..language.combine_methods import COMBINE_METHODS, USED_BY
from ..language.schema import Composition
from .nodes import Path

Locate = Callable[[Path], Where]

NEEDED = ("density", "seed")


def check_fields(composition: Composition, locate: Locate) -> Iterator[Finding]:
    """Fields that the method does not use, and missing ones that it needs. ``locate`` gives the
    place of a path inside the composition (the empty path: its own)."""
    method = composition.combine
    row = COMBINE_METHODS[method]
    for field, used in USED_BY.items():
        is_set = getattr(composition, field) is not None
        if is_set and not used(row):
            yield codes.UNUSED_FIELD.finding(
                f"{method!r} does not use {field}",
                locate((field,)),
                found=f"combine: {method}, {field}: {getattr(composition, field)}",
                hint=f"Remove {field}, or choose another method.",
            )
        elif not is_set and field in NEEDED and used(row):
            yield codes.FIELD_NEEDED.finding(
                f"{method!r} needs a {field}",
                locate(()),
                expected="density: 0.5 (more than 0, at most 1)"
                if field == "density"
                else "seed: 7 (any whole number from 0)",
            )
    for member, weight in composition.of.items():
        if isinstance(weight, Mapping) and not row.by_module:
            yield codes.UNUSED_FIELD.finding(
                f"{method!r} needs a single weight for each member",
                locate(("of", member)),
                found=f"{member}: {dict(weight)}",
                expected="a number; weights by module are for sum",
            )
