"""The methods whose files are understood, one row each, by PEFT's ``peft_type``.

A method is two files of one name: here what its config and its tensors' names and shapes mean, in
``loader/methods/`` what the tensors do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ...manifests.findings.finding import Finding, Where
from ..files.facts import AdapterPlan, Layout, ModuleKind, ModuleShape, SitePlan, TensorInfo
from . import (
    adalora,
    ia3,
    ln_tuning,
    loha,
    lokr,
    lora,
    lora_begin,
    lora_parameters,
    lora_variants,
    oft,
    prompt,
    prompt_begin,
    through_peft,
    trainable_tokens,
    vera,
)
from .default_targets import TARGETS, Table
from .keys import Roles
from .lora_config import OPTIONS as LORA_OPTIONS
from .lora_config import LoraConfig
from .lycoris import LycorisConfig
from .naming import Naming
from .new_adapter import NewAdapter
from .options import COMMON, Option, anything
from .patterns import Patterns
from .peft_table import PEFT_TABLE
from .prompt_config import P_OPTIONS, PREFIX_OPTIONS, PROMPT_OPTIONS, PromptConfig

Shape = tuple[int, ...]
ReadConfig = Callable[[Mapping[str, Any]], Any]
CheckConfig = Callable[[Mapping[str, Any], Where], list[Finding]]
Complete = Callable[[Mapping[str, Any], Mapping[str, Any], Layout | None], Mapping[str, Any]]
"""``complete(config, base, layout)``; ``base`` is the base's ``config.json``."""
Beside = Callable[[NewAdapter], Mapping[str, Shape] | str]
Shapes = Callable[[SitePlan, ModuleShape, Mapping[str, Shape]], Mapping[str, Shape] | str]


class MakePlan(Protocol):
    """Where every tensor goes, and how the file's names became live ones.

    Sites are in the file's order and bear live names where there is a ``layout``, the file's own
    where there is none. Decides places only; whether they fit is asked elsewhere. ``config`` is
    the method's own typed view. Raises ``PatternError`` for a
    pattern that is none or too slow.
    """

    def __call__(
        self,
        config: Any,
        tensors: Mapping[str, TensorInfo],
        layout: Layout | None,
        patterns: Patterns | None = None,
    ) -> tuple[AdapterPlan, Naming]: ...


def _nothing(config: Mapping[str, Any], where: Where) -> list[Finding]:
    return []


def _as_said(
    config: Mapping[str, Any], base: Mapping[str, Any], layout: Layout | None
) -> Mapping[str, Any]:
    return config


def _nothing_beside(new: NewAdapter) -> Mapping[str, Shape]:
    return {}


@dataclass(frozen=True)
class Method:
    """One method: its config fields, its typed view of them, and its plan.

    ``read_config`` gives a ``TunerConfig``.
    ``roles`` are its tensors' names for the tables; ``role_sets`` the sets of which a site has one,
    whole; ``kinds`` the kinds of modules that it adapts, with the roles that are for each (none
    where it acts on the model as a whole).
    ``shapes`` says what each role's tensor must be at a module (given what was found, for methods
    whose sizes are free), or why the method cannot sit there. ``asked_by`` names the config field
    without which a role may not be in the file. ``check_config`` finds fields that contradict each
    other, once each is known to be of the right kind. ``ranked`` says that the factors are a pair
    A and B of the rank that the config gives; ``native`` is false where PEFT has to attach it.

    For an adapter that is begun: ``trains`` says whether gradients are all that the method's
    training needs, ``default_targets`` are PEFT's modules for a config that names none, by
    ``model_type``; ``complete`` fills in what else PEFT does, and ``check_begin`` finds what the
    config may not ask for. At a site such an adapter has the roles of ``kinds`` and those that a
    field asks for (``asked_by``), in the ``shapes`` for where nothing is found; ``beside`` gives
    the names on disk and shapes of what else its file has, or says why it cannot be begun.
    ``copied_as`` is what PEFT calls modules that are trained whole instead.

    ``needs_call`` says that a site acts only where its module's forward runs; ``idle`` are sets of
    roles: where all of one set are zero, the site does nothing.
    """

    peft_type: str
    options: tuple[Option, ...]
    read_config: ReadConfig
    make_plan: MakePlan
    roles: Roles
    role_sets: tuple[frozenset[str], ...]
    kinds: Mapping[ModuleKind, frozenset[str]]
    shapes: Shapes
    asked_by: Mapping[str, str] = field(default_factory=dict)
    check_config: CheckConfig = _nothing
    ranked: bool = False
    trains: bool = True
    complete: Complete = _as_said
    check_begin: CheckConfig = _nothing
    default_targets: Table = field(default_factory=dict)
    beside: Beside = _nothing_beside
    copied_as: str = ""
    native: bool = True
    needs_call: bool = True
    idle: tuple[frozenset[str], ...] = ()

    def plan(
        self,
        config: Mapping[str, Any],
        tensors: Mapping[str, TensorInfo],
        layout: Layout | None = None,
        patterns: Patterns | None = None,
    ) -> AdapterPlan:
        """Where every tensor goes, from ``adapter_config.json`` (its fields already checked, see
        ``registry.checks``) and the header's tensors."""
        return self.make_plan(self.read_config(self.own(config)), tensors, layout, patterns)[0]

    def own(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Those fields of a config that are this method's and of a kind that is known: others may
        hold anything, and are not to be read."""
        names = {*COMMON, *(o.name for o in self.options if o.expect is not anything)}
        return {name: value for name, value in config.items() if name in names}

    def spelling(self, role: str) -> str:
        """The role's name on disk, without ``.weight``."""
        for (parameter, last), name in self.roles.items():
            if name == role:
                return parameter if last in ("", "weight") else f"{parameter}.{last}"
        return role


def _prompt_method(peft_type: str, options: tuple[Option, ...]) -> Method:
    return Method(
        peft_type,
        options,
        PromptConfig.of,
        prompt.planner(peft_type),
        prompt.ROLES,
        prompt.ROLE_SETS,
        {},
        prompt.shapes,
        complete=prompt_begin.complete,
        check_begin=prompt_begin.check_begin,
        beside=prompt_begin.beside,
    )


def _peft_method(peft_type: str) -> Method:
    return Method(
        peft_type,
        through_peft.options_of(peft_type),
        through_peft.reader(peft_type),
        through_peft.planner(peft_type),
        {},
        through_peft.ROLE_SETS,
        through_peft.KINDS,
        through_peft.shapes,
        native=False,
    )


METHODS: Mapping[str, Method] = {
    "LORA": Method(
        "LORA",
        LORA_OPTIONS,
        LoraConfig.of,
        lora.plan,
        lora.ROLES,
        lora.ROLE_SETS,
        lora.KINDS,
        lora.shapes,
        asked_by={"B_bias": "lora_bias", "magnitude": "use_dora", "velora": "velora_config"},
        check_config=lora_variants.check_config,
        ranked=True,
        check_begin=lora_begin.check_begin,
        default_targets=TARGETS["LORA"],
        beside=lora_begin.beside,
        idle=(frozenset({"B", "B_bias"}), frozenset({"embedding_B"})),
    ),
    "IA3": Method(
        "IA3",
        ia3.OPTIONS,
        ia3.Ia3Config.of,
        ia3.plan,
        ia3.ROLES,
        ia3.ROLE_SETS,
        ia3.KINDS,
        ia3.shapes,
        default_targets=TARGETS["IA3"],
        complete=ia3.complete,
    ),
    "LOHA": Method(
        "LOHA",
        loha.OPTIONS,
        LycorisConfig.of,
        loha.plan,
        loha.ROLES,
        loha.ROLE_SETS,
        loha.KINDS,
        loha.shapes,
        default_targets=TARGETS["LOHA"],
        idle=tuple(frozenset({role}) for role in sorted(loha.PLAIN)),
    ),
    "LOKR": Method(
        "LOKR",
        lokr.OPTIONS,
        lokr.LokrConfig.of,
        lokr.plan,
        lokr.ROLES,
        lokr.ROLE_SETS,
        lokr.KINDS,
        lokr.shapes,
        default_targets=TARGETS["LOKR"],
        idle=tuple(frozenset({role}) for role in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b")),
    ),
    "OFT": Method(
        "OFT",
        oft.OPTIONS,
        oft.OftConfig.of,
        oft.plan,
        oft.ROLES,
        oft.ROLE_SETS,
        oft.KINDS,
        oft.shapes,
        check_config=oft.check_config,
        complete=oft.complete,
        check_begin=oft.check_begin,
        default_targets=TARGETS["OFT"],
        idle=(frozenset({"R"}), frozenset({"embedding_R"})),
    ),
    "ADALORA": Method(
        "ADALORA",
        adalora.OPTIONS,
        adalora.AdaLoraConfig.of,
        adalora.plan,
        adalora.ROLES,
        adalora.ROLE_SETS,
        adalora.KINDS,
        adalora.shapes,
        check_config=adalora.check_config,
        trains=False,
        idle=tuple(frozenset({role}) for role in ("A", "B", "E")),
    ),
    "TRAINABLE_TOKENS": Method(
        "TRAINABLE_TOKENS",
        trainable_tokens.OPTIONS,
        trainable_tokens.TokensConfig.of,
        trainable_tokens.plan,
        trainable_tokens.ROLES,
        trainable_tokens.ROLE_SETS,
        trainable_tokens.KINDS,
        trainable_tokens.shapes,
        complete=trainable_tokens.complete,
        needs_call=False,  # rows that are read elsewhere are the adapter's there
    ),
    "VERA": Method(
        "VERA",
        vera.OPTIONS,
        vera.VeraConfig.of,
        vera.plan,
        vera.ROLES,
        vera.ROLE_SETS,
        vera.KINDS,
        vera.shapes,
        default_targets=TARGETS["VERA"],
        beside=vera.beside,
        idle=(frozenset({"lambda_b"}), frozenset({"lambda_d"})),
    ),
    "LN_TUNING": Method(
        "LN_TUNING",
        ln_tuning.OPTIONS,
        ln_tuning.read,
        ln_tuning.plan,
        ln_tuning.ROLES,
        (),
        ln_tuning.KINDS,
        ln_tuning.shapes,
        default_targets=TARGETS["LN_TUNING"],
        copied_as=ln_tuning.WRAPPER,
    ),
    "PROMPT_TUNING": _prompt_method("PROMPT_TUNING", PROMPT_OPTIONS),
    "P_TUNING": _prompt_method("P_TUNING", P_OPTIONS),
    "PREFIX_TUNING": _prompt_method("PREFIX_TUNING", PREFIX_OPTIONS),
}

THROUGH_PEFT: Mapping[str, Method] = {name: _peft_method(name) for name in PEFT_TABLE}
"""Methods that attach where PEFT is installed."""

SITES: Mapping[str, Method] = {
    **METHODS,
    **THROUGH_PEFT,
    lora_parameters.METHOD: replace(
        METHODS["LORA"],
        role_sets=lora_parameters.ROLE_SETS,
        kinds=lora_parameters.KINDS,
        shapes=lora_parameters.shapes,
        asked_by={},
        ranked=False,
        idle=(frozenset({"A"}), frozenset({"B"})),
    ),
}
"""The same by :attr:`SitePlan.method`: a LoRA has sites of other kinds too."""
