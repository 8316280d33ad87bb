"""Where a module of an older transformers is today: the conversion table, applied to one name.

transformers renames and fuses the tensors of a checkpoint when it loads them
(``registry.files.conversion``). The modules of an older version had the names that these tensors
still have on disk, so the same rules say what an adapter's names mean today.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from ..files.conversion import Rule, rename
from ..files.facts import SIZED, Layout

MAX_PLACES = 250_000
"""The most names of one adapter that are looked up; the largest mixtures have about 60,000."""
_ANY = ".*"


class OldPlace(NamedTuple):
    """Where a weight is today. ``rule`` is the converter that gathers or splits it (``name`` is
    then the first of its targets), ``source`` which of its sources this one is, ``expert`` its
    number in a list."""

    name: str
    rule: Rule | None = None
    source: str = ""
    expert: int | None = None


class AmbiguousNameError(ValueError):
    """A ``name`` of an older version that could be several of ``today``."""

    def __init__(self, name: str, today: list[str]) -> None:
        super().__init__(name, today)
        self.name = name
        self.today = today


class OlderNames:
    """The rules of one base, applied to one weight at a time."""

    def __init__(self, layout: Layout) -> None:
        rules = layout.conversions() if layout.conversions is not None else ()
        own = [replace(rule, awake=False) for rule in rules]
        self.layout = layout
        self._renamings = [rule for rule in own if not rule.operations]
        self._converters = [rule for rule in own if rule.operations]
        self._left = MAX_PLACES
        self._experts: dict[str, tuple[list[str], OldPlace]] = {}

    def has(self, name: str) -> bool:
        """Whether the base has this parameter or buffer (of a packed module: its weight)."""
        owner, _, own = name.rpartition(".")
        module = self.layout.modules.get(owner)
        if module is None:
            return False
        if own in module.parameters or own in module.buffers:
            return True
        return own == "weight" and (module.kind in SIZED or bool(module.parameters))

    def place(self, weight: str) -> OldPlace | None:
        """Today's place of an older version's ``weight`` (with its module's name); ``None`` where
        the rules do not lead to a tensor of the base. Raises :class:`AmbiguousNameError`."""
        known = self._like_another_expert(weight)
        if known is not None:
            return known
        self._left -= 1
        if self._left < 0:
            return None
        place = self._place(weight)
        if place is not None and place.expert is not None:
            self._experts.setdefault(numberless(weight), (numbers_of(weight), place))
        return place

    def _like_another_expert(self, weight: str) -> OldPlace | None:
        """The place of an expert's weight, from another expert's: a mixture has thousands."""
        known = self._experts.get(numberless(weight))
        if known is None:
            return None
        numbers, place = known
        there = numbers_of(place.name)
        at = [n for n in range(len(numbers)) if [*numbers[:n], *numbers[n + 1 :]] == there]
        if len(at) != 1 or int(numbers[at[0]]) != place.expert or place.rule is None:
            del self._experts[numberless(weight)]  # which number is the expert's is not known
            return None
        own = numbers_of(weight)
        expert = int(own.pop(at[0]))
        name = renumbered(place.name, own)
        if not self.has(name) or not self._is_there(name, place.rule, expert):
            return None
        return place._replace(name=name, expert=expert)

    def _place(self, weight: str) -> OldPlace | None:
        found: dict[str, OldPlace] = {}
        for spelling in self._spellings(weight):
            today = rename(
                spelling, self._renamings, self._converters, self.layout.prefix, self.has
            )
            if today.name == weight or not self.has(today.name):
                continue
            expert = None
            if today.rule is not None and today.source is not None:
                expert = expert_of(today.source, today.before)
                if not self._is_there(today.name, today.rule, expert):
                    continue
            found.setdefault(
                today.name, OldPlace(today.name, today.rule, today.source or "", expert)
            )
        if len(found) > 1:
            raise AmbiguousNameError(weight, list(found))
        return next(iter(found.values()), None)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of one of the base's parameters; ``None`` where it is not known."""
        owner, _, own = name.rpartition(".")
        module = self.layout.modules.get(owner)
        if module is None:
            return None
        if own not in module.parameters and own == "weight" and module.kind in SIZED:
            sizes = (module.out_features, module.in_features)
            return None if None in sizes else sizes  # pyright: ignore[reportReturnType]
        return module.parameters.get(own)

    def _spellings(self, weight: str) -> Iterator[str]:
        """The name as it is, without the model's prefix, and with it."""
        yield weight
        prefix = self.layout.prefix
        if prefix:
            inside = f"{prefix}."
            yield weight[len(inside) :] if weight.startswith(inside) else inside + weight

    def _is_there(self, name: str, rule: Rule, expert: int | None) -> bool:
        shape = self.shape(name)
        if shape is None or expert is None or not stacks(rule):
            return True
        return expert < shape[0]


def stacks(rule: Rule) -> bool:
    """Whether the rule makes one tensor of a list of modules."""
    return any(operation[0] == "MergeModulelist" for operation in rule.operations)


@lru_cache
def pattern_of(source: str) -> re.Pattern[str]:
    """A source of a converter as a pattern for a module's name and weight; the number in its list
    is the group."""
    before, star, after = _plain(source).partition(_ANY)
    number = r"\.(\d+)" if star else ""
    return re.compile(re.escape(before) + number + re.escape(after))


def expert_of(source: str, name: str) -> int | None:
    """The number that ``name`` has in the list of modules that ``source`` names."""
    if _ANY not in source:
        return None
    found = pattern_of(source).search(name)
    return None if found is None else int(found[1])


def spelled(source: str, expert: int | None) -> str:
    """The name of a weight of this source, without the part that the rule does not match."""
    return _plain(source).replace(_ANY, "" if expert is None else f".{expert}")


def targets_of(name: str, rule: Rule) -> list[str]:
    """The full names of a rule's targets, of which the first is ``name``."""
    before, _, after = name.partition(rule.to[0])
    return [before + target + after for target in rule.to]


def _plain(source: str) -> str:
    return source.replace("\\.", ".")


def numbers_of(name: str) -> list[str]:
    """The numbers among the pieces of a name."""
    return [part for part in name.split(".") if part.isdecimal()]


def numberless(name: str) -> str:
    """A name with ``*`` for every number."""
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def renumbered(name: str, numbers: Iterable[str]) -> str:
    """``name`` with these numbers in place of its own."""
    left = iter(numbers)
    return ".".join(next(left, part) if part.isdecimal() else part for part in name.split("."))
