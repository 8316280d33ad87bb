"""LN tuning on disk (https://arxiv.org/abs/2312.11420): trained copies of modules, usually norms.

Key grammar: PEFT 0.21, ``tuners/ln_tuning/``: ``<module>.ln_tuning_layers.<parameter>``. PEFT takes
any module and stores all of its own parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..files.facts import AdapterPlan, Layout, ModuleKind, TensorInfo
from .keys import Keys
from .method import Method
from .module_plan import plan_of
from .naming import Naming
from .patterns import Patterns
from .peft_table import TARGETS
from .tuner_config import TARGET_OPTIONS, TunerConfig, where_of

WRAPPER = "ln_tuning_layers"


def plan(
    config: TunerConfig,
    tensors: Mapping[str, TensorInfo],
    layout: Layout | None,
    patterns: Patterns,
) -> tuple[AdapterPlan, Naming]:
    """See ``MakePlan``. There are no sites: the modules are ``tuned``."""
    keys = Keys.split(tensors, factor)
    naming = Naming.find(keys.modules, layout)
    tuned: dict[str, dict[str, str]] = {}
    leftovers: list[str] = []
    for author, parts in keys.factors.items():
        parameters = tuned.setdefault(naming.live(author), {})
        for path, key in parts.items():
            if parameters.setdefault(path, key) is not key or WRAPPER in path.split("."):
                leftovers.append(key)
    made = plan_of(config, layout, naming, keys, (), leftovers)
    return replace(made, tuned=tuned, tuned_by=METHOD.peft_type), naming


def factor(name: str) -> tuple[str, str | None]:
    """The tuned module, and the parameter's path in it; see ``Factor``."""
    module, wrapped, path = name.partition(f".{WRAPPER}.")
    return module, path if wrapped else None


METHOD = Method(
    "LN_TUNING",
    TARGET_OPTIONS,
    lambda config: TunerConfig(**where_of(config)),
    plan,
    {},
    dict.fromkeys(ModuleKind, frozenset[str]()),
    lambda site, module, found: {},
    split_keys=lambda tensors: Keys.split(tensors, factor),
    default_targets=TARGETS["LN_TUNING"],
    copied_as=WRAPPER,
)
