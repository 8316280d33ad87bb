"""Match module names as PEFT does, with patterns from a stranger, in bounded time.

PEFT reads most of its target fields with ``re``, which a short pattern can keep busy for years.
Here ``re`` must accept a pattern first (so that its meaning is PEFT's). Then the ``regex`` library
runs it, which can be stopped. All patterns of one adapter share one budget. Source of the meanings:
PEFT 0.21, ``tuners_utils.check_target_module_exists`` and ``utils.other.get_pattern_key``.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import regex

BUDGET_SECONDS = 2.0
"""Matching all patterns of one adapter; real ones take milliseconds. As for every limit here, these
are seconds of the thread's work: a busy machine does not refuse more."""
COMPILE_SECONDS = 3.0
"""Compiling all patterns of one adapter; one takes about a millisecond."""
MAX_PATTERN = 10_000
"""Characters of one pattern."""
MAX_REPEATS = 10_000
"""The largest product of all counted repeats in one pattern: compiling unrolls them."""

Value = TypeVar("Value")

_LITERAL = re.compile(r"[A-Za-z0-9_.\-]+\Z")
_PART = re.compile(r"[A-Za-z0-9_\-]+\Z")
_COUNT = re.compile(r"\\.|\{(\d*)(,?)(\d*)\}", re.DOTALL)
_BRACE = re.compile(r"\\.|\{(?!\d+,?\d*\}|,\d*\})", re.DOTALL)
_POSIX_CLASS = re.compile(r"\[:\^?\w+:\]")
_FIRST_INDEX = re.compile(r".*?\.[^.]*\.(?P<idx>\d+)\.")


class PatternError(ValueError):
    """``pattern`` is invalid, or exceeds the time or size limits (``too_slow``)."""

    def __init__(self, pattern: str, reason: str, too_slow: bool = False) -> None:
        super().__init__(reason)
        self.pattern = pattern
        self.reason = reason
        self.too_slow = too_slow


class Patterns:
    """The patterns of one adapter, each compiled once, with one budget for all (seconds)."""

    def __init__(self, seconds: float = BUDGET_SECONDS) -> None:
        self._left = seconds
        self._left_to_compile = COMPILE_SECONDS
        self._compiled: dict[str, regex.Pattern[str]] = {}

    @property
    def exhausted(self) -> bool:
        """Whether no time is left to compile another pattern."""
        return self._left_to_compile <= 0

    def match_all(self, pattern: str, name: str) -> bool:
        """``re.fullmatch(pattern, name)``. Raises :class:`PatternError`."""
        return self._run(pattern, name, full=True) is not None

    def match_tail(self, pattern: str, name: str) -> bool:
        """``re.match(r"(.*\\.)?(pattern)$", name)``: how PEFT reads ``rank_pattern`` and
        ``alpha_pattern``. Raises :class:`PatternError`."""
        return self._run(rf"(.*\.)?({pattern})$", name, of=pattern) is not None

    def match_inside(self, pattern: str, name: str) -> bool:
        """Whether ``name`` is, or is inside, a module that ``pattern`` names: how PEFT excludes
        ``modules_to_save`` from its targets. Raises :class:`PatternError`."""
        if _PART.match(pattern):
            return f".{pattern}." in f".{name}."
        return self._run(rf"(^|.*\.){pattern}($|\..*)", name, of=pattern) is not None

    def layer_index(self, patterns: Iterable[str], name: str) -> int | None:
        """The layer that ``name`` is in: the first number after a part of its path that matches one
        of the ``patterns`` (without them: any part). Raises :class:`PatternError`."""
        patterns = tuple(patterns)
        if not patterns:
            found = _FIRST_INDEX.match(name)
            return int(found["idx"]) if found else None
        for pattern in patterns:
            inner = rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\."
            match = self._run(inner, name, of=pattern)
            if match is not None:  # ``a|b`` may match without a number
                return None if match["idx"] is None else int(match["idx"])
        return None

    def check(self, pattern: str) -> None:
        """Raise :class:`PatternError` for an invalid ``pattern``."""
        if not _LITERAL.match(pattern):
            self._compile(pattern, pattern)

    def _run(
        self, pattern: str, name: str, *, full: bool = False, of: str | None = None
    ) -> regex.Match[str] | None:
        source = pattern if of is None else of
        compiled = self._compile(pattern, source)
        started = time.thread_time()
        try:
            if self._left <= 0:
                raise TimeoutError
            run: Any = compiled.fullmatch if full else compiled.match
            return run(name, timeout=self._left)
        except (TimeoutError, MemoryError, RecursionError):
            self._left = 0.0
            reason = "matching it against the module names takes too long"
            raise PatternError(source, reason, too_slow=True) from None
        finally:
            self._left -= time.thread_time() - started

    def _compile(self, pattern: str, source: str) -> regex.Pattern[str]:
        known = self._compiled.get(pattern)
        if known is not None:
            return known
        _check_size(source)
        import regex  # late: most adapters name their targets without a pattern

        if self._left_to_compile <= 0:
            raise PatternError(source, "the patterns take too long to compile", too_slow=True)
        started = time.thread_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                re.compile(source)
                re.compile(pattern)
                compiled = regex.compile(_as_in_re(pattern))
        except (re.error, regex.error, RecursionError, OverflowError, MemoryError) as error:
            raise PatternError(source, str(error) or type(error).__name__) from None
        finally:
            self._left_to_compile -= time.thread_time() - started
        self._compiled[pattern] = compiled
        return compiled


def _check_size(pattern: str) -> None:
    if len(pattern) > MAX_PATTERN:
        reason = f"it is {len(pattern)} characters long, but at most {MAX_PATTERN} are allowed"
        raise PatternError(pattern[:80] + "...", reason, too_slow=True)
    if _POSIX_CLASS.search(pattern):
        raise PatternError(pattern, "regex libraries disagree on the meaning of [:name:]")
    repeats = 1
    for count in _COUNT.finditer(pattern):
        largest = max((int(n[:9]) for n in count.group(1, 3) if n), default=1)
        repeats *= max(largest, 1)
        if repeats > MAX_REPEATS:
            reason = f"its counted repeats multiply to more than {MAX_REPEATS}"
            raise PatternError(pattern, reason, too_slow=True)


def _as_in_re(pattern: str) -> str:
    """Escape braces that are plain text for ``re`` but fuzzy matching for ``regex``."""
    return _BRACE.sub(lambda m: r"\{" if m.group() == "{" else m.group(), pattern)


class PatternTable(Generic[Value]):
    """Values by pattern; the first pattern that matches a name's tail wins, as in PEFT's
    ``get_pattern_key``.

    Real tables often have the complete name of every module. So patterns of plain characters and
    dots are looked up instead of run, in one look-up for all with dots in the same places.
    """

    def __init__(self, table: Mapping[str, Value], patterns: Patterns) -> None:
        self._values = list(table.values())
        self._patterns = patterns
        self._run: list[tuple[int, str]] = []
        self._plain: dict[tuple[int, tuple[int, ...]], dict[str, int]] = {}
        for position, pattern in enumerate(table):
            if _LITERAL.match(pattern):
                dots = tuple(n for n, c in enumerate(pattern) if c == ".")
                group = self._plain.setdefault((len(pattern), dots), {})
                group[pattern] = position
            else:
                self._run.append((position, pattern))

    def get(self, name: str, default: Value) -> Value:
        """The value for the module ``name``. Raises :class:`PatternError`."""
        if not self._values:
            return default
        first = min(self._looked_up(name), default=len(self._values))
        for position, pattern in self._run:
            if position > first:
                break
            if self._patterns.match_tail(pattern, name):
                first = position
        return default if first == len(self._values) else self._values[first]

    def all(self, name: str) -> list[Value]:
        """The values of every pattern that matches, in order. Raises :class:`PatternError`."""
        positions = list(self._looked_up(name))
        positions += [n for n, p in self._run if self._patterns.match_tail(p, name)]
        return [self._values[position] for position in sorted(positions)]

    def _looked_up(self, name: str) -> Iterator[int]:
        for (length, dots), group in self._plain.items():
            begin = len(name) - length
            if begin == 0 or (begin > 0 and name[begin - 1] == "."):
                tail = name[begin:]
                # a dot in a pattern is any character
                found = group.get(tail) if tail in group else group.get(_with_dots(tail, dots))
                if found is not None:
                    yield found


def _with_dots(text: str, at: tuple[int, ...]) -> str:
    characters = list(text)
    for position in at:
        characters[position] = "."
    return "".join(characters)
