"""What checks report: findings, where they are, and the report that collects them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

REPORT_SCHEMA = "adapterdock.report/1"
_PIN = "--upgrade NAME"
"""What hints say of a pin: where a finding is at an adapter or at the base, its name is put in."""


class Severity(str, Enum):
    """How serious a finding is.

    Attributes:
        ERROR: It is wrong; always refused.
        UNCHECKED: It could not be checked. This is not a pass: a person accepts it by code.
        WARNING: It passes.
    """

    ERROR = "error"
    UNCHECKED = "unchecked"
    WARNING = "warning"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Where:
    """A place in a manifest, a lock or another file.

    Args:
        file: Its name, as the user gave it.
        path: Keys and indices, from the top of the file.
        line: Counts from 1.
        column: Counts from 1.
    """

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
        """The path as text: ``adapters.billing.source``, ``rules.exclusive[0]``."""
        text = ""
        for part in self.path:
            if isinstance(part, int):
                text += f"[{part}]"
            else:
                text += f".{part}" if text else part
        return text

    @property
    def pinned(self) -> str | None:
        """The adapter that this is in, or ``base``, as ``lock --upgrade`` names it."""
        match self.path:
            case ("adapters", str(name), *_):
                return name
            case ("base", *_):
                return "base"
            case _:
                return None


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed: what, where, and what to do about it.

    Args:
        code: Such as ``AD301``; ``adapterdock explain`` says what it means.
        name: The code's name, such as ``header-malformed``.
        severity: How serious it is.
        message: What is wrong, in one sentence.
        where: The place of it.
        found: What is there.
        expected: What should be there.
        hint: What to do. In `--upgrade NAME` the name is that of the adapter that ``where`` is in.
    """

    code: str
    name: str
    severity: Severity
    message: str
    where: Where = Where()
    found: str | None = None
    expected: str | None = None
    hint: str | None = None

    def __post_init__(self) -> None:
        name = self.where.pinned
        if name is not None and self.hint is not None and _PIN in self.hint:
            object.__setattr__(self, "hint", self.hint.replace(_PIN, f"--upgrade {name}"))

    def __str__(self) -> str:
        more = {
            "at": str(self.where) or None,
            "found": self.found,
            "expected": self.expected,
            "hint": self.hint,
        }
        lines = [f"  {word}: {text}" for word, text in more.items() if text is not None]
        return "\n".join([f"{self.severity} {self.code} {self.name}: {self.message}", *lines])

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``; its keys are stable."""
        where = {**vars(self.where), "path": self.where.dotted or None}
        return {**vars(self), "severity": self.severity.value, "where": where}


def refused(findings: Iterable[Finding], accepted: Collection[str] = ()) -> list[Finding]:
    """The errors among ``findings``, and the *unchecked* ones whose code is not accepted."""
    return [
        f
        for f in findings
        if f.severity is Severity.ERROR
        or (f.severity is Severity.UNCHECKED and f.code not in accepted)
    ]


@dataclass(frozen=True)
class Report:
    """The result of checking one manifest.

    Args:
        subject: What was checked, such as the manifest's path.
        findings: Everything that was noticed.
        accepted: Codes of *unchecked* findings that a person accepted. Such a finding stays in the
            report but no longer fails it. Errors cannot be accepted.
        adapters: By adapter, what is known of it (method, rank, ...), as plain data.
    """

    subject: str
    findings: tuple[Finding, ...] = ()
    accepted: frozenset[str] = frozenset()
    adapters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        from .said import as_text, report_rows

        return as_text(report_rows(self))

    def _repr_html_(self) -> str:
        from .notebook import report_html

        return report_html(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What is wrong."""
        return tuple(f for f in self.findings if f.severity is Severity.ERROR)

    @property
    def unchecked(self) -> tuple[Finding, ...]:
        """What could not be checked, and was not accepted."""
        return tuple(
            f
            for f in self.findings
            if f.severity is Severity.UNCHECKED and f.code not in self.accepted
        )

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What passes, but should be known."""
        return tuple(f for f in self.findings if f.severity is Severity.WARNING)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong or left unchecked."""
        return not refused(self.findings, self.accepted)

    @property
    def exit_status(self) -> int:
        """Of the command: 0 passed, 1 errors, 3 something is unchecked (2 means wrong usage)."""
        if self.errors:
            return 1
        return 3 if self.unchecked else 0

    def with_findings(self, more: Iterable[Finding]) -> Report:
        """The same report with more findings.

        Args:
            more: They come after the others.

        Returns:
            A new report.
        """
        return replace(self, findings=(*self.findings, *more))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``; its keys are stable."""
        return {
            "schema": REPORT_SCHEMA,
            "subject": self.subject,
            "ok": self.ok,
            "exit_status": self.exit_status,
            "accepted": sorted(self.accepted),
            "findings": [f.as_dict() for f in self.findings],
            "adapters": {name: dict(facts) for name, facts in self.adapters.items()},
        }
