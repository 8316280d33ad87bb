"""What a promotion may ask of a version's metrics: ``accuracy>=0.9``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import UsageError
from ...manifests.findings.finding import Finding
from .entry import Entry

_REQUIREMENT = re.compile(r"\s*(?P<metric>[^<>=\s]+)\s*(?P<sign>>=|<=|>|<|==?)\s*(?P<value>\S+)\s*")
_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
    "==": operator.eq,
}


@dataclass(frozen=True)
class Requirement:
    """``accuracy>=0.9``: what a metric must be."""

    text: str
    metric: str
    sign: str
    value: float

    def check(self, entry: Entry) -> Finding | None:
        """A finding where the entry does not meet it."""
        found = entry.metrics.get(self.metric)
        if found is not None and _SIGNS[self.sign](found, self.value):
            return None
        return codes.NOT_PROMOTED.finding(
            f"{entry.name}@{entry.version} does not meet {self.text}",
            found="no such metric" if found is None else f"{self.metric} = {found:g}",
            expected=self.text,
        )


def parse_requirement(text: str) -> Requirement:
    """The requirement that ``text`` is. Raises :class:`UsageError`."""
    match = _REQUIREMENT.fullmatch(text)
    try:
        value = float(match["value"]) if match is not None else math.nan
    except ValueError:
        value = math.nan
    if match is None or not math.isfinite(value):
        raise UsageError(
            codes.BAD_REFERENCE.finding(
                f"Invalid requirement {text[:80]!r}",
                found=text[:80],
                expected="METRIC>=NUMBER, or with >, <, <= or =",
                hint="Write it in quotes: --require 'accuracy>=0.9'.",
            )
        )
    return Requirement(text.strip(), match["metric"], match["sign"], value)
