"""Methods with no native file here, which attach through PEFT: where their tensors go.

What a tensor means, and what shape it must have, is PEFT's to know. Without it the places can be
told: each tensor belongs to a module that the base has and that the config selects, or is shared
by all. The rest is an *unchecked* finding (``registry.checks.needs_peft``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from ..files.conversion import Shape
from ..files.facts import (
    AdapterPlan,
    Layout,
    ModuleKind,
    ModuleShape,
    PeftPlan,
    SitePlan,
    TensorInfo,
)
from ..files.names import PEFT_PREFIX
from .keys import MAX_NAME, Keys
from .method import Method
from .module_plan import plan_of
from .naming import Naming, strip_peft_prefix
from .options import Option, Support, anything, one_of, optional
from .patterns import Patterns, PatternTable
from .peft_fields import kind_of
from .peft_table import PEFT_TABLE, PeftMethod
from .targets import TargetSelection
from .tuner_config import TARGET_OPTIONS, TunerConfig, frozen, where_of

KINDS: Mapping[ModuleKind, frozenset[str]] = {
    kind: frozenset()
    for kind in (ModuleKind.LINEAR, ModuleKind.CONV1D, ModuleKind.CONV, ModuleKind.EMBEDDING)
}
ROLE_SETS: tuple[frozenset[str], ...] = (frozenset(),)

_OWNER = "base_model."
_S, _NO, _NEVER = Support.SUPPORTED, Support.NO_EFFECT, Support.NEVER
_COMMON = frozenset({"target_modules", "modules_to_save", "task_type", "auto_mapping"})


def options_of(method: str) -> tuple[Option, ...]:
    """The fields of a method's config. Each is PEFT's to understand, if it is one of the method's
    at all."""
    row = PEFT_TABLE[method]
    known = {o.name: o for o in TARGET_OPTIONS if o.name in _COMMON or o.name in row.where}
    for name in row.fields:
        expect = kind_of(method, name)
        if name == "bias":
            expect = optional(one_of("none", "all", f"{method.lower()}_only"))
        support = _NEVER if name in row.off else _S
        known[name] = Option(name, support, row.off.get(name, "is PEFT's to carry out"), expect)
    known["inference_mode"] = Option("inference_mode", _NO, "is not part of the adapter", anything)
    return tuple(known.values())


@dataclass(frozen=True)
class PeftMethodConfig(TunerConfig):
    """Where the adapter sits, and the fields that PEFT is handed as they are."""

    rank: int = 0
    handed: Mapping[str, Any] = field(default_factory=dict)


def reader(method: str) -> Callable[[Mapping[str, Any]], PeftMethodConfig]:
    """The typed view of this method's config."""
    row = PEFT_TABLE[method]

    def of(config: Mapping[str, Any]) -> PeftMethodConfig:
        r = config.get("r")
        return PeftMethodConfig(
            **where_of(config),
            bias=config.get("bias") or "none",
            rank=r if isinstance(r, int) else 0,
            handed=frozen({name: config[name] for name in row.fields if name in config}),
        )

    return of


def planner(method: str) -> Callable[..., tuple[AdapterPlan, Naming]]:
    """See ``MakePlan``."""
    row = PEFT_TABLE[method]

    def plan(
        config: PeftMethodConfig,
        tensors: Mapping[str, TensorInfo],
        layout: Layout | None,
        patterns: Patterns | None = None,
    ) -> tuple[AdapterPlan, Naming]:
        known = patterns or Patterns()
        keys, shared = split_keys(row, tensors)
        naming = Naming.find(keys.modules, layout)
        authors: dict[str, str] = {}
        leftovers: list[str] = []
        for author, parts in keys.factors.items():
            if naming.live(author) in authors:  # two names in the file for one live module
                leftovers.extend(parts.values())
            else:
                authors[naming.live(author)] = author
        if not row.listed and layout is not None:
            selected = TargetSelection(config, known, KINDS).live_modules(layout, naming)
            authors |= {live: naming.author(live) for live in selected}
        if layout is not None:  # PEFT numbers its layers in the model's order
            order = {name: at for at, name in enumerate(layout.modules)}
            authors = dict(sorted(authors.items(), key=lambda it: order.get(it[0], len(order))))
        sites = [
            SitePlan(live, method, keys.factors.get(author, {}), config.rank, 1.0, 1.0)
            for live, author in authors.items()
        ]
        made = plan_of(config, layout, naming, keys, sites, leftovers)
        handed = {**config.handed, **_resolved(row, config.handed, authors, known)}
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
    """The file's keys by module and role, and what it stores beside the model: {name: key}."""
    keys = Keys()
    shared: dict[str, str] = {}
    for key in tensors:
        name = strip_peft_prefix(key)
        beside = key.removeprefix(_OWNER)
        if len(name) > MAX_NAME or not name.isprintable():
            keys.odd.append(key)
            continue
        if key.startswith(_OWNER) and beside.partition(".")[0] in row.shared:
            shared[beside] = key
            continue
        module, dot, rest = name.rpartition(f".{row.prefix}")
        if dot:
            place, at = keys.factors.setdefault(module, {}), row.prefix + rest
        else:
            place, at = keys.others, name
        if place.setdefault(at, key) is not key:  # with PEFT's prefix, and without
            keys.odd.append(key)
    return keys, shared


def _resolved(
    row: PeftMethod, handed: Mapping[str, Any], authors: Mapping[str, str], patterns: Patterns
) -> dict[str, dict[str, Any]]:
    """The maps from patterns to values, with modules in place of patterns: those of a stranger are
    matched here, where that takes no longer than it may. Raises
    ``PatternError``."""
    found: dict[str, dict[str, Any]] = {}
    for name in row.tables:
        written = handed.get(name)
        if isinstance(written, dict) and written:
            table = PatternTable[Any](written, patterns)  # pyright: ignore[reportUnknownArgumentType]
            none = object()
            values = {author: table.get(author, none) for author in authors.values()}
            found[name] = {author: v for author, v in values.items() if v is not none}
    return found


def shapes(
    site: SitePlan, module: ModuleShape, found: Mapping[str, Shape]
) -> Mapping[str, Shape] | str:
    """Nothing is known of them."""
    return {}


def key_for_peft(plan: PeftPlan, site: SitePlan, role: str) -> str:
    """What PEFT calls the tensor in a file."""
    return f"{PEFT_PREFIX}{plan.authors[site.module]}.{role}"


def shared_key_for_peft(name: str) -> str:
    """The same for what is stored beside the model."""
    return _OWNER + name


def _row(peft_type: str) -> Method:
    return Method(
        peft_type,
        options_of(peft_type),
        reader(peft_type),
        planner(peft_type),
        {},
        ROLE_SETS,
        KINDS,
        shapes,
        split_keys=lambda tensors: split_keys(PEFT_TABLE[peft_type], tensors)[0],
        native=False,
    )


METHODS = tuple(_row(name) for name in PEFT_TABLE)
"""Methods that attach where PEFT is installed."""
