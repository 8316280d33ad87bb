"""Trainable tokens on disk: single rows of an embedding, replaced.

Key grammar: PEFT 0.21, ``tuners/trainable_tokens/`` and ``utils/other.py``. The method's own files
say ``<embedding>.trainable_tokens_delta``, LoRA's with ``trainable_token_indices``
``<embedding>.token_adapter.trainable_tokens_delta``; despite its name it is no difference, but the
new rows (tokens, embedding_dim), in the order of the indices in the config.

What is tied to the input embedding (a head, or a decoder's embedding) has the same rows replaced:
a site of its own, whose settings say which module it ``follows``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..files.conversion import Shape
from ..files.facts import AdapterPlan, Layout, ModuleKind, ModuleShape, SitePlan, TensorInfo
from .keys import Keys, Roles
from .method import Method
from .module_plan import plan_of
from .naming import Naming
from .new_adapter import input_embedding
from .options import Option, Support, boolean, index, list_of, optional
from .patterns import Patterns
from .tuner_config import TARGET_OPTIONS, TunerConfig, where_of

NAME = "TRAINABLE_TOKENS"
OPTIONS: tuple[Option, ...] = (
    *TARGET_OPTIONS,
    Option("token_indices", Support.SUPPORTED, "names the rows", list_of(index)),
    Option("init_weights", Support.NO_EFFECT, "is how training began", optional(boolean)),
)
ROLES: Roles = {("trainable_tokens_delta", ""): "rows"}
ROLE_SETS: tuple[frozenset[str], ...] = (frozenset({"rows"}),)
KINDS: Mapping[ModuleKind, frozenset[str]] = {
    ModuleKind.EMBEDDING: frozenset({"rows"}),
    ModuleKind.LINEAR: frozenset({"rows"}),
}


@dataclass(frozen=True)
class TokensConfig(TunerConfig):
    """What of the method's config changes the computation."""

    indices: tuple[int, ...] = ()

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> TokensConfig:
        return cls(**where_of(config), indices=tuple(config.get("token_indices") or ()))


def complete(
    config: Mapping[str, Any], base: Mapping[str, Any], layout: Layout | None
) -> Mapping[str, Any]:
    """The token embedding, where a new config names no module."""
    if config.get("target_modules") is not None or layout is None:
        return config
    return {**config, "target_modules": input_embedding(layout)}


def plan(
    config: TokensConfig,
    tensors: Mapping[str, TensorInfo],
    layout: Layout | None,
    patterns: Patterns | None = None,
) -> tuple[AdapterPlan, Naming]:
    """See ``MakePlan``."""
    keys = Keys.split(tensors, ROLES)
    naming = Naming.find(keys.modules, layout)
    sites: dict[str, SitePlan] = {}
    leftovers: list[str] = []
    for author, parts in keys.factors.items():
        live = naming.live(author)
        if live in sites:
            leftovers.extend(parts.values())
        else:
            sites[live] = site_of(live, parts, config.indices)
    found = with_followers(list(sites.values()), layout)
    return plan_of(config, layout, naming, keys, found, leftovers), naming


def site_of(
    live: str, tensors: Mapping[str, str], indices: tuple[int, ...], wraps: str = ""
) -> SitePlan:
    """The site of these rows; a rank of 0, for there are no factors. ``wraps`` is what stands
    between the module's name and theirs."""
    return SitePlan(live, NAME, tensors, 0, 1.0, 1.0, {"indices": indices, "wraps": wraps})


def with_followers(sites: list[SitePlan], layout: Layout | None) -> list[SitePlan]:
    """``sites``, and one for each module that is tied to an embedding among them.

    As PEFT ties them: unless another tied module has rows of its own with other indices. One that
    the file repeats the rows for follows too.
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
            known = found.get(name)  # its tensor must be equal; the attach compares
            found[name] = (known or site)._replace(module=name, settings=settings)
    return [*(site for site in sites if site.method != NAME), *found.values()]


def _tied_to(module: str, layout: Layout) -> Iterator[str]:
    """Modules whose weight is that of ``module``, the input embedding."""
    for one, source in layout.tied.items():
        if source == f"{module}.weight" and one.endswith(".weight"):
            yield one.removesuffix(".weight")


def shapes(site: SitePlan, module: ModuleShape, found: Mapping[str, Shape]) -> Mapping[str, Shape]:
    """(tokens, embedding_dim), whether the module is the embedding or the head."""
    embedding = module.kind is ModuleKind.EMBEDDING
    width = module.out_features if embedding else module.in_features
    return {} if width is None else {"rows": (len(site.settings["indices"]), width)}


def rows_of(module: ModuleShape) -> int | None:
    """How many tokens the embedding, or the head, knows."""
    return module.in_features if module.kind is ModuleKind.EMBEDDING else module.out_features


METHOD = Method(
    NAME,
    OPTIONS,
    TokensConfig.of,
    plan,
    ROLES,
    ROLE_SETS,
    KINDS,
    shapes,
    complete=complete,
    needs_call=lambda site: False,  # rows that are read elsewhere are the adapter's there
)
