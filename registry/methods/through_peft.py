"""Methods without an implementation here, which attach through PEFT: where their tensors go.

Only PEFT knows what a tensor means, and what shape it must have. Without PEFT, the places are
known: each tensor belongs to a module that the base has and that the config selects, or all modules
share it. The rest is an *unchecked* finding (``registry.checks.needs_peft``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from ..files.facts import AdapterPlan, Layout, ModuleKind, PeftPlan, SitePlan, TensorInfo
from ..files.names import PEFT_PREFIX
from .keys import Keys, is_name
from .method import MakePlan, Method
from .module_plan import by_live_name, plan_of
from .naming import Naming
from .options import Option, Support
from .patterns import Patterns, PatternTable
from .peft_table import PEFT_TABLE, PeftMethod
from .targets import TargetSelection
from .tuner_config import TARGET_OPTIONS, TunerConfig, bias_of, frozen, where_of

KINDS: Mapping[ModuleKind, frozenset[str]] = dict.fromkeys(
    (ModuleKind.LINEAR, ModuleKind.CONV1D, ModuleKind.CONV, ModuleKind.EMBEDDING), frozenset[str]()
)

_OWNER = "base_model."


def options_of(method: str, row: PeftMethod) -> tuple[Option, ...]:
    """The fields of a method's config. PEFT carries them out."""
    found = [option for option in TARGET_OPTIONS if option.name in row.where]
    for name, expect in row.fields.items():
        if name == "bias":
            found.append(bias_of(method))
        elif name in row.off:
            found.append(Option(name, Support.NEVER, row.off[name], expect))
        else:
            found.append(Option(name, Support.SUPPORTED, "is PEFT's to carry out", expect))
    return tuple(found)


@dataclass(frozen=True)
class PeftMethodConfig(TunerConfig):
    """The adapted modules, and the fields that PEFT gets unchanged."""

    rank: int = 0
    handed: Mapping[str, Any] = field(default_factory=dict)


def read(row: PeftMethod, config: Mapping[str, Any]) -> PeftMethodConfig:
    """The typed view of a config of the method ``row``."""
    r = config.get("r")
    return PeftMethodConfig(
        **where_of(config),
        rank=r if isinstance(r, int) else 0,
        handed=frozen({name: config[name] for name in row.fields if name in config}),
    )


def planner(method: str, row: PeftMethod) -> MakePlan:
    """See ``MakePlan``."""

    def plan(
        config: PeftMethodConfig,
        tensors: Mapping[str, TensorInfo],
        layout: Layout | None,
        patterns: Patterns,
    ) -> tuple[AdapterPlan, Naming]:
        keys, shared = split_keys(row, tensors)
        naming = Naming.find(keys.modules, layout)
        modules, repeated = by_live_name(keys.factors, naming)
        authors = {live: author for live, (author, _) in modules.items()}
        if not row.listed and layout is not None:
            selected = TargetSelection(config, patterns, KINDS).live_modules(layout, naming)
            authors |= {live: naming.author(live) for live in selected}
        if layout is not None:  # PEFT numbers its layers in the model's order
            order = {name: at for at, name in enumerate(layout.modules)}
            authors = dict(sorted(authors.items(), key=lambda it: order.get(it[0], len(order))))
        sites = [
            SitePlan(live, method, keys.factors.get(author, {}), config.rank, 1.0, 1.0)
            for live, author in authors.items()
        ]
        made = plan_of(config, layout, naming, keys, sites, repeated)
        handed = {**config.handed, **_resolved(row, config.handed, authors, patterns)}
        peft = PeftPlan(
            method,
            MappingProxyType(handed),
            None if isinstance(config.targets, str) else config.targets,
            MappingProxyType(authors),
            MappingProxyType(shared),
        )
        return replace(made, peft=peft), naming

    return plan


def split_keys(row: PeftMethod, tensors: Iterable[str]) -> tuple[Keys, dict[str, str]]:
    """The file's keys by module and role, and {name: key} of what all modules share."""
    outside = {k: k[len(_OWNER) :] for k in tensors if k.startswith(_OWNER) and is_name(k)}
    shared = {name: k for k, name in outside.items() if name.partition(".")[0] in row.shared}

    def factor(name: str) -> tuple[str, str | None]:
        module, dot, rest = name.rpartition(f".{row.prefix}")
        return module, row.prefix + rest if dot else None

    taken = set(shared.values())
    return Keys.split((key for key in tensors if key not in taken), factor), shared


def _resolved(
    row: PeftMethod, handed: Mapping[str, Any], authors: Mapping[str, str], patterns: Patterns
) -> dict[str, dict[str, Any]]:
    """The maps from patterns to values, with modules in place of patterns: PEFT would match a
    stranger's patterns without a time limit. Raises ``PatternError``."""
    found: dict[str, dict[str, Any]] = {}
    for name in row.tables:
        written = handed.get(name)
        if isinstance(written, dict) and written:
            table = PatternTable[Any](written, patterns)  # pyright: ignore[reportUnknownArgumentType]
            none = object()
            values = {author: table.get(author, none) for author in authors.values()}
            found[name] = {author: v for author, v in values.items() if v is not none}
    return found


def key_for_peft(plan: PeftPlan, site: SitePlan, role: str) -> str:
    """What PEFT calls the tensor in a file."""
    return f"{PEFT_PREFIX}{plan.authors[site.module]}.{role}"


def shared_key_for_peft(name: str) -> str:
    """What PEFT calls a tensor that all modules share."""
    return _OWNER + name


def _row(peft_type: str, row: PeftMethod) -> Method:
    return Method(
        peft_type,
        options_of(peft_type, row),
        lambda config: read(row, config),
        planner(peft_type, row),
        {},
        KINDS,
        lambda site, module, found: {},
        split_keys=lambda tensors: split_keys(row, tensors)[0],
        native=False,
    )


METHODS = tuple(_row(name, row) for name, row in PEFT_TABLE.items())
"""Methods that attach where PEFT is installed."""
