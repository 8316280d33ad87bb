"""Findings as workflow commands, which GitHub shows at the lines of a pull request.

The syntax is that of https://docs.github.com/actions/reference/workflow-commands-for-github-actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..manifests.findings.finding import Finding, Severity
from .places import Place, Repository, details

if TYPE_CHECKING:
    from ..registry.validate_many import Checked

KINDS = {Severity.ERROR: "error", Severity.UNCHECKED: "warning", Severity.WARNING: "notice"}
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _DATA | str.maketrans({":": "%3A", ",": "%2C"})


def commands(checked: Sequence[Checked]) -> list[str]:
    """One command for each finding, the serious ones first: GitHub shows only the first ten of each
    kind. A finding in a file that several manifests extend is there once."""
    repository = Repository()
    found = [
        command(finding, repository.place_of(finding, one.manifest), _kind(finding, one), one.model)
        for one in checked
        for finding in one.report.findings
    ]
    kinds = list(KINDS.values())
    return sorted(dict.fromkeys(found), key=lambda c: kinds.index(c[2:].partition(" ")[0]))


def command(finding: Finding, place: Place, kind: str, model: str | None = None) -> str:
    """``::error file=a.yaml,line=3,col=5,title=AD201 source-missing::text``."""
    properties = {
        "file": place.path,
        "line": place.line,
        "col": place.column,
        "title": f"{finding.code} {finding.name}",
    }
    said = ",".join(
        f"{name}={str(value).translate(_PROPERTY)}"
        for name, value in properties.items()
        if value is not None
    )
    text = details(finding) + ("" if model is None else f"\nbase: {model}")
    return f"::{kind} {said}::{text.translate(_DATA)}"


def plain(text: str) -> str:
    """A line that no runner takes for a command, whatever the names in it are."""
    return "adapterdock: " + " ".join(text.splitlines()).replace("##[", "## [")


def _kind(finding: Finding, one: Checked) -> str:
    accepted = finding.severity is Severity.UNCHECKED and finding.code in one.report.accepted
    return "notice" if accepted else KINDS[finding.severity]
