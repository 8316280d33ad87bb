"""Findings as SARIF 2.1.0 (OASIS), which code scanning reads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..manifests.findings.catalogue import all_codes
from ..manifests.findings.code import Code
from ..manifests.findings.finding import Finding, Severity
from .places import Place, Repository, details

if TYPE_CHECKING:
    from ..registry.validate_many import Checked

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
ROOT = "%SRCROOT%"
LEVELS = {Severity.ERROR: "error", Severity.UNCHECKED: "warning", Severity.WARNING: "note"}
"""An unchecked finding fails a run too, but nobody knows yet that something is wrong."""


def sarif_log(checked: Sequence[Checked]) -> dict[str, Any]:
    """One run with every finding, once where several manifests have it in a file that they extend.
    Paths start from the root of the repository, which a viewer knows as ``%SRCROOT%``; an accepted
    unchecked finding is suppressed."""
    ids = sorted({finding.code for one in checked for finding in one.report.findings})
    index = {id: number for number, id in enumerate(ids)}
    codes, repository = all_codes(), Repository()
    results = [
        _result(finding, one, index[finding.code], repository)
        for one in checked
        for finding in one.report.findings
    ]
    driver = {
        "name": "adapterdock",
        "version": __version__,
        "rules": [_rule(codes[id]) for id in ids],
    }
    run = {
        "tool": {"driver": driver},
        "originalUriBaseIds": {ROOT: {"description": {"text": "The root of the repository."}}},
        "columnKind": "unicodeCodePoints",
        "results": list({repr(result): result for result in results}.values()),
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: Code) -> dict[str, Any]:
    said = code.explained
    text = f"{said.explanation}\n\nExample:\n\n{said.example}\n\nWhat to do: {said.fix}"
    markdown = f"{said.explanation}\n\n```text\n{said.example}\n```\n\n**What to do:** {said.fix}"
    return {
        "id": code.id,
        "name": "".join(part.capitalize() for part in code.name.split("-")),
        "shortDescription": {"text": said.summary},
        "fullDescription": {"text": said.explanation},
        "help": {"text": text, "markdown": markdown},
        "defaultConfiguration": {"level": LEVELS[code.severity]},
        "properties": {"tags": ["adapters", code.name]},
    }


def _result(finding: Finding, one: Checked, index: int, repository: Repository) -> dict[str, Any]:
    place = repository.place_of(finding, one.manifest)
    base = "" if one.model is None else f" (with the base {one.model})"
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": LEVELS[finding.severity],
        "message": {"text": details(finding) + base},
        "locations": [_location(place, finding)],
        "partialFingerprints": {"adapterdock/v1": _fingerprint(finding, one, place)},
        "properties": {"severity": finding.severity.value},
    }
    if finding.code in one.report.accepted and finding.severity is Severity.UNCHECKED:
        result["suppressions"] = [{"kind": "external", "status": "accepted"}]
    return result


def _location(place: Place, finding: Finding) -> dict[str, Any]:
    artifact = {"uri": place.uri, **({"uriBaseId": ROOT} if place.inside else {})}
    physical: dict[str, Any] = {"artifactLocation": artifact}
    if place.line is not None:
        column = {} if place.column is None else {"startColumn": place.column}
        physical["region"] = {"startLine": place.line, **column}
    location: dict[str, Any] = {"physicalLocation": physical}
    if finding.where.dotted:
        name = {"fullyQualifiedName": finding.where.dotted, "kind": "member"}
        location["logicalLocations"] = [name]
    return location


def _fingerprint(finding: Finding, one: Checked, place: Place) -> str:
    """Stays the same while the manifest changes elsewhere: no line, no values."""
    parts = (finding.code, place.uri, finding.where.dotted, one.model or "", finding.message)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
