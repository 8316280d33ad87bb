"""Parting weights that modules share, where a merge changes one module and not the others.

Live, an adapter on a tied embedding leaves the head as it is; written into the shared weight it
would change both. transformers ties by ``tie_word_embeddings`` of the config, so parting them means
that the config says so too: else the next load would tie them again.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, cast

import torch
from torch import nn

from ...manifests.findings import merging as codes
from ...manifests.findings.errors import AttachError
from ...manifests.findings.finding import Where
from ..base.empty_model import build
from ..base.modules import ModuleMap
from .fold import Fold

FLAG = "tie_word_embeddings"


def parted(changes: Mapping[str, Fold], modules: ModuleMap) -> list[tuple[str, ...]]:
    """The groups of shared parameters, by their live names, of which the members become
    different."""
    groups: dict[frozenset[str], tuple[str, ...]] = {}
    for name in changes:
        others = modules.tied_to(name)
        if others and not _all_the_same([changes.get(one) for one in (name, *others)]):
            groups.setdefault(frozenset((name, *others)), (name, *others))
    return list(groups.values())


def _all_the_same(changes: Iterable[Fold | None]) -> bool:
    """Whether every member becomes the same tensor (a saved embedding and its head, trained tokens
    of both)."""
    first: Fold | None = None
    for change in changes:
        if change is None:
            return False
        first = first or change
        if change is not first and not _same(change, first):
            return False
    return True


def _same(one: Fold, other: Fold) -> bool:
    if one.new is not other.new and (
        one.new is None
        or other.new is None
        or one.new.dtype is not other.new.dtype
        or not torch.equal(one.new, other.new)
    ):
        return False
    pairs = zip(one.additions, other.additions, strict=False)
    return len(one.additions) == len(other.additions) and all(a.same_as(b) for a, b in pairs)


def configs_that_tie(model: nn.Module) -> list[Any]:
    """The model's config and those within it that say ``tie_word_embeddings: true``."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(model, "get_expanded_tied_weights_keys"):
        return []
    return [one for one in _with_parts(config) if getattr(one, FLAG, False)]


def untied(
    model: nn.Module,
    groups: list[tuple[str, ...]],
    modules: ModuleMap,
    where: Where = Where(),  # noqa: B008 - frozen
    fields: Mapping[str, Any] | None = None,
) -> list[tuple[str, ...]]:
    """All groups that come apart when ``groups`` do: ``tie_word_embeddings`` may tie more (the
    bias of BERT's decoder), and what it ties no more would be random after a load.

    Raises :class:`AttachError` unless a model of the same class whose config does not tie has the
    groups apart, and computes the same otherwise. ``fields`` is the config as it is written. A
    model that transformers does not know ties nothing at load.
    """
    if not groups or not hasattr(model, "get_expanded_tied_weights_keys"):
        return groups
    loose = _loose(cast(Any, model), groups, fields)
    if isinstance(loose, str):
        names = ", ".join(groups[0])
        raise AttachError(codes.MERGE_TIED.finding(f"{names} share one weight: {loose}", where))
    found = {frozenset(group): group for group in groups}
    for name in loose:
        others = modules.tied_to(name)
        if others:
            found.setdefault(frozenset((name, *others)), (name, *others))
    return list(found.values())


def _loose(
    model: Any, groups: list[tuple[str, ...]], fields: Mapping[str, Any] | None
) -> list[str] | str:
    """The names that are tied no more where the config does not tie, or why that is no way."""
    kind = type(model).__name__
    for part in {type(module) for module in model.modules()}:
        code = getattr(inspect.unwrap(part.forward), "__code__", None)
        if code is not None and FLAG in code.co_names:
            return f"{part.__name__} computes something else where they are not tied"
    try:
        written = model.config.to_dict() if fields is None else fields
        before = type(model.config).from_dict(copy.deepcopy(dict(written)))
        config = type(model.config).from_dict(untied_as_written(written, model.config))
        replacement: Any = build(type(model), config)
        still: dict[str, str] = replacement.get_expanded_tied_weights_keys(all_submodels=True)
    except Exception as error:
        return f"{kind} cannot be made without the tie ({type(error).__name__}: {error})"
    if any({name, source} <= set(group) for name, source in still.items() for group in groups):
        return f"{kind} always ties them"
    if untied_fields(config.to_dict()) != untied_fields(before.to_dict()):
        return f"the config of {kind} means something else where they are not tied"
    return [n for n in model.get_expanded_tied_weights_keys(all_submodels=True) if n not in still]


def untied_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A config's fields, in which nothing is tied any more."""
    found = {
        key: untied_fields(cast("Mapping[str, Any]", value)) if isinstance(value, dict) else value
        for key, value in copy.deepcopy(dict(fields)).items()
    }
    if found.get(FLAG):
        found[FLAG] = False
    return found


def untied_as_written(fields: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """The fields of a config.json, in which every config that ties says that it does not: also
    one that ties by default."""
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


def ties_of(model: nn.Module) -> Callable[[], None]:
    """How to have the model's config and its list of tied weights say again what they say now."""
    config = getattr(model, "config", None)
    parts = [] if config is None else [one for one in _with_parts(config) if hasattr(one, FLAG)]
    said = [(one, getattr(one, FLAG)) for one in parts]
    keys = getattr(model, "all_tied_weights_keys", None)

    def put_back() -> None:
        for one, flag in said:
            setattr(one, FLAG, flag)
        if keys is not None:
            cast(Any, model).all_tied_weights_keys = keys

    return put_back


class Untied:
    """Parameters of a live model that were parted, and how to put them together again."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._parameters: list[tuple[nn.Module, str, nn.Parameter]] = []
        self._configs: list[Any] = []
        self._keys: Any = None

    def part(self, groups: Iterable[tuple[str, ...]], changed: Container[str]) -> None:
        """Give every member but the first a parameter of its own. Those that are not ``changed``
        have the shared values, the second of them a copy: a save leaves out what shares memory.
        What goes wrong midway, :meth:`undo` takes back."""
        groups = list(groups)
        for group in groups:
            taken = group[0] not in changed
            for name in group[1:]:
                path, _, leaf = name.rpartition(".")
                module = self._model.get_submodule(path)
                shared = cast(nn.Parameter, getattr(module, leaf))
                copied = taken and name not in changed
                taken = taken or name not in changed
                self._parameters.append((module, leaf, shared))
                data = shared.data.clone() if copied else shared.data
                own = nn.Parameter(data, requires_grad=shared.requires_grad)
                module._parameters[leaf] = own  # pyright: ignore[reportPrivateUsage]
        if groups:
            for config in configs_that_tie(self._model):
                self._configs.append(config)
                setattr(config, FLAG, False)
            self._keys = getattr(self._model, "all_tied_weights_keys", None)
            if isinstance(self._keys, dict):
                gone = {name for group in groups for name in group}
                kept = {
                    k: v for k, v in cast("dict[str, str]", self._keys).items() if k not in gone
                }
                cast(Any, self._model).all_tied_weights_keys = kept

    def as_it_is(self) -> Callable[[], None]:
        """How to make this record what it is now."""
        parameters, configs, keys = list(self._parameters), list(self._configs), self._keys

        def put_back() -> None:
            self._parameters, self._configs, self._keys = parameters, configs, keys

        return put_back

    def undo(self) -> None:
        """Tie them again: the very parameters that were there."""
        with torch.no_grad():
            while self._parameters:
                module, leaf, shared = self._parameters.pop()
                module._parameters[leaf] = shared  # pyright: ignore[reportPrivateUsage]
        while self._configs:
            setattr(self._configs.pop(), FLAG, True)
        if self._keys is not None:
            cast(Any, self._model).all_tied_weights_keys = self._keys
            self._keys = None
