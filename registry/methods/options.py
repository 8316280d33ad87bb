"""How one field of an adapter's config is classified: its valid values, and what we do with it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import cast

MAX_ENTRIES = 10_000
"""Entries of one list or map in a config; the longest real ones name each module once."""
MAX_RANK = 1 << 31
MAX_NUMBER = 1e30


class Support(str, Enum):
    """What a field means to us."""

    SUPPORTED = "supported"
    """It changes the computation, and is carried out."""
    NO_EFFECT = "no effect"
    """It plays no part once the adapter is trained; any value passes."""
    NOT_YET = "not yet"
    """It changes the computation and is not carried out: only its neutral value passes."""
    NEVER = "never"
    """It changes the base itself, which we never do: only its neutral value passes."""


Expect = Callable[[object], str | None]
"""What was expected instead, or ``None`` where the value is of the right kind."""


def anything(value: object) -> str | None:
    """Accept every value."""
    return None


@dataclass(frozen=True)
class Option:
    """One field. ``meaning`` completes the sentence "this field ..."."""

    name: str
    support: Support
    meaning: str
    expect: Expect = anything


def alike(support: Support, meaning: str, *names: str) -> tuple[Option, ...]:
    """Several fields with one meaning and any value."""
    return tuple(Option(name, support, meaning) for name in names)


def is_neutral(value: object) -> bool:
    """Whether ``value`` asks for nothing: null, false, or an empty list or map."""
    return value is None or value is False or value in ([], {})


def _when(fits: Callable[[object], bool], expected: str) -> Expect:
    return lambda value: None if fits(value) else expected


def one_of(*values: str) -> Expect:
    return _when(lambda value: value in values, f"one of {', '.join(values)}")


def optional(inner: Expect) -> Expect:
    def expect(value: object) -> str | None:
        wrong = None if value is None else inner(value)
        return f"{wrong}, or null" if wrong else None

    return expect


def either(first: Expect, second: Expect) -> Expect:
    def expect(value: object) -> str | None:
        wrong, other = first(value), second(value)
        return f"{wrong} or {other}" if wrong and other else None

    return expect


boolean = _when(lambda value: isinstance(value, bool), "true or false")
text = _when(lambda value: isinstance(value, str) and value != "", "text")
any_text = _when(lambda value: isinstance(value, str), "text")
index = _when(lambda value: type(value) is int, "a whole number")
rank = _when(lambda v: type(v) is int and 0 < v <= MAX_RANK, "a whole number above 0")


def whole_up_to(most: int) -> Expect:
    return _when(lambda v: type(v) is int and 0 <= v <= most, f"a whole number from 0 to {most}")


def number(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "a number"
    return None if abs(value) <= MAX_NUMBER else "a finite number"  # also refuses NaN


fraction = _when(
    lambda value: number(value) is None and 0 <= cast(float, value) <= 1, "a number from 0 to 1"
)


def list_of(inner: Expect) -> Expect:
    def expect(value: object) -> str | None:
        if not isinstance(value, list):
            return "a list"
        return _each("a list", cast("list[object]", value), "each", inner)

    return expect


def map_of(inner: Expect) -> Expect:
    def expect(value: object) -> str | None:
        if not isinstance(value, dict):
            return "a map"
        values = cast("Mapping[str, object]", value).values()
        return _each("a map", values, "each value", inner)

    return expect


def _each(what: str, values: Collection[object], each: str, inner: Expect) -> str | None:
    if len(values) > MAX_ENTRIES:
        return f"{what} of at most {MAX_ENTRIES}"
    wrong = next((w for w in map(inner, values) if w), None)
    return f"{what} in which {each} is {wrong}" if wrong else None


COMMON: Mapping[str, Expect] = {
    "peft_type": any_text,
    "base_model_name_or_path": optional(any_text),
    "revision": optional(any_text),
    "peft_version": anything,  # has a check of its own
}
"""Fields of every method."""
