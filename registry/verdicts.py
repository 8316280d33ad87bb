"""What a report says of each adapter by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..manifests.findings.finding import Finding, Report, Severity


@dataclass(frozen=True)
class Verdict:
    """Whether one adapter fits one base.

    Attributes:
        fits: ``None`` where it could not be checked, or not completely.
        why: The findings that decided: errors, and what is unchecked and not accepted.
    """

    fits: bool | None
    why: tuple[Finding, ...] = ()

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of these findings, each once."""
        return tuple(dict.fromkeys(finding.code for finding in self.why))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``; its keys are stable."""
        return {"fits": self.fits, "codes": list(self.codes)}


def verdicts(report: Report) -> Mapping[str, Verdict]:
    """By adapter, its verdict; none where the manifest is invalid.

    What is wrong with the base (it is not the one that the manifest declares) counts for each
    adapter, what is wrong with another adapter or a composition does not.
    """
    return {name: _verdict(report, name) for name in report.adapters}


def _verdict(report: Report, name: str) -> Verdict:
    own = [f for f in report.findings if f.where.path[:2] == ("adapters", name)]
    shared = [f for f in report.findings if _is_shared(f)]
    wrong, unchecked = _only(own, Severity.ERROR), _unchecked(own, report)
    if not report.adapters[name]:  # it could not be read, perhaps because its registry cannot
        elsewhere = tuple(f for f in report.errors if f.where.path[:1] != ("adapters",))
        return Verdict(None, (*wrong, *unchecked) or elsewhere)
    if wrong:
        return Verdict(False, wrong)
    of_base = _only(shared, Severity.ERROR)
    if unchecked:  # as where the base could not be read
        return Verdict(None, (*of_base, *unchecked))
    if of_base:
        return Verdict(False, of_base)
    doubts = _unchecked(shared, report)
    return Verdict(None if doubts else True, doubts)


def _is_shared(finding: Finding) -> bool:
    path = finding.where.path
    return path[:1] == ("base",) or path == ("adapters",)


def _only(findings: list[Finding], severity: Severity) -> tuple[Finding, ...]:
    return tuple(f for f in findings if f.severity is severity)


def _unchecked(findings: list[Finding], report: Report) -> tuple[Finding, ...]:
    return tuple(f for f in _only(findings, Severity.UNCHECKED) if f.code not in report.accepted)
