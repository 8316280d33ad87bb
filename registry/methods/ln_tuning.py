"""LN tuning on disk (https://arxiv.org/abs/2312.11420): whole modules, trained; norms by name.

Key grammar: PEFT 0.21, ``tuners/ln_tuning/``: ``<module>.ln_tuning_layers.<parameter>``. PEFT takes
any module; what is stored is the module's own parameters, whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..files.facts import AdapterPlan, Layout, ModuleKind, ModuleShape, SitePlan, TensorInfo
from .default_targets import TARGETS
from .keys import Keys, Roles
from .method import Method
from .module_plan import plan_of
from .naming import Naming, strip_peft_prefix
from .options import Option
from .patterns import Patterns
from .tuner_config import TARGET_OPTIONS, TunerConfig, where_of

OPTIONS: tuple[Option, ...] = TARGET_OPTIONS
ROLES: Roles = {}
KINDS: Mapping[ModuleKind, frozenset[str]] = {kind: frozenset() for kind in ModuleKind}
WRAPPER = "ln_tuning_layers"


def read(config: Mapping[str, Any]) -> TunerConfig:
    """The config says where, and nothing else."""
    return TunerConfig(**where_of(config))


def plan(
    config: TunerConfig,
    tensors: Mapping[str, TensorInfo],
    layout: Layout | None,
    patterns: Patterns | None = None,
) -> tuple[AdapterPlan, Naming]:
    """See ``MakePlan``. There are no sites: the modules are
    ``tuned``."""
    inside = f".{WRAPPER}."
    own = {key: strip_peft_prefix(key) for key in tensors}
    keys = Keys.split((key for key, name in own.items() if inside not in name), ROLES)
    found = [(key, *name.split(inside, 1)) for key, name in own.items() if inside in name]
    naming = Naming.find([module for _, module, _ in found] or keys.modules, layout)
    tuned: dict[str, dict[str, str]] = {}
    leftovers: list[str] = []
    for key, module, path in found:
        parameters = tuned.setdefault(naming.live(module), {})
        if parameters.setdefault(path, key) is not key or inside in f".{path}.":
            leftovers.append(key)
    made = plan_of(config, layout, naming, keys, (), leftovers)
    return replace(made, tuned=tuned, tuned_by=METHOD.peft_type), naming


def split_keys(tensors: Iterable[str]) -> Keys:
    """The file's keys by module, and those that are of no tuned module."""
    inside = f".{WRAPPER}."
    own = {key: strip_peft_prefix(key) for key in tensors}
    keys = Keys.split((key for key, name in own.items() if inside not in name), ROLES)
    for key, name in own.items():
        module, wrapped, path = name.partition(inside)
        if wrapped:
            keys.factors.setdefault(module, {}).setdefault(path, key)
    return keys


def shapes(
    site: SitePlan, module: ModuleShape, found: Mapping[str, tuple[int, ...]]
) -> Mapping[str, tuple[int, ...]]:
    """Nothing: there are no sites."""
    return {}


METHOD = Method(
    "LN_TUNING",
    OPTIONS,
    read,
    plan,
    ROLES,
    (),
    KINDS,
    shapes,
    split_keys=split_keys,
    default_targets=TARGETS["LN_TUNING"],
    copied_as=WRAPPER,
)
