"""Untying weights that modules share, where a merge changes one module and not the others.

Live, an adapter on a tied embedding leaves the head as it is; written into the shared weight it
would change both. transformers ties by ``tie_word_embeddings`` of the config, so untying clears
that too: else the next load would tie them again.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from ...manifests.findings import merging as codes
from ...manifests.findings.errors import AttachError
from ...manifests.findings.finding import Where
from ..base.empty_model import build
from ..base.modules import ModuleMap
from .fold import Fold

FLAG = "tie_word_embeddings"


def untied_groups(
    model: nn.Module,
    changes: Mapping[str, Fold],
    modules: ModuleMap,
    where: Where = Where(),  # noqa: B008 - frozen
    fields: Mapping[str, Any] | None = None,
) -> list[tuple[str, ...]]:
    """The groups of shared parameters, by their live names, that ``changes`` make different; and
    all that come apart with them: ``tie_word_embeddings`` may tie more (the bias of BERT's
    decoder), and a parameter that it no longer ties would be random after a load.

    Raises :class:`AttachError` unless a model of the same class whose config does not tie has the
    groups apart, and computes the same otherwise. ``fields`` is the config as it is written. A
    model that is not transformers' ties nothing at load.
    """
    found: dict[frozenset[str], tuple[str, ...]] = {}
    for name in changes:
        group = (name, *modules.tied_to(name))
        members = [changes.get(one) for one in group]
        if any(one is None or not one.same_as(changes[name]) for one in members):
            found.setdefault(frozenset(group), group)
    if not found or not hasattr(model, "get_expanded_tied_weights_keys"):
        return list(found.values())
    loose = _loose(cast(Any, model), list(found.values()), fields)
    if isinstance(loose, str):
        names = ", ".join(next(iter(found.values())))
        raise AttachError(codes.MERGE_TIED.finding(f"{names} share one weight: {loose}", where))
    for name in loose:
        if others := modules.tied_to(name):
            found.setdefault(frozenset((name, *others)), (name, *others))
    return list(found.values())


def _loose(
    model: Any, groups: list[tuple[str, ...]], fields: Mapping[str, Any] | None
) -> list[str] | str:
    """The names that a config without the tie leaves untied, or why they cannot be untied."""
    kind = type(model).__name__
    for part in {type(module) for module in model.modules()}:
        code = getattr(inspect.unwrap(part.forward), "__code__", None)
        if code is not None and FLAG in code.co_names:
            return f"{part.__name__} computes something else when they are not tied"
    try:
        written = model.config.to_dict() if fields is None else fields
        before = type(model.config).from_dict(copy.deepcopy(dict(written)))
        config = type(model.config).from_dict(untied_as_written(written, model.config))
        replacement: Any = build(type(model), config)
        still: dict[str, str] = replacement.get_expanded_tied_weights_keys(all_submodels=True)
    except Exception as error:
        return f"cannot make a {kind} without the tie ({type(error).__name__}: {error})"
    if any({name, source} <= set(group) for name, source in still.items() for group in groups):
        return f"{kind} always ties them"
    _clear_ties(before)
    _clear_ties(config)
    if config.to_dict() != before.to_dict():
        return f"the config of {kind} has another meaning when they are not tied"
    return [n for n in model.get_expanded_tied_weights_keys(all_submodels=True) if n not in still]


def _clear_ties(config: Any) -> None:
    for one in _with_parts(config):
        if getattr(one, FLAG, False):
            setattr(one, FLAG, False)


def untied_as_written(fields: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """The fields of a config.json with ``tie_word_embeddings: false`` in every config that ties,
    also in one that ties by default."""
    found = copy.deepcopy(dict(fields))
    if getattr(config, FLAG, False):
        found[FLAG] = False
    for key, part in vars(config).items():
        if hasattr(part, "to_diff_dict") and isinstance(found.get(key), dict):
            found[key] = untied_as_written(found[key], part)
    return found


def _with_parts(config: Any) -> list[Any]:
    inner = [value for value in vars(config).values() if hasattr(value, "to_diff_dict")]
    return [config, *(one for part in inner for one in _with_parts(part))]


@dataclass
class Ties:
    """What a model's config and its list of tied weights said; calling it says so again."""

    model: nn.Module
    flags: list[tuple[Any, bool]]
    keys: Any

    def __call__(self) -> None:
        for one, flag in self.flags:
            setattr(one, FLAG, flag)
        if self.keys is not None:
            cast(Any, self.model).all_tied_weights_keys = self.keys


@dataclass
class Untied:
    """The parameters that modules shared; calling it ties them again."""

    before: list[tuple[nn.Module, str, nn.Parameter]]
    ties: Ties

    def __call__(self) -> None:
        for module, leaf, shared in self.before:
            module._parameters[leaf] = shared  # pyright: ignore[reportPrivateUsage]
        self.ties()


def ties_of(model: nn.Module) -> Ties:
    """What the model's config and its list of tied weights say now."""
    config = getattr(model, "config", None)
    parts = [] if config is None else [one for one in _with_parts(config) if hasattr(one, FLAG)]
    flags = [(one, getattr(one, FLAG)) for one in parts]
    return Ties(model, flags, getattr(model, "all_tied_weights_keys", None))


def untie(model: nn.Module, groups: Collection[tuple[str, ...]], changed: Container[str]) -> Untied:
    """Give every member of the groups but the first a parameter of its own, and return what ties
    the very parameters of now again. Members that are not ``changed`` have the shared
    values, the second of them a copy: a save leaves out tensors that share memory."""
    ties = ties_of(model)
    before: list[tuple[nn.Module, str, nn.Parameter]] = []
    for group in groups:
        taken = group[0] not in changed
        for name in group[1:]:
            path, _, leaf = name.rpartition(".")
            module = model.get_submodule(path)
            shared = cast(nn.Parameter, getattr(module, leaf))
            copied = taken and name not in changed
            taken = taken or name not in changed
            before.append((module, leaf, shared))
            data = shared.data.clone() if copied else shared.data
            own = nn.Parameter(data, requires_grad=shared.requires_grad)
            module._parameters[leaf] = own  # pyright: ignore[reportPrivateUsage]
    config = getattr(model, "config", None)
    if groups and config is not None and hasattr(model, "get_expanded_tied_weights_keys"):
        _clear_ties(config)
    keys = getattr(model, "all_tied_weights_keys", None)
    if groups and isinstance(keys, dict):
        apart = {name for group in groups for name in group}
        pairs = cast("dict[str, str]", keys).items()
        cast(Any, model).all_tied_weights_keys = {k: v for k, v in pairs if k not in apart}
    return Untied(before, ties)
