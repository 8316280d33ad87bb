"""Codes AD80x: rules."""

from __future__ import annotations

from .code import Code
from .finding import Severity

EXCLUSIVE_GROUP = Code(
    "AD801",
    "exclusive-group-too-small",
    Severity.ERROR,
    "An exclusive group needs at least two different adapters.",
    "Name at least two different adapters, or remove the group.",
)
CONTRADICTION = Code(
    "AD802",
    "rules-contradict",
    Severity.ERROR,
    "These rules never allow an adapter to be active.",
    "Relax one of the rules that the message names.",
)
RULE_ON_COMPOSITION = Code(
    "AD803",
    "rule-on-composition",
    Severity.ERROR,
    "A rule names a composition.",
    "Name the adapters of the composition instead.",
)
EXCLUSIVE = Code(
    "AD804",
    "exclusive-together",
    Severity.ERROR,
    "Adapters are active together that the rules make exclusive.",
    "Activate only one of them, or change the rule.",
)
REQUIRED = Code(
    "AD805",
    "required-not-active",
    Severity.ERROR,
    "An adapter is active without another one that it requires.",
    "Activate the required adapter too, for example through a composition of both.",
)
TOO_MANY_ACTIVE = Code(
    "AD806",
    "too-many-active",
    Severity.ERROR,
    "More adapters are active than the rules allow.",
    "Activate fewer adapters, or raise rules.max_active.",
)
TOTAL_RANK = Code(
    "AD807",
    "total-rank-too-large",
    Severity.ERROR,
    "The ranks of the active adapters add up to more than the rules allow.",
    "Activate fewer or smaller adapters, or raise rules.max_total_rank.",
)
RANK_UNKNOWN = Code(
    "AD808",
    "rank-unknown",
    Severity.UNCHECKED,
    "Cannot check rules.max_total_rank: the rank of an active adapter is not known.",
    "Make the adapter's source reachable and check again.",
)
