"""VeRA on disk (https://arxiv.org/abs/2310.11454): two vectors for each module, and two random
matrices that all modules share.

Key grammar and sizes: PEFT 0.21, ``tuners/vera/``. The shared matrices are as large as the largest
adapted module needs, and each module uses their first columns or rows. With ``save_projection:
false`` they are not in the file, and are computed from ``projection_prng_key``.

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
from .keys import Keys, Roles, factor_by
from .method import Method
from .module_plan import by_live_name, plan_of
from .naming import Naming
from .new_adapter import NewAdapter
from .options import Option, Support, boolean, index, number, optional
from .patterns import Patterns
from .peft_table import TARGETS
from .tuner_config import FAN_IN_FAN_OUT, RANK, TARGET_OPTIONS, TunerConfig, bias_of, where_of

_S, _NO = Support.SUPPORTED, Support.NO_EFFECT
OPTIONS: tuple[Option, ...] = (
    *TARGET_OPTIONS,
    RANK,
    Option("projection_prng_key", _S, "is the seed of the shared matrices", index),
    Option("save_projection", _S, "says whether the file has them", optional(boolean)),
    FAN_IN_FAN_OUT,
    bias_of("vera"),
    Option("vera_dropout", _NO, "is the dropout while training", number),
    Option("d_initial", _NO, "is the initial value of lambda_d", number),
    Option("init_weights", _NO, "is the initialisation", optional(boolean)),
)
ROLES: Roles = {
    ("vera_lambda_b", ""): "lambda_b",
    ("vera_lambda_d", ""): "lambda_d",
    ("vera_A", ""): "A",
    ("vera_B", ""): "B",
}
_VECTORS = frozenset({"lambda_b", "lambda_d"})
SHARED = ("A", "B")
"""Roles whose tensors all sites share."""
_OWNER = "base_model"
"""The start of the shared matrices' keys: PEFT stores them outside the model."""


@dataclass(frozen=True)
class VeraConfig(TunerConfig):
    """The part of VeRA's config that changes the computation."""

    r: int = 256
    seed: int = 0
    saved: bool = True

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> VeraConfig:
        """From checked fields of ``adapter_config.json``; absent ones have PEFT's defaults."""
        return cls(
            **where_of(config),
            r=config.get("r", 256),
            seed=config.get("projection_prng_key", 0),
            saved=bool(config.get("save_projection", True)),
            fan_in_fan_out=bool(config.get("fan_in_fan_out")),
        )


def plan(
    config: VeraConfig, tensors: Mapping[str, TensorInfo], layout: Layout | None, patterns: Patterns
) -> tuple[AdapterPlan, Naming]:
    """See ``MakePlan``. Every site has the shared matrices among its tensors, where the file has
    them."""
    keys = Keys.split(tensors, factor_by(ROLES))
    own = dict(keys.factors)
    outside = own.pop(_OWNER, {})
    shared = {role: key for role, key in outside.items() if role in SHARED}
    leftovers = [key for role, key in outside.items() if role not in SHARED]
    naming = Naming.find(list(own) or keys.modules, layout)
    for author in [author for author, parts in own.items() if not _VECTORS.issuperset(parts)]:
        leftovers.extend(own.pop(author).values())
    modules, repeated = by_live_name(own, naming)
    sites = [
        SitePlan(live, "VERA", {**parts, **shared}, config.r, 1.0, 1.0, {"seed": config.seed})
        for live, (_, parts) in modules.items()
    ]
    return plan_of(config, layout, naming, keys, sites, [*leftovers, *repeated]), naming


def beside(new: NewAdapter) -> Mapping[str, Shape]:
    """The shared matrices of a new adapter, if its file is to have them."""
    modules = [new.layout.modules[name] for name in new.chosen]
    if not new.config.saved or not modules:
        return {}
    inner = max(module.in_features or 0 for module in modules)
    outer = max(module.out_features or 0 for module in modules)
    r = new.config.r
    return {f"{_OWNER}.vera_A": (r, inner), f"{_OWNER}.vera_B": (outer, r)}


def shapes(site: SitePlan, module: ModuleShape, found: Mapping[str, Shape]) -> Mapping[str, Shape]:
    """The shape of each role's tensor at this module; the shared ones may be larger."""
    inner, outer, r = module.in_features, module.out_features, site.rank
    if inner is None or outer is None:
        return {}
    a, b = found.get("A", ()), found.get("B", ())
    widest = max(inner, a[1]) if len(a) == 2 else inner
    highest = max(outer, b[0]) if len(b) == 2 else outer
    return {"lambda_b": (outer,), "lambda_d": (r,), "A": (r, widest), "B": (highest, r)}


def check_plan(config: VeraConfig, plan: AdapterPlan, where: Where) -> list[Finding]:
    """Find shared matrices that are missing though the config says that they were saved, or one
    without the other. They are not computed from the seed then: its numbers depend on the machine,
    and the author chose to save them."""
    if not plan.sites:
        return []
    missing = [role for role in SHARED if role not in plan.sites[0].tensors]
    if not missing or (len(missing) == len(SHARED) and not config.saved):
        return []
    return [
        codes.HALF_PRESENT.finding(
            f"Shared matrices are missing: {', '.join(f'vera_{role}' for role in missing)}",
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
    dict.fromkeys((ModuleKind.LINEAR, ModuleKind.CONV1D), _VECTORS),
    shapes,
    (_VECTORS, _VECTORS | set(SHARED)),
    check_plan=check_plan,
    dropout="vera_dropout",
    default_targets=TARGETS["VERA"],
    beside=beside,
    idle=(frozenset({"lambda_b"}), frozenset({"lambda_d"})),
)
