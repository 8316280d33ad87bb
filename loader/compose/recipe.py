"""Compositions of one model: defining, reweighing, rebuilding and saving them.

A ``sum`` is a routing: nothing is computed before it is used. Every other method becomes an
adapter under the composition's name, computed on the CPU in float32 and then placed as any other.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError

from ...manifests.findings import language as language_codes
from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AttachError, RoutingError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.schema import Composition
from ...manifests.language.weights import ModuleWeights, Weight, Written
from ...manifests.reading.combine import check_fields
from ...registry.files.together import write_together
from ..adapter.adapter import Built
from ..base.live_base import LiveBase
from ..sites.bias import bias_of
from ..weights.write import adapter_bytes, on_cpu
from .combined import Combined, combine_members
from .materialise import completed, config_of, tensors_of
from .members import member_of
from .pairs import PairPlace, plain

Options = Mapping[str, Any]
"""``density``, ``majority_sign_method``, ``svd_rank``, ``svd_clamp``, ``seed``: those given."""


def recipe_of(
    combine: str,
    of: Mapping[str, Written],
    options: Options,
    where: Where = Where(),  # noqa: B008
) -> Composition:
    """The recipe, checked by itself. Raises :class:`RoutingError` for an unknown method, and for
    options that are missing, of no use, or no values."""
    given = {name: value for name, value in options.items() if value is not None}
    of_any = {"member": 1.0}  # names and weights are checked against the adapters
    try:
        recipe = Composition.model_validate(
            {"combine": combine, "of": of_any, **given}, strict=True
        )
    except ValidationError as error:
        raise RoutingError(*(_bad_value(one, where) for one in error.errors())) from error
    problems = list(check_fields(recipe, lambda path: _within(where, path)))
    weighted = [n for n, weight in of.items() if isinstance(weight, Mapping | ModuleWeights)]
    if recipe.combine != "sum" and weighted:
        problems += [
            language_codes.UNUSED_FIELD.finding(
                f"{recipe.combine!r} takes one weight for each member", where, found=name
            )
            for name in weighted
        ]
    if problems:
        raise RoutingError(*problems)
    return recipe


def combination(
    live: LiveBase,
    recipe: Composition,
    weights: Mapping[str, Weight],
    members: Mapping[str, Built],
    where: Where = Where(),  # noqa: B008 - frozen
) -> Combined:
    """What ``recipe`` makes of adapters, float32 on the CPU."""
    places: dict[str, PairPlace] = {}
    parts: list[Any] = []
    problems: list[Finding] = []
    for name in weights:
        member, found, odd = member_of(live, members[name], where)
        problems += odd
        parts.append(member)
        places = {**found, **places}
    if problems:
        raise RoutingError(*problems)
    return combine_members(recipe, parts, list(weights.values()), places, where)


def dependents(recipes: Mapping[str, Composition], changed: Collection[str]) -> list[str]:
    """Compositions that became adapters and have one of ``changed`` among their members, directly
    or through one another, in the order in which they are to be made again."""
    found = set(changed)
    order: list[str] = []
    for name, recipe in recipes.items():
        if recipe.combine != "sum" and found & recipe.of.keys():
            found.add(name)
            order.append(name)
    return order


def save_combination(
    live: LiveBase, folder: str | os.PathLike[str], name: str, combined: Combined
) -> None:
    """Write ``combined`` as an adapter that PEFT loads. Raises :class:`AttachError`, and leaves
    files that were there as they were, where that cannot be done."""
    place = Path(folder)
    where = Where(file=str(place))
    if not combined.sites:
        raise AttachError(
            codes.COMPOSITION_NOT_SAVED.finding(f"{name!r} adds nothing to any module", where)
        )
    layout, modules = live.layout, live.modules.by_name
    biases: dict[str, torch.Tensor] = {}
    if combined.biases:
        for module in layout.modules:
            bias = bias_of(modules[module])
            if bias is not None:
                biases[module] = plain(bias)
    whole = completed(combined, layout, biases)
    config = config_of(
        whole, layout, class_name=type(live.module).__name__, base_name=live.hub_name
    )
    try:
        write_together(place, adapter_bytes(config, on_cpu(tensors_of(whole))))
    except OSError as error:
        raise AttachError(
            codes.COMPOSITION_NOT_SAVED.finding(
                f"{name!r} could not be written: {error.strerror}", where
            )
        ) from error


def _within(where: Where, path: Sequence[str | int]) -> Where:
    return Where(where.file, (*where.path, *path), where.line, where.column)


def _bad_value(error: Mapping[str, Any], where: Where) -> Finding:
    field = ".".join(str(part) for part in error["loc"])
    context = cast("Mapping[str, Any]", error.get("ctx", {}))
    expected = context.get("expected", error["msg"])
    return language_codes.BAD_VALUE.finding(
        f"{field} cannot have this value", where, found=repr(error["input"]), expected=expected
    )


def weights_of(adapters: Iterable[str], weights: Iterable[float]) -> dict[str, float]:
    """PEFT's two lists as one mapping. Raises :class:`RoutingError` where they do not pair."""
    names, values = list(adapters), list(weights)
    if len(names) != len(values):
        raise RoutingError(
            codes.SELECTION_INVALID.finding(
                f"{len(names)} adapters have {len(values)} weights",
                found=f"{names}, {values}",
                expected="one weight for each adapter",
            )
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RoutingError(codes.SELECTION_INVALID.finding(f"{twice[0]!r} is selected twice"))
    return dict(zip(names, values, strict=True))
