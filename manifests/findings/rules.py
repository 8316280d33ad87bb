"""Codes AD80x: rules."""

from __future__ import annotations

from .code import Code
from .finding import Severity

EXCLUSIVE_GROUP = Code(
    "AD801",
    "exclusive-group-too-small",
    Severity.ERROR,
    "An exclusive group holds fewer than two different adapters.",
    "A group says which adapters may not be active together, so one alone, or one named twice, "
    "says nothing.",
    "rules: {exclusive: [[billing]]}",
    "Name at least two different adapters, or remove the group.",
)
CONTRADICTION = Code(
    "AD802",
    "rules-contradict",
    Severity.ERROR,
    "By these rules an adapter can never be active.",
    "What the adapter requires (and what that requires in turn) is exclusive with it or with one "
    "another, or is more than max_active allows. An adapter that requires itself says nothing.",
    "rules:\n  exclusive: [[billing, legal]]\n  requires: {billing: [legal]}",
    "Loosen one of the rules that the message names.",
)
RULE_ON_COMPOSITION = Code(
    "AD803",
    "rule-on-composition",
    Severity.ERROR,
    "A rule names a composition.",
    "Rules are about adapters: they bind every set of adapters that is active by any road, and a "
    "composition counts as the adapters in it.",
    "rules: {exclusive: [[formal-billing, legal]]}   # formal-billing is a composition",
    "Name the adapters of the composition instead.",
)
EXCLUSIVE = Code(
    "AD804",
    "exclusive-together",
    Severity.ERROR,
    "Adapters are active together that the rules keep apart.",
    "`rules.exclusive` lists groups of which at most one adapter may be active at a time, "
    "whether it is named directly or is part of a composition.",
    "rules: {exclusive: [[billing, legal]]}\nactive: [billing, legal]",
    "Activate one of them, or change the rule.",
)
REQUIRED = Code(
    "AD805",
    "required-not-active",
    Severity.ERROR,
    "An adapter is active without one that it requires.",
    "`rules.requires` says which adapters must be active whenever this one is.",
    "rules: {requires: {refunds: [tone]}}\nactive: refunds",
    "Activate the required adapter too, for example through a composition of both.",
)
TOO_MANY_ACTIVE = Code(
    "AD806",
    "too-many-active",
    Severity.ERROR,
    "More adapters are active together than the rules allow.",
    "`rules.max_active` bounds the number of adapters that are active at once, the members of "
    "compositions counted one by one.",
    "rules: {max_active: 1}\nactive: [billing, tone]",
    "Activate fewer, or raise rules.max_active.",
)
TOTAL_RANK = Code(
    "AD807",
    "total-rank-too-large",
    Severity.ERROR,
    "The ranks of the active adapters add up to more than the rules allow.",
    "`rules.max_total_rank` bounds the sum of the largest ranks of all adapters that are active "
    "at once, because each costs time in every step.",
    "rules: {max_total_rank: 16}   # with two active adapters of rank 16",
    "Activate fewer or smaller adapters, or raise rules.max_total_rank.",
)
RANK_UNKNOWN = Code(
    "AD808",
    "rank-unknown",
    Severity.UNCHECKED,
    "The rank of an active adapter is not known, so rules.max_total_rank could not be checked.",
    "The rank comes from the adapter's files. Where they could not be read, whether the set keeps "
    "to the rule cannot be told.",
    "rules: {max_total_rank: 64}   # and the source of an active adapter is out of reach",
    "Make the adapter's source reachable and check again.",
)
