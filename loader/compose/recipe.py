"""Compositions of one model: defining, reweighing, rebuilding and saving them.

A ``sum`` is a routing: nothing is computed before it is used. Every other method becomes an
adapter under the composition's name, computed on the CPU in float32 and then placed as any other.
"""

from __future__ import annotations

import os
import types
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from pydantic import ValidationError
from safetensors.torch import save

from ...manifests.findings import language as language_codes
from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AttachError, RoutingError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.schema import Composition
from ...manifests.language.weights import ModuleWeights, Weight, Written
from ...manifests.reading.combine import check_fields
from ...registry.files.together import write_together
from ..adapter.adapter import Built
from ..base.load_base import hub_name
from ..build.build_adapter import build_adapter
from ..lifecycle.save_adapter import on_cpu
from ..model.attach import check_free, put_adapters
from ..routing.selection import check_composition, taking_part
from ..sites.bias import bias_of
from ..weights.tensors import read_bytes
from ..weights.write import adapter_bytes
from .combined import Combined, combine_members
from .materialise import completed, config_of, plan_of, tensors_of
from .members import member_of
from .pairs import Place, plain

if TYPE_CHECKING:
    from ..model.adapter_set import Holder

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


def compose(
    model: Holder,
    name: str,
    recipe: Composition,
    of: Mapping[str, Written],
    *,
    dtype: torch.dtype | None = None,
    replace: bool = False,
    where: Where = Where(),  # noqa: B008 - frozen
) -> Mapping[str, Weight]:
    """Attach the adapter that ``recipe`` makes of ``of`` under ``name``, in ``dtype`` (else that
    of the modules that it sits on); returns the weights.

    All or nothing. Raises :class:`RoutingError` for what cannot be combined, and what attaching
    raises.
    """
    weights, built = composed(model, name, recipe, of, dtype=dtype, replace=replace, where=where)
    put_adapters(model, built, where)
    return weights


def composed(
    model: Holder,
    name: str,
    recipe: Composition,
    of: Mapping[str, Written],
    *,
    dtype: torch.dtype | None = None,
    replace: bool = False,
    where: Where = Where(),  # noqa: B008 - frozen
) -> tuple[Mapping[str, Weight], list[Built]]:
    """The weights, and what :func:`compose` attaches: the adapter, and those that are made of the
    one that it replaces. Nothing of it is on the model yet."""
    weights = check_composition(name, of, model.attached, where)
    check_free(model, name, replace, where)
    built = made(model, name, recipe, weights, dtype=dtype, where=where)
    return weights, [built, *made_again(model, [built], where)]


def made(
    model: Holder,
    name: str,
    recipe: Composition,
    weights: Mapping[str, Weight],
    arriving: Mapping[str, Built] = types.MappingProxyType({}),
    *,
    dtype: torch.dtype | None = None,
    where: Where = Where(),  # noqa: B008 - frozen
) -> Built:
    """The adapter that ``recipe`` makes of members that are the model's, or are ``arriving`` in
    their place; it is not on the model yet. Raises as :func:`compose`."""
    with members_of(model, weights, arriving) as members:
        combined = combination(model, recipe, weights, members, where)
        return build_adapter(
            model,
            name,
            plan_of(combined, model.layout),
            read_bytes(save(tensors_of(combined)), where=where),
            members=taking_part([(members[n].adapter, w) for n, w in weights.items()]),
            dtype=dtype,
            where=where,
        )


@contextmanager
def members_of(
    model: Holder,
    names: Collection[str],
    arriving: Mapping[str, Built] = types.MappingProxyType({}),
) -> Generator[dict[str, Built], None, None]:
    """Those ``arriving``, else the model's own, whose weights are there during the block."""
    here = [name for name in names if name not in arriving]
    with model.present(model.attached[name] for name in here):
        yield {name: arriving.get(name) or model.built_of(name) for name in names}


def made_again(model: Holder, changed: Iterable[Built], where: Where) -> list[Built]:
    """The compositions that are computed from adapters that ``changed`` takes the place of,
    computed anew; not on the model yet."""
    new = {built.adapter.name: built for built in changed}
    found: list[Built] = []
    for name in dependents(model.recipes, new.keys()):
        weights = model.compositions[name]
        new[name] = made(model, name, model.recipes[name], weights, new, where=where)
        found.append(new[name])
    return found


def combination(
    model: Holder,
    recipe: Composition,
    weights: Mapping[str, Weight],
    members: Mapping[str, Built],
    where: Where = Where(),  # noqa: B008 - frozen
) -> Combined:
    """What ``recipe`` makes of adapters, float32 on the CPU."""
    places: dict[str, Place] = {}
    parts: list[Any] = []
    problems: list[Finding] = []
    for name in weights:
        member, found, odd = member_of(model, members[name], where)
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
    model: Holder, folder: str | os.PathLike[str], name: str, combined: Combined
) -> None:
    """Write ``combined`` as an adapter that PEFT loads. Raises :class:`AttachError`, and leaves
    files that were there as they were, where that cannot be done."""
    place = Path(folder)
    where = Where(file=str(place))
    if not combined.sites:
        raise AttachError(
            codes.COMPOSITION_NOT_SAVED.finding(f"{name!r} adds nothing to any module", where)
        )
    base, layout = model.get_base_model(), model.layout
    modules = model.modules_of_base.by_name
    biases: dict[str, torch.Tensor] = {}
    if combined.biases:
        for module in layout.modules:
            bias = bias_of(modules[module])
            if bias is not None:
                biases[module] = plain(bias)
    whole = completed(combined, layout, biases)
    config = config_of(whole, layout, class_name=type(base).__name__, base_name=hub_name(base))
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
