"""Trainable tokens on disk: single rows of an embedding, replaced.

Key grammar: PEFT 0.21, ``tuners/trainable_tokens/`` and ``utils/other.py``. The key is
``<embedding>.trainable_tokens_delta``, and in a LoRA with ``trainable_token_indices``
``<embedding>.token_adapter.trainable_tokens_delta``. Despite this name the tensor is not a
difference: it holds the new rows (tokens, embedding_dim), in the order of the config's indices.

A module that is tied to the input embedding (a head, or a decoder's embedding) has the same rows
replaced. It is a site of its own, whose settings say which module it ``follows``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..files.conversion import Shape
from ..files.facts import Layout, ModuleKind, ModuleShape, SitePlan
from .keys import Roles
from .method import Method
from .module_plan import MakeSite, on_modules
from .new_adapter import input_embedding
from .options import Option, Support, boolean, index, list_of, optional
from .patterns import Patterns
from .tuner_config import TARGET_OPTIONS, TunerConfig, where_of

NAME = "TRAINABLE_TOKENS"
OPTIONS: tuple[Option, ...] = (
    *TARGET_OPTIONS,
    Option("token_indices", Support.SUPPORTED, "names the rows", list_of(index)),
    Option("init_weights", Support.NO_EFFECT, "is the initialisation", optional(boolean)),
)
ROLES: Roles = {("trainable_tokens_delta", ""): "rows"}


@dataclass(frozen=True)
class TokensConfig(TunerConfig):
    """The part of the method's config that changes the computation."""

    indices: tuple[int, ...] = ()

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> TokensConfig:
        return cls(**where_of(config), indices=tuple(config.get("token_indices") or ()))


def complete(
    config: Mapping[str, Any], base: Mapping[str, Any], layout: Layout | None
) -> Mapping[str, Any]:
    """Name the token embedding in a new config that names no module."""
    if config.get("target_modules") is not None or layout is None:
        return config
    return {**config, "target_modules": input_embedding(layout)}


def sites(config: TokensConfig, patterns: Patterns) -> MakeSite:
    """What makes the sites."""
    return lambda author, live, tensors: site_of(live, tensors, config.indices)


def site_of(
    live: str, tensors: Mapping[str, str], indices: tuple[int, ...], wraps: str = ""
) -> SitePlan:
    """The site of these rows. Its rank is 0, since it has no factors. ``wraps`` is the part of
    their names after the module's."""
    return SitePlan(live, NAME, tensors, 0, 1.0, 1.0, {"indices": indices, "wraps": wraps})


def with_followers(sites: list[SitePlan], layout: Layout | None) -> list[SitePlan]:
    """``sites``, and one for each module that is tied to an embedding among them.

    As in PEFT, no module follows if one of them has rows of its own with other indices. A module
    for which the file repeats the rows follows too.
    """
    found = {site.module: site for site in sites if site.method == NAME}
    if layout is None or not found:
        return sites
    for site in list(found.values()):
        module = layout.modules.get(site.module)
        if module is None or module.kind is not ModuleKind.EMBEDDING:
            continue
        tied = [name for name in _tied_to(site.module, layout) if name in layout.modules]
        own = [found[name] for name in tied if name in found]
        if "follows" in site.settings or any(o.settings != site.settings for o in own):
            continue
        settings = {**site.settings, "follows": site.module}
        for name in tied:
            known = found.get(name)  # attaching compares its tensor, which must be equal
            found[name] = (known or site)._replace(module=name, settings=settings)
    return [*(site for site in sites if site.method != NAME), *found.values()]


def _tied_to(module: str, layout: Layout) -> Iterator[str]:
    """Modules that share the weight of ``module``, the input embedding."""
    for one, source in layout.tied.items():
        if source == f"{module}.weight" and one.endswith(".weight"):
            yield one.removesuffix(".weight")


def shapes(site: SitePlan, module: ModuleShape, found: Mapping[str, Shape]) -> Mapping[str, Shape]:
    """(tokens, embedding_dim), at the embedding and at the head."""
    embedding = module.kind is ModuleKind.EMBEDDING
    width = module.out_features if embedding else module.in_features
    return {} if width is None else {"rows": (len(site.settings["indices"]), width)}


def rows_of(module: ModuleShape) -> int | None:
    """The number of tokens of an embedding or a head."""
    return module.in_features if module.kind is ModuleKind.EMBEDDING else module.out_features


METHOD = Method(
    NAME,
    OPTIONS,
    TokensConfig.of,
    on_modules(ROLES, sites, with_followers),
    ROLES,
    dict.fromkeys((ModuleKind.EMBEDDING, ModuleKind.LINEAR), frozenset({"rows"})),
    shapes,
    complete=complete,
    needs_call=lambda site: False,  # code that reads the rows without a call gets the adapter's
)
