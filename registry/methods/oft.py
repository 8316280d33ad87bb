"""OFT (https://arxiv.org/abs/2306.07280) rotates blocks of a module's input, and at an embedding
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
from ..files.facts import ModuleKind, ModuleShape, SitePlan
from .keys import Roles
from .method import Method
from .module_plan import MakeSite, on_modules
from .options import MAX_RANK, Option, Support, boolean, number, optional, whole_up_to
from .patterns import Patterns
from .peft_table import TARGETS
from .peft_version import version_of
from .tuner_config import TARGET_OPTIONS, TunerConfig, bias_of, where_of

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
    bias_of("oft"),
    Option("module_dropout", _NO, "is read and never applied by PEFT"),
    Option("fan_in_fan_out", _NO, "is not used by OFT"),
    Option("init_weights", _NO, "is the initialisation"),
)
ROLES: Roles = {("oft_R", "weight"): "R", ("oft_embedding_R", "weight"): "embedding_R"}

_NEUMANN_SINCE = (0, 18)
"""The PEFT (major, minor) that changed the series' last term."""


@dataclass(frozen=True)
class OftConfig(TunerConfig):
    """The part of OFT's config that changes the computation; each site has the ``settings``. One
    of ``r`` and ``block_size`` is 0."""

    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> OftConfig:
        """From checked fields of ``adapter_config.json``; absent ones have PEFT's defaults."""
        settings: dict[str, Any] = {
            "r": config.get("r", 0),
            "block_size": config.get("oft_block_size", 32),
            "block_share": bool(config.get("block_share")),
            "terms": config.get("num_cayley_neumann_terms", 5)
            if config.get("use_cayley_neumann", True)
            else None,
            "eps": config.get("eps", 6e-5) if config.get("coft") else None,
        }
        return cls(**where_of(config), settings=MappingProxyType(settings))


def check_config(config: Mapping[str, Any], where: Where) -> list[Finding]:
    """Find sizes that contradict each other, and formulas that PEFT has changed since."""
    r, size = config.get("r", 0), config.get("oft_block_size")
    if size is None:
        message = "oft_block_size is missing: PEFT before 0.14 wrote this adapter, with another OFT"
        return [codes.OPTION_CONTRADICTION.finding(message, where)]
    if bool(r) == bool(size):
        message = f"Exactly one of r ({r}) and oft_block_size ({size}) must be 0"
        return [codes.OPTION_CONTRADICTION.finding(message, where)]
    if not config.get("use_cayley_neumann", True):
        return []
    written = version_of(config)
    if written is not None and written.at_least(*_NEUMANN_SINCE):
        return []
    return [
        codes.OFT_FORMULA_CHANGED.finding(
            "use_cayley_neumann meant another series when this adapter was trained",
            where,
            found=f"peft_version: {config.get('peft_version')}",
            expected="0.18 or later",
        )
    ]


def check_new(config: Mapping[str, Any], where: Where) -> list[Finding]:
    """Find an initialisation that PEFT does not have."""
    how = config.get("init_weights", True)
    if isinstance(how, bool):
        return []
    message = f"Invalid init_weights {how!r} for a new OFT adapter"
    return [training.NEW_INIT.finding(message, where, found=how, expected="true or false")]


def sites(config: OftConfig, patterns: Patterns) -> MakeSite:
    """What makes the sites; they have blocks in place of a rank."""
    return lambda author, live, tensors: SitePlan(
        live, "OFT", tensors, 0, 1.0, 1.0, config.settings
    )


def shapes(
    site: SitePlan, module: ModuleShape, found: Mapping[str, Shape]
) -> Mapping[str, Shape] | str:
    """The shape of the tensor at this module, or why it cannot be adapted."""
    width = module.in_features or 0
    if module.kind is ModuleKind.EMBEDDING:
        width = module.out_features or 0
    elif module.kind is ModuleKind.CONV:
        if len(module.kernel) != 2 or module.kernel[0] != module.kernel[1]:
            return "a convolution whose kernel is not square"
        width *= math.prod(module.kernel)
    settings = site.settings
    blocks, size = blocks_of(width, settings["r"], settings["block_size"])
    shape = (1 if settings["block_share"] else blocks, size * (size - 1) // 2)
    return {"R": shape, "embedding_R": shape}


def blocks_of(width: int, r: int, size: int) -> tuple[int, int]:
    """(blocks, size of a block), whose product is ``width``. A number that does not divide it is
    replaced by the nearest divisor, the smaller of two."""
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
    on_modules(ROLES, sites),
    ROLES,
    {
        ModuleKind.LINEAR: frozenset({"R"}),
        ModuleKind.CONV: frozenset({"R"}),
        ModuleKind.EMBEDDING: frozenset({"embedding_R"}),
    },
    shapes,
    check_config=check_config,
    complete=lambda config, base, layout: {"oft_block_size": 32, **config},
    check_new=check_new,
    default_targets=TARGETS["OFT"],
    idle=(frozenset({"R"}), frozenset({"embedding_R"})),
)
