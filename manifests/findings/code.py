"""One row of the table of codes."""

from __future__ import annotations

from dataclasses import dataclass

from .explained import Section, section_of
from .finding import Finding, Severity, Where


@dataclass(frozen=True)
class Code:
    """What one code means, for good. ``finding`` is the only way to make a :class:`Finding`.

    What is said of it is a section of ``explain/AREA.md``.

    Args:
        id: Such as ``AD301``; never used again for another meaning.
        name: Such as ``header-malformed``; as stable as the id.
        severity: That of every finding of this code.
        was: Ids and names that meant the same in earlier releases, and are still understood.
    """

    id: str
    name: str
    severity: Severity = Severity.ERROR
    was: tuple[str, ...] = ()

    @property
    def explained(self) -> Section:
        """Its section: what is wrong, why, an example, and what to do."""
        return section_of(self.id)

    @property
    def summary(self) -> str:
        """What is wrong, as a sentence."""
        return self.explained.summary

    @property
    def fix(self) -> str:
        """What to do, as an imperative sentence."""
        try:
            return self.explained.fix
        except OSError:  # a finding on a process that may open no more files
            return f"Run `adapterdock explain {self.id}`."

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
