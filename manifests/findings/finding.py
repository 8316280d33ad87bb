"""What a check has to say: findings, where they are, and the report that gathers them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

REPORT_SCHEMA = "adapterdock.report/1"


class Severity(str, Enum):
    """How much a finding weighs. ``UNCHECKED`` is not a pass: a person accepts it by code."""

    ERROR = "error"
    UNCHECKED = "unchecked"
    WARNING = "warning"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Where:
    """A place in a manifest, a lock or an artefact. Lines and columns count from 1."""

    file: str | None = None
    path: tuple[str | int, ...] = ()
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        spot = ":".join(str(p) for p in (self.file, self.line, self.column) if p is not None)
        dotted = self.dotted
        if spot and dotted:
            return f"{spot} ({dotted})"
        return spot or dotted

    @property
    def dotted(self) -> str:
        """The path as a person writes it: ``adapters.billing.source``, ``rules.exclusive[0]``."""
        text = ""
        for part in self.path:
            if isinstance(part, int):
                text += f"[{part}]"
            else:
                text += f".{part}" if text else part
        return text


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed: what, where, and what to do about it."""

    code: str
    name: str
    severity: Severity
    message: str
    where: Where = Where()
    found: str | None = None
    expected: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        lines = [f"{self.severity} {self.code} {self.name}: {self.message}"]
        if str(self.where):
            lines.append(f"  at: {self.where}")
        if self.found is not None:
            lines.append(f"  found: {self.found}")
        if self.expected is not None:
            lines.append(f"  expected: {self.expected}")
        if self.hint is not None:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``; keys are stable under :data:`REPORT_SCHEMA`."""
        return {
            "code": self.code,
            "name": self.name,
            "severity": self.severity.value,
            "message": self.message,
            "where": {
                "file": self.where.file,
                "path": self.where.dotted or None,
                "line": self.where.line,
                "column": self.where.column,
            },
            "found": self.found,
            "expected": self.expected,
            "hint": self.hint,
        }


def refused(findings: Iterable[Finding], accepted: Collection[str] = ()) -> list[Finding]:
    """The errors among ``findings``, and what is *unchecked* and whose code is not accepted."""
    return [
        f
        for f in findings
        if f.severity is Severity.ERROR
        or (f.severity is Severity.UNCHECKED and f.code not in accepted)
    ]


@dataclass(frozen=True)
class Report:
    """The verdict on one manifest.

    ``accepted`` holds the codes of *unchecked* findings that a person accepted; such a finding
    stays in the report but no longer fails it. Errors cannot be accepted.
    """

    subject: str
    findings: tuple[Finding, ...] = ()
    accepted: frozenset[str] = frozenset()
    adapters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity is Severity.ERROR)

    @property
    def unchecked(self) -> tuple[Finding, ...]:
        """What could not be checked and nobody accepted."""
        return tuple(
            f
            for f in self.findings
            if f.severity is Severity.UNCHECKED and f.code not in self.accepted
        )

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity is Severity.WARNING)

    @property
    def ok(self) -> bool:
        return not self.errors and not self.unchecked

    @property
    def exit_status(self) -> int:
        """0 fits, 1 misfit, 3 unchecked (2 is kept for wrong usage of the command)."""
        if self.errors:
            return 1
        return 3 if self.unchecked else 0

    def with_findings(self, more: Iterable[Finding]) -> Report:
        return Report(self.subject, (*self.findings, *more), self.accepted, self.adapters)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {
            "schema": REPORT_SCHEMA,
            "subject": self.subject,
            "ok": self.ok,
            "exit_status": self.exit_status,
            "accepted": sorted(self.accepted),
            "findings": [f.as_dict() for f in self.findings],
            "adapters": {name: dict(facts) for name, facts in self.adapters.items()},
        }
