"""One row of the table of codes."""

from __future__ import annotations

from dataclasses import dataclass

from .finding import Finding, Severity, Where


@dataclass(frozen=True)
class Code:
    """What one code means, for good. ``finding`` is the only way to make a :class:`Finding`.

    Its explanation and example are a section of ``explain/AREA.md``.

    Args:
        id: Such as ``AD301``; never used again for another meaning.
        name: Such as ``header-malformed``; as stable as the id.
        severity: That of every finding of this code.
        summary: What is wrong, as a sentence.
        fix: What to do, as an imperative sentence.
        was: Ids and names that meant the same in earlier releases, and are understood still.
    """

    id: str
    name: str
    severity: Severity
    summary: str
    fix: str
    was: tuple[str, ...] = ()

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
