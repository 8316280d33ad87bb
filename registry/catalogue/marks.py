"""Marks of a version: yanked, deprecated, or neither any more. A series; the last one counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import IntegrityError
from ...manifests.findings.finding import Finding, Where
from .series import Value

State = Literal["yanked", "deprecated", "unyanked"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class Mark:
    """One mark: its ``state``, who set it when (UTC), and why."""

    state: State
    by: str | None = None
    at: str | None = None
    why: str | None = None

    @property
    def yanked(self) -> bool:
        """Whether ranges skip the version."""
        return self.state == "yanked"

    def warning(self, name: str, version: str, where: Where) -> Finding | None:
        """What a user of the version is told."""
        if self.state == "unyanked":
            return None
        reason = f": {self.why}" if self.why else ""
        return codes.VERSION_MARKED.finding(
            f"{name}@{version} is {self.state}{reason}", where, found=self.state
        )


def read_mark(folder: str, value: Value) -> Mark:
    """The mark that a file of the series says. Raises :class:`IntegrityError`."""
    data = value.data
    state = data.get("state")
    if state not in STATES:
        raise IntegrityError(
            codes.HISTORY_BROKEN.finding(
                f"{folder}: mark {value.number} has an unknown state",
                found=repr(state)[:80],
                expected=", ".join(STATES),
            )
        )
    by, at, why = (_text(data.get(key)) for key in ("by", "at", "why"))
    return Mark(state, by, at, why)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
