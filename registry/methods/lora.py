"""LoRA on disk (https://arxiv.org/abs/2106.09685): where each tensor of the file belongs.

Key grammar: PEFT 0.21, ``utils/save_and_load.py`` and ``tuners/lora/layer.py``. A site's roles are
PEFT's own parameter names without ``lora_``:

=================  ===========================  ==================================
role               on disk                      shape
=================  ===========================  ==================================
``A``              ``.lora_A.weight``           (r, in), conv: (r, in, *kernel)
``B``              ``.lora_B.weight``           (out, r), conv: (out, r/groups, 1, ..)
``embedding_A``    ``.lora_embedding_A``        (r, num_embeddings)
``embedding_B``    ``.lora_embedding_B``        (embedding_dim, r)
``B_bias``         ``.lora_B.bias``             (out,)
``magnitude``      ``.lora_magnitude_vector``   (out,), conv: (1, out, 1, ..)
``velora``         ``.lora_velora_embed``       (in / groups,), rounded up
=================  ===========================  ==================================

``magnitude`` is DoRA's (https://arxiv.org/abs/2402.09353), for an embedding (embedding_dim,).
A file may also hold rows of embeddings (:mod:`.trainable_tokens`) and factors of parameters
(:mod:`.lora_parameters`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..files.conversion import Shape
from ..files.facts import AdapterPlan, Layout, ModuleKind, ModuleShape, SitePlan, TensorInfo
from . import lora_attention as attention
from . import lora_parameters as by_name
from . import trainable_tokens as tokens
from .keys import Keys, Roles, factor_by
from .lora_config import OPTIONS, LoraConfig, check_trained
from .lora_variants import BLOCKS, check_config, misplaced
from .method import Method
from .module_plan import plan_of
from .naming import TOKENS, Naming, unwrapped
from .new_lora import beside, check_new
from .patterns import Patterns, PatternTable
from .peft_table import TARGETS
from .targets import TargetSelection

ROLES: Roles = {
    ("lora_A", "weight"): "A",
    ("lora_B", "weight"): "B",
    ("lora_B", "bias"): "B_bias",
    ("lora_embedding_A", ""): "embedding_A",
    ("lora_embedding_B", ""): "embedding_B",
    ("lora_magnitude_vector", ""): "magnitude",
    ("lora_velora_embed", ""): "velora",
    **tokens.ROLES,
}
_factor = factor_by(ROLES)
ROLE_SETS: tuple[frozenset[str], ...] = (
    frozenset({"A", "B"}),
    frozenset({"A", "B", "B_bias"}),
    frozenset({"embedding_A", "embedding_B"}),
    frozenset({"A", "B", "magnitude"}),
    frozenset({"A", "B", "velora"}),
    frozenset({"embedding_A", "embedding_B", "magnitude"}),
)
KINDS: Mapping[ModuleKind, frozenset[str]] = {
    **dict.fromkeys((ModuleKind.LINEAR, ModuleKind.CONV1D, ModuleKind.CONV), frozenset({"A", "B"})),
    ModuleKind.EMBEDDING: frozenset({"embedding_A", "embedding_B"}),
}
"""The kinds of modules that can be adapted, and the factors that each needs."""


def plan(
    config: LoraConfig,
    tensors: Mapping[str, TensorInfo],
    layout: Layout | None,
    patterns: Patterns,
) -> tuple[AdapterPlan, Naming]:
    """See ``MakePlan``."""
    ranks = PatternTable(config.rank_pattern, patterns)
    alphas = PatternTable(config.alpha_pattern, patterns)

    def settled(name: str) -> tuple[int, float, float]:
        rank, alpha = ranks.get(name, config.r), alphas.get(name, config.alpha)
        return rank, alpha, scale_of(config, rank, alpha)

    selection = TargetSelection(config, patterns, KINDS)
    keys = Keys.split(tensors, _factor)
    wrapped = _by_module(keys.factors)
    naming = Naming.find(list(wrapped) or keys.modules, layout)
    sites: list[SitePlan] = []
    taken: set[str] = set()
    leftovers: list[str] = []
    for author, parts in wrapped.items():
        live = naming.live(author)
        if live in taken:  # two names in the file for one live module
            leftovers.extend(key for roles in parts.values() for key in roles.values())
            continue
        taken.add(live)
        if TOKENS in parts and (indices := config.indices_of(author)) is not None:
            sites.append(tokens.site_of(live, parts.pop(TOKENS), indices, f"{TOKENS}."))
        if parts.keys() == {"", attention.INSIDE} and selection.selects(author):
            sites.extend(attention.sites(live, parts, settled(author)))
            continue
        parameters = _parameters(config, tensors, layout, author, live, parts)
        for inside, roles in parts.items():
            name = parameters.get(inside)
            if name is not None:
                rank, alpha, scale = settled(f"{author}.{name}")
                settings: dict[str, Any] = {
                    "parameter": name,
                    "wraps": f"{inside}." if inside else "",
                }
                if config.in_first is not None:
                    settings[by_name.IN_FIRST] = config.in_first
                sites.append(SitePlan(live, by_name.NAME, roles, rank, alpha, scale, settings))
            elif not inside and "rows" not in roles:
                sites.append(
                    SitePlan(live, "LORA", roles, *settled(author), config.settings_at(author))
                )
            else:
                leftovers.extend(roles.values())
    found = tokens.with_followers(sites, layout)
    return plan_of(config, layout, naming, keys, found, leftovers), naming


def _by_module(
    factors: Mapping[str, Mapping[str, str]],
) -> dict[str, dict[str, Mapping[str, str]]]:
    """{module: {what PEFT has wrapped it in: {role: key}}}; plain factors are under ``""``."""
    found: dict[str, dict[str, Mapping[str, str]]] = {}
    for author, roles in factors.items():
        module, inside = unwrapped(author)
        if author.endswith(f".{attention.INSIDE}"):
            module, inside = author[: -len(attention.INSIDE) - 1], f".{attention.INSIDE}"
        found.setdefault(module, {})[inside[1:]] = roles
    return found


def _parameters(
    config: LoraConfig,
    tensors: Mapping[str, TensorInfo],
    layout: Layout | None,
    author: str,
    live: str,
    parts: Mapping[str, Mapping[str, str]],
) -> dict[str, str]:
    """{wrapping: parameter} of the module's own parameters that are adapted by name."""
    if not config.parameters:
        return {}
    wraps = {inside: roles for inside, roles in parts.items() if inside != TOKENS}
    module = layout.modules.get(live) if layout is not None else None
    if module is not None and layout is not None:
        own = [*module.parameters, *layout.unsized.get(live, ())]
        names = by_name.selected(author, config.parameters, own)
    else:
        names = by_name.names_in(config.parameters, author)
        if not names and (len(parts) > 1 or not config.names(author)):
            names = [t for t in config.parameters if "." not in t][: len(parts)]
    return by_name.assigned(names, wraps, tensors, module) if names else {}


def scale_of(config: LoraConfig, rank: int, alpha: float) -> float:
    """``alpha / r``, or ``alpha / sqrt(r)`` for rsLoRA (https://arxiv.org/abs/2312.03732)."""
    return alpha / math.sqrt(rank) if config.rslora else alpha / rank


def shapes(
    site: SitePlan, module: ModuleShape, found: Mapping[str, Shape]
) -> Mapping[str, Shape] | str:
    """The shape of each role's tensor at this module, with the site's rank; or why a variant of
    LoRA cannot adapt it."""
    inner, outer, rank = module.in_features, module.out_features, site.rank
    if site.settings and (reason := misplaced(site, module)):
        return reason
    if inner is None or outer is None:
        return {}
    if module.kind is ModuleKind.EMBEDDING:
        return {
            "embedding_A": (rank, inner),
            "embedding_B": (outer, rank),
            "magnitude": (outer,),
        }
    ones = (1,) * len(module.kernel)
    cut: Mapping[str, int] = site.settings.get(BLOCKS, {})
    return {
        "A": (rank, inner // cut.get("A", 1), *module.kernel),
        "B": (outer, rank // module.groups // cut.get("B", 1), *ones),
        "B_bias": (outer,),
        "magnitude": (1, outer, *ones) if module.kind is ModuleKind.CONV else (outer,),
        "velora": (-(-inner // site.settings.get("groups", 1)),),
    }


METHOD = Method(
    "LORA",
    OPTIONS,
    LoraConfig.of,
    plan,
    ROLES,
    KINDS,
    shapes,
    ROLE_SETS,
    asked_by={"B_bias": "lora_bias", "magnitude": "use_dora", "velora": "velora_config"},
    check_config=check_config,
    check_trained=check_trained,
    selects_too=attention.selected,
    ranked=True,
    dropout="lora_dropout",
    check_new=check_new,
    default_targets=TARGETS["LORA"],
    beside=beside,
    idle=(frozenset({"B", "B_bias"}), frozenset({"embedding_B"})),
)
METHODS = (
    METHOD,
    replace(
        METHOD,
        name=by_name.NAME,
        kinds=dict.fromkeys(ModuleKind, frozenset({"A", "B"})),
        shapes=by_name.shapes,
        role_sets=(),
        asked_by={},
        ranked=False,
        needs_call=by_name.needs_call,
        idle=(frozenset({"A"}), frozenset({"B"})),
    ),
)
"""LoRA at modules, and its sites at parameters."""
