"""Compositions that become adapters, and are made again when their members change."""

from __future__ import annotations

import types
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager

import torch
from safetensors.torch import save

from ...manifests.findings.finding import Where
from ...manifests.language.schema import Composition
from ...manifests.language.weights import Weight, Written
from ..adapter.adapter import Built
from ..build.build_adapter import build_adapter
from ..compose.materialise import plan_of, tensors_of
from ..compose.recipe import combination, dependents
from ..routing.selection import check_composition, taking_part
from ..weights.tensors import read_bytes
from .adapter_set import Holder
from .attach import check_free, put_adapters


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
        combined = combination(model.live, recipe, weights, members, where)
        return build_adapter(
            model.live,
            name,
            plan_of(combined, model.live.layout),
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
