"""Recipes of compositions: checking them, their dependents, and saving what they make.

A ``sum`` is a routing: nothing is computed before it is used. Every other method becomes an
adapter under the composition's name, computed on the CPU in float32 and then placed as any other.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from ...manifests.findings import language as language_codes
from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AttachError, RoutingError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.schema import Composition
from ...manifests.language.weights import ModuleWeights, Written
from ...manifests.reading.combine import check_fields
from ...manifests.reading.complaints import expected_of
from ...registry.files.together import write_together
from ..base.live_base import LiveBase
from ..sites.bias import bias_of
from ..weights.write import adapter_bytes, on_cpu
from .combined import Combined
from .materialise import completed, config_of, tensors_of
from .pairs import plain


def recipe_of(
    combine: str,
    of: Mapping[str, Written],
    options: Mapping[str, Any],
    where: Where = Where(),  # noqa: B008
) -> Composition:
    """The recipe, checked without the adapters. ``options`` are ``density``,
    ``majority_sign_method``, ``svd_rank``, ``svd_clamp`` and ``seed``; ``None`` is left out. Raises
    :class:`RoutingError` for an unknown method, and for options that are missing, unused or
    invalid."""
    fields = {name: value for name, value in options.items() if value is not None}
    anything = {"member": 1.0}  # names and weights are checked against the adapters
    try:
        recipe = Composition.model_validate(
            {"combine": combine, "of": anything, **fields}, strict=True
        )
    except ValidationError as error:
        raise RoutingError(*(_bad_value(one, where) for one in error.errors())) from error
    globs = {n: {} if isinstance(w, ModuleWeights) else w for n, w in of.items()}
    recipe = recipe.model_copy(update={"of": globs})
    problems = list(check_fields(recipe, lambda path: replace(where, path=(*where.path, *path))))
    if problems:
        raise RoutingError(*problems)
    return recipe


def dependents(recipes: Mapping[str, Composition], changed: Collection[str]) -> list[str]:
    """Compositions that became adapters and have one of ``changed`` among their members, directly
    or through one another, in the order in which to rebuild them."""
    found = set(changed)
    order: list[str] = []
    for name, recipe in recipes.items():
        if recipe.combine != "sum" and found & recipe.of.keys():
            found.add(name)
            order.append(name)
    return order


def save_combination(
    live: LiveBase,
    folder: str | os.PathLike[str],
    name: str,
    combined: Combined,
    base_name: str | None,
) -> None:
    """Write ``combined`` as an adapter that PEFT loads and that records ``base_name``. Raises
    :class:`AttachError`, and leaves the folder as it was, if that fails."""
    place = Path(folder)
    where = Where(file=str(place))
    if not combined.sites:
        raise AttachError(
            codes.COMPOSITION_NOT_SAVED.finding(f"{name!r} does not change any module", where)
        )
    layout, modules = live.layout, live.modules.by_name
    biases: dict[str, torch.Tensor] = {}
    if combined.biases:
        found = ((module, bias_of(modules[module])) for module in layout.modules)
        biases = {module: plain(bias) for module, bias in found if bias is not None}
    combined = completed(combined, layout, biases)
    config = config_of(combined, layout, class_name=type(live.module).__name__, base_name=base_name)
    try:
        write_together(place, adapter_bytes(config, on_cpu(tensors_of(combined))))
    except OSError as error:
        raise AttachError(
            codes.COMPOSITION_NOT_SAVED.finding(f"Cannot write {name!r}: {error.strerror}", where)
        ) from error


def _bad_value(error: Mapping[str, Any], where: Where) -> Finding:
    field = ".".join(str(part) for part in error["loc"])
    expected = expected_of(error) or error["msg"]
    return language_codes.BAD_VALUE.finding(
        f"Invalid value for {field}", where, found=repr(error["input"]), expected=expected
    )


def weights_of(adapters: Iterable[str], weights: Iterable[float]) -> dict[str, float]:
    """PEFT's two lists as one mapping. Raises :class:`RoutingError` if their lengths differ or a
    name is there twice."""
    names, values = list(adapters), list(weights)
    if len(names) != len(values):
        raise RoutingError(
            codes.SELECTION_INVALID.finding(
                f"Expected {len(names)} weights, one for each adapter, and found {len(values)}",
                found=f"{names}, {values}",
                hint="Pass as many weights as adapters.",
            )
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RoutingError(codes.SELECTION_INVALID.finding(f"Duplicate adapter {twice[0]!r}"))
    return dict(zip(names, values, strict=True))
