"""VeRA on disk (https://arxiv.org/abs/2310.11454): two vectors a module, and two random matrices
that all modules share.

Key grammar and sizes: PEFT 0.21, ``tuners/vera/``. The shared matrices are as large as the largest
adapted module needs, and each module uses their first columns or rows. With ``save_projection:
false`` they are not in the file, and are made again from ``projection_prng_key``.

=============  =======================  ==================================
role           on disk                  shape
=============  =======================  ==================================
``lambda_b``   ``.vera_lambda_b``       (out,)
``lambda_d``   ``.vera_lambda_d``       (r,)
``A``          ``base_model.vera_A``    (r, the largest in)
``B``          ``base_model.vera_B``    (the largest out, r)
=============  =======================  ==================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Where
from ..files.conversion import Shape
from ..files.facts import AdapterPlan, Layout, ModuleKind, ModuleShape, SitePlan, TensorInfo
from .default_targets import TARGETS
from .keys import Keys, Roles
from .method import Method
from .module_plan import plan_of
from .naming import Naming
from .new_adapter import NewAdapter
from .options import Option, Support, boolean, index, number, one_of, optional, rank
from .patterns import Patterns
from .tuner_config import TARGET_OPTIONS, TunerConfig, where_of

_S, _NO = Support.SUPPORTED, Support.NO_EFFECT
OPTIONS: tuple[Option, ...] = (
    *TARGET_OPTIONS,
    Option("r", _S, "is the rank", rank),
    Option("projection_prng_key", _S, "is the seed of the shared matrices", index),
    Option("save_projection", _S, "says whether the file has them", optional(boolean)),
    Option("fan_in_fan_out", _S, "says how the weight is stored", optional(boolean)),
    Option("bias", _S, "trains biases of the base", optional(one_of("none", "all", "vera_only"))),
    Option("vera_dropout", _NO, "is the dropout while training", number),
    Option("d_initial", _NO, "is what lambda_d began with", number),
    Option("init_weights", _NO, "is how training began", optional(boolean)),
)
ROLES: Roles = {
    ("vera_lambda_b", ""): "lambda_b",
    ("vera_lambda_d", ""): "lambda_d",
    ("vera_A", ""): "A",
    ("vera_B", ""): "B",
}
ROLE_SETS: tuple[frozenset[str], ...] = (
    frozenset({"lambda_b", "lambda_d"}),
    frozenset({"lambda_b", "lambda_d", "A", "B"}),
)
_VECTORS = frozenset({"lambda_b", "lambda_d"})
KINDS: Mapping[ModuleKind, frozenset[str]] = {
    ModuleKind.LINEAR: _VECTORS,
    ModuleKind.CONV1D: _VECTORS,
}
SHARED = ("A", "B")
"""Roles whose tensors all sites share."""
_OWNER = "base_model"
"""What the shared matrices' keys begin with: PEFT keeps them beside the model, not in it."""


@dataclass(frozen=True)
class VeraConfig(TunerConfig):
    """What of VeRA's config changes the computation."""

    r: int = 256
    seed: int = 0
    saved: bool = True

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> VeraConfig:
        bias = config.get("bias") or "none"
        return cls(
            **where_of(config),
            r=config.get("r", 256),
            seed=config.get("projection_prng_key", 0),
            saved=bool(config.get("save_projection", True)),
            fan_in_fan_out=bool(config.get("fan_in_fan_out")),
            bias="lora_only" if bias == "vera_only" else bias,  # of the adapted modules alone
        )


def plan(
    config: VeraConfig,
    tensors: Mapping[str, TensorInfo],
    layout: Layout | None,
    patterns: Patterns | None = None,
) -> tuple[AdapterPlan, Naming]:
    """See ``MakePlan``. Every site has the shared matrices
    among its tensors, where the file has them."""
    keys = Keys.split(tensors, ROLES)
    own = {author: parts for author, parts in keys.factors.items() if author != _OWNER}
    shared = {r: k for r, k in keys.factors.get(_OWNER, {}).items() if r in SHARED}
    naming = Naming.find(list(own) or keys.modules, layout)
    sites: dict[str, SitePlan] = {}
    leftovers = [k for k in keys.factors.get(_OWNER, {}).values() if k not in shared.values()]
    for author, parts in own.items():
        live = naming.live(author)
        if live in sites or not _VECTORS.issuperset(parts):
            leftovers.extend(parts.values())
            continue
        roles = {**parts, **shared}
        sites[live] = SitePlan(live, "VERA", roles, config.r, 1.0, 1.0, {"seed": config.seed})
    return plan_of(config, layout, naming, keys, sites.values(), leftovers), naming


def beside(new: NewAdapter) -> Mapping[str, Shape]:
    """The shared matrices of an adapter that is begun, where its file is to have them."""
    modules = [new.layout.modules[name] for name in new.chosen]
    if not new.config.saved or not modules:
        return {}
    inner = max(module.in_features or 0 for module in modules)
    outer = max(module.out_features or 0 for module in modules)
    r = new.config.r
    return {f"{_OWNER}.vera_A": (r, inner), f"{_OWNER}.vera_B": (outer, r)}


def shapes(site: SitePlan, module: ModuleShape, found: Mapping[str, Shape]) -> Mapping[str, Shape]:
    """What each role's tensor must be at this module; the shared ones may be larger."""
    inner, outer, r = module.in_features, module.out_features, site.rank
    if inner is None or outer is None:
        return {}
    a, b = found.get("A", ()), found.get("B", ())
    widest = max(inner, a[1]) if len(a) == 2 else inner
    highest = max(outer, b[0]) if len(b) == 2 else outer
    return {"lambda_b": (outer,), "lambda_d": (r,), "A": (r, widest), "B": (highest, r)}


def check_plan(config: VeraConfig, plan: AdapterPlan, where: Where) -> list[Finding]:
    """One finding where the file lacks the shared matrices, or one of them, though the config says
    that they were saved. They are then not made again from the seed: which numbers a seed gives
    depends on the machine, and the author chose to save them."""
    if not plan.sites:
        return []
    missing = [role for role in SHARED if role not in plan.sites[0].tensors]
    if not missing or (len(missing) == len(SHARED) and not config.saved):
        return []
    return [
        codes.HALF_PRESENT.finding(
            f"shared matrices are missing: {', '.join(f'vera_{role}' for role in missing)}",
            where,
            found=f"save_projection: {str(config.saved).lower()}",
            expected="base_model.vera_A and base_model.vera_B",
        )
    ]


METHOD = Method(
    "VERA",
    OPTIONS,
    VeraConfig.of,
    plan,
    ROLES,
    ROLE_SETS,
    KINDS,
    shapes,
    check_plan=check_plan,
    dropout="vera_dropout",
    default_targets=TARGETS["VERA"],
    beside=beside,
    idle=(frozenset({"lambda_b"}), frozenset({"lambda_d"})),
)
