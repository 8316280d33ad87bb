"""Versions of published adapters, and ranges of them.

Versions are SemVer 2.0 (https://semver.org) without build metadata, in lower case. Ranges are
npm's comparators (https://github.com/npm/node-semver, "Ranges") joined by commas or spaces: all of
them must hold. Prereleases match only where a comparator names one of the same version.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from semver import Version

LONGEST = 64
"""Characters of a version, and of a range."""

_NUMBER = r"(?:0|[1-9][0-9]{0,15})"
_COMPARATOR = re.compile(
    rf"(?P<operator>\^|~|>=|<=|>|<|=|)(?P<major>{_NUMBER})"
    rf"(?:\.(?P<minor>{_NUMBER})(?:\.(?P<patch>{_NUMBER})(?:-(?P<pre>[0-9a-z.-]+))?)?)?\Z"
)
_SEPARATOR = re.compile(r" *, *| +")
_LOWEST = Version(0, 0, 0, "0")


def parse_version(text: str) -> Version | None:
    """The version that ``text`` is, or ``None``."""
    if len(text) > LONGEST or text != text.lower() or "+" in text or not text.isascii():
        return None
    return Version.parse(text) if Version.is_valid(text) else None


@dataclass(frozen=True)
class Range:
    """Versions from ``low`` (included) to ``high`` (excluded) of every part, which all must hold.

    ``text`` is the range as written.
    """

    text: str
    parts: tuple[tuple[Version, Version | None], ...]
    named: frozenset[tuple[int, int, int]]
    """The versions of which prereleases are wanted."""

    def __contains__(self, version: Version) -> bool:
        release = (version.major, version.minor, version.patch)
        if version.prerelease is not None and release not in self.named:
            return False
        return all(low <= version and (high is None or version < high) for low, high in self.parts)

    def best(self, versions: Iterable[Version]) -> Version | None:
        """The highest of ``versions`` that is in the range."""
        return max((version for version in versions if version in self), default=None)


def parse_range(text: str) -> Range | None:
    """The range that ``text`` is (``^2.1``, ``~2.1``, ``>=2,<3``, ``2.1.0``), or ``None``."""
    if len(text) > LONGEST or text != text.strip():
        return None
    parts: list[tuple[Version, Version | None]] = []
    named: set[tuple[int, int, int]] = set()
    for piece in _SEPARATOR.split(text):
        match = _COMPARATOR.match(piece)
        if match is None:
            return None
        bounds = _bounds(match)
        if bounds is None:
            return None
        parts.append(bounds)
        if match["pre"] is not None:
            named.add((int(match["major"]), int(match["minor"]), int(match["patch"])))
    return Range(text, tuple(parts), frozenset(named))


def _bounds(match: re.Match[str]) -> tuple[Version, Version | None] | None:
    numbers = [int(match[part]) for part in ("major", "minor", "patch") if match[part] is not None]
    written = len(numbers)
    major, minor, patch = (*numbers, 0, 0)[:3]
    if match["pre"] is not None and not Version.is_valid(f"{major}.{minor}.{patch}-{match['pre']}"):
        return None
    low = Version(major, minor, patch, match["pre"])
    return _BOUNDS[match["operator"]](low, written)


def _after(low: Version, written: int) -> Version:
    """The first version after all that begin with the numbers that were written."""
    if written == 1:
        return Version(low.major + 1, 0, 0, "0")
    if written == 2:
        return Version(low.major, low.minor + 1, 0, "0")
    return _next(low)


def _next(version: Version) -> Version:
    """The smallest version above ``version``."""
    if version.prerelease is None:
        return Version(version.major, version.minor, version.patch + 1, "0")
    return version.replace(prerelease=f"{version.prerelease}.0")


def _caret(low: Version, written: int) -> tuple[Version, Version]:
    """Up to the next change of the first number that is not zero."""
    if low.major or written == 1:
        return low, Version(low.major + 1, 0, 0, "0")
    if low.minor or written == 2:
        return low, Version(0, low.minor + 1, 0, "0")
    return low, Version(0, 0, low.patch + 1, "0")


def _tilde(low: Version, written: int) -> tuple[Version, Version]:
    """Up to the next minor version, or the next major one where only that was written."""
    return low, _after(low, min(written, 2))


def _above(low: Version, written: int) -> tuple[Version, None]:
    after = _after(low, written)
    return after.replace(prerelease=None) if written < 3 else after, None


_BOUNDS: dict[str, Callable[[Version, int], tuple[Version, Version | None]]] = {
    "^": _caret,
    "~": _tilde,
    ">=": lambda low, written: (low, None),
    ">": _above,
    "<": lambda low, written: (_LOWEST, low if written == 3 else low.replace(prerelease="0")),
    "<=": lambda low, written: (_LOWEST, _after(low, written)),
    "=": lambda low, written: (low, _after(low, written)),
    "": lambda low, written: (low, _after(low, written)),
}
