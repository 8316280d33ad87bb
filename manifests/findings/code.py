"""One row of the table of codes."""

from __future__ import annotations

from dataclasses import dataclass

from .finding import Finding, Severity, Where


@dataclass(frozen=True)
class Code:
    """What one code means, for good.

    ``explanation`` is a paragraph, ``example`` shows input that earns the code, ``fix`` says what
    to do. ``finding`` is the only way in which the house makes a :class:`Finding`.
    """

    id: str
    name: str
    severity: Severity
    summary: str
    explanation: str
    example: str
    fix: str

    def finding(
        self,
        message: str,
        where: Where = Where(),  # noqa: B008 - frozen
        *,
        found: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> Finding:
        """A finding of this code; ``hint`` defaults to the code's own ``fix``."""
        return Finding(
            code=self.id,
            name=self.name,
            severity=self.severity,
            message=message,
            where=where,
            found=None if found is None else str(found),
            expected=None if expected is None else str(expected),
            hint=self.fix if hint is None else hint,
        )
