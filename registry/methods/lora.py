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
=================  ===========================  ==================================

``magnitude`` is DoRA's (https://arxiv.org/abs/2402.09353), for an embedding (embedding_dim,).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..facts import AdapterPlan, Layout, ModuleKind, ModuleShape, SitePlan, TensorInfo
from ..patterns import Patterns, PatternTable
from .keys import Roles
from .lora_config import LoraConfig
from .module_plan import plan_on_modules
from .naming import Naming

Shape = tuple[int, ...]

ROLES: Roles = {
    ("lora_A", "weight"): "A",
    ("lora_B", "weight"): "B",
    ("lora_B", "bias"): "B_bias",
    ("lora_embedding_A", ""): "embedding_A",
    ("lora_embedding_B", ""): "embedding_B",
    ("lora_magnitude_vector", ""): "magnitude",
}
ROLE_SETS: tuple[frozenset[str], ...] = (
    frozenset({"A", "B"}),
    frozenset({"A", "B", "B_bias"}),
    frozenset({"embedding_A", "embedding_B"}),
    frozenset({"A", "B", "magnitude"}),
    frozenset({"embedding_A", "embedding_B", "magnitude"}),
)
"""The roles that a site has: one of these, whole."""
KINDS: Mapping[ModuleKind, frozenset[str]] = {
    ModuleKind.LINEAR: frozenset({"A", "B"}),
    ModuleKind.CONV1D: frozenset({"A", "B"}),
    ModuleKind.CONV: frozenset({"A", "B"}),
    ModuleKind.EMBEDDING: frozenset({"embedding_A", "embedding_B"}),
}
"""The kinds of modules that can be adapted, and the factors that each needs."""
PAIRS: tuple[tuple[str, str], ...] = (("A", "B"), ("embedding_A", "embedding_B"))
"""The two factors of a delta, by role."""


def plan(
    config: LoraConfig,
    tensors: Mapping[str, TensorInfo],
    layout: Layout | None,
    patterns: Patterns | None = None,
) -> tuple[AdapterPlan, Naming]:
    """See :data:`~adapterdock.registry.methods.table.MakePlan`."""
    patterns = patterns or Patterns()
    ranks = PatternTable(config.rank_pattern, patterns)
    alphas = PatternTable(config.alpha_pattern, patterns)

    def site(author: str, live: str, roles: Mapping[str, str]) -> SitePlan:
        rank, alpha = ranks.get(author, config.r), alphas.get(author, config.alpha)
        return SitePlan(live, "LORA", roles, rank, alpha, scale_of(config, rank, alpha))

    return plan_on_modules(config, tensors, layout, ROLES, site)


def scale_of(config: LoraConfig, rank: int, alpha: float) -> float:
    """``alpha / r``, or ``alpha / sqrt(r)`` for rsLoRA (https://arxiv.org/abs/2312.03732)."""
    return alpha / math.sqrt(rank) if config.rslora else alpha / rank


def shapes(site: SitePlan, module: ModuleShape, found: Mapping[str, Shape]) -> Mapping[str, Shape]:
    """What each role's tensor must be at this module, with the site's rank."""
    inner, outer, rank = module.in_features, module.out_features, site.rank
    if inner is None or outer is None:
        return {}
    if module.kind is ModuleKind.EMBEDDING:
        return {
            "embedding_A": (rank, inner),
            "embedding_B": (outer, rank),
            "magnitude": (outer,),
        }
    ones = (1,) * len(module.kernel)
    return {
        "A": (rank, inner, *module.kernel),
        "B": (outer, rank // module.groups, *ones),
        "B_bias": (outer,),
        "magnitude": (1, outer, *ones) if module.kind is ModuleKind.CONV else (outer,),
    }
