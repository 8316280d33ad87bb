"""OFT (https://arxiv.org/abs/2306.07280): blocks of a module's input are rotated, at an embedding
blocks of its output.

Fields, tensors and kinds: PEFT 0.21.2, ``tuners/oft/config.py``, ``layer.py`` and ``model.py``. The
role is ``R`` (on disk ``.oft_R.weight``), at an embedding ``embedding_R``
(``.oft_embedding_R.weight``): one row for each block (a single one with ``block_share``), and in it
the upper triangle of a skew-symmetric matrix, size * (size - 1) / 2 values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ...manifests.findings import fit as codes
from ...manifests.findings import training
from ...manifests.findings.finding import Finding, Where
from ..files.conversion import Shape
from ..files.facts import AdapterPlan, Layout, ModuleKind, ModuleShape, SitePlan, TensorInfo
from .default_targets import TARGETS
from .keys import Roles
from .method import Method
from .module_plan import plan_on_modules
from .naming import Naming
from .options import MAX_RANK, Option, Support, boolean, number, one_of, optional, whole_up_to
from .patterns import Patterns
from .peft_version import version_of
from .tuner_config import TARGET_OPTIONS, TunerConfig, where_of

MAX_TERMS = 100
"""Terms of the Neumann series; PEFT's default is 5."""

_S, _NO = Support.SUPPORTED, Support.NO_EFFECT

OPTIONS: tuple[Option, ...] = (
    *TARGET_OPTIONS,
    Option("r", _S, "is the number of blocks", whole_up_to(MAX_RANK)),
    Option("oft_block_size", _S, "is the size of a block", whole_up_to(MAX_RANK)),
    Option("block_share", _S, "gives all blocks one rotation", optional(boolean)),
    Option("coft", _S, "keeps the rotation small", optional(boolean)),
    Option("eps", _S, "says how small", number),
    Option("use_cayley_neumann", _S, "approximates the rotation by a series", boolean),
    Option("num_cayley_neumann_terms", _S, "says how far", whole_up_to(MAX_TERMS)),
    Option("bias", _S, "trains biases of the base", optional(one_of("none", "all", "oft_only"))),
    Option("module_dropout", _NO, "is read and never applied by PEFT"),
    Option("fan_in_fan_out", _NO, "is of no use at the modules that OFT adapts"),
    Option("init_weights", _NO, "is how training began"),
)
ROLES: Roles = {("oft_R", "weight"): "R", ("oft_embedding_R", "weight"): "embedding_R"}
ROLE_SETS: tuple[frozenset[str], ...] = (frozenset({"R"}), frozenset({"embedding_R"}))
KINDS: Mapping[ModuleKind, frozenset[str]] = {
    ModuleKind.LINEAR: frozenset({"R"}),
    ModuleKind.CONV: frozenset({"R"}),
    ModuleKind.EMBEDDING: frozenset({"embedding_R"}),
}

_NEUMANN_SINCE = (0, 18)
"""The PEFT (major, minor) that changed the series' last term."""


@dataclass(frozen=True)
class OftConfig(TunerConfig):
    """What of OFT's config changes the computation. One of ``r`` and ``block_size`` is 0;
    ``settings`` are those of every site."""

    r: int = 0
    block_size: int = 32
    block_share: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> OftConfig:
        """From ``adapter_config.json`` whose fields are of the right kind; fields that are left
        out have PEFT's defaults."""
        r, size = config.get("r", 0), config.get("oft_block_size", 32)
        share = bool(config.get("block_share"))
        settings: dict[str, Any] = {
            "r": r,
            "block_size": size,
            "block_share": share,
            "terms": config.get("num_cayley_neumann_terms", 5)
            if config.get("use_cayley_neumann", True)
            else None,
            "eps": config.get("eps", 6e-5) if config.get("coft") else None,
        }
        return cls(
            **where_of(config),
            r=r,
            block_size=size,
            block_share=share,
            bias=config.get("bias") or "none",
            settings=MappingProxyType(settings),
        )


def check_config(config: Mapping[str, Any], where: Where) -> list[Finding]:
    """Sizes that contradict each other, and formulas that PEFT has changed since."""
    r, size = config.get("r", 0), config.get("oft_block_size")
    if size is None:
        message = "oft_block_size is missing: another OFT, of PEFT before 0.14, wrote this adapter"
        return [codes.OPTION_CONTRADICTION.finding(message, where)]
    if bool(r) == bool(size):
        message = f"one of r ({r}) and oft_block_size ({size}) must be 0, and the other not"
        return [codes.OPTION_CONTRADICTION.finding(message, where)]
    if not config.get("use_cayley_neumann", True):
        return []
    written = version_of(config)
    if written is not None and written.at_least(*_NEUMANN_SINCE):
        return []
    return [
        codes.OFT_FORMULA_CHANGED.finding(
            "use_cayley_neumann was another series when this adapter was trained",
            where,
            found=f"peft_version: {config.get('peft_version')}",
            expected="0.18 or later",
        )
    ]


def complete(
    config: Mapping[str, Any], base: Mapping[str, Any], layout: Layout | None
) -> Mapping[str, Any]:
    """PEFT's size of a block, which files of an older OFT lack."""
    return {"oft_block_size": 32, **config}


def check_new(config: Mapping[str, Any], where: Where) -> list[Finding]:
    """Initialisations that PEFT does not have."""
    how = config.get("init_weights", True)
    if isinstance(how, bool):
        return []
    message = "init_weights is no way to begin OFT"
    return [training.FRESH_INIT.finding(message, where, found=how, expected="true or false")]


def plan(
    config: OftConfig,
    tensors: Mapping[str, TensorInfo],
    layout: Layout | None,
    patterns: Patterns | None = None,
) -> tuple[AdapterPlan, Naming]:
    """See ``MakePlan``."""

    def site(author: str, live: str, roles: Mapping[str, str]) -> SitePlan:
        return SitePlan(live, "OFT", roles, 0, 1.0, 1.0, config.settings)

    return plan_on_modules(config, tensors, layout, ROLES, site)


def shapes(
    site: SitePlan, module: ModuleShape, found: Mapping[str, Shape]
) -> Mapping[str, Shape] | str:
    """What the tensor must be at this module, or why there can be none."""
    width = module.in_features or 0
    if module.kind is ModuleKind.EMBEDDING:
        width = module.out_features or 0
    elif module.kind is ModuleKind.CONV:
        if len(module.kernel) != 2 or module.kernel[0] != module.kernel[1]:
            return "a convolution whose kernel is no square"
        width *= math.prod(module.kernel)
    settings = site.settings
    blocks, size = blocks_of(width, settings["r"], settings["block_size"])
    shape = (1 if settings["block_share"] else blocks, size * (size - 1) // 2)
    return {"R": shape, "embedding_R": shape}


def blocks_of(width: int, r: int, size: int) -> tuple[int, int]:
    """(blocks, size of a block), whose product is ``width``. What does not divide it is replaced
    by the nearest that does, the smaller of two."""
    wanted = size or r
    if wanted > width:
        wanted = width
    elif width % max(wanted, 1):
        wanted = min(_divisors(width), key=lambda n: (abs(n - wanted), n))
    other = width // max(wanted, 1)
    return (other, wanted) if size else (wanted, other)


def _divisors(number: int) -> list[int]:
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return [*small, *(number // n for n in small)]


METHOD = Method(
    "OFT",
    OPTIONS,
    OftConfig.of,
    plan,
    ROLES,
    ROLE_SETS,
    KINDS,
    shapes,
    check_config=check_config,
    complete=complete,
    check_new=check_new,
    default_targets=TARGETS["OFT"],
    idle=(frozenset({"R"}), frozenset({"embedding_R"})),
)
