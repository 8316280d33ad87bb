"""Results as JUnit XML, which CI systems show as tests: one test case for each manifest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from ..manifests.findings.finding import Finding, Severity
from .render import verdict_of

if TYPE_CHECKING:
    from ..registry.validate_many import Checked

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(checked: Sequence[Checked], command: str = "validate") -> str:
    """The results of ``command``: a failed test has something wrong, one with an error could not be
    checked completely."""
    statuses = [one.report.exit_status for one in checked]
    counts = {
        "tests": str(len(checked)),
        "failures": str(statuses.count(1)),
        "errors": str(statuses.count(3)),
    }
    name = f"adapterdock {command}"
    suites = ET.Element("testsuites", {"name": name, **counts})
    suite = ET.SubElement(suites, "testsuite", {"name": name, **counts})
    for one in checked:
        _add_case(suite, one, name.replace(" --", "-").replace(" ", "."))
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode")


def _add_case(suite: ET.Element, one: Checked, classname: str) -> None:
    report = one.report
    case = ET.SubElement(
        suite,
        "testcase",
        {
            "classname": classname,
            "name": _clean(one.title),
            "file": _clean(one.manifest),
        },
    )
    kind = {1: "failure", 3: "error"}.get(report.exit_status)
    deciding = [*report.errors, *report.unchecked]
    if kind is not None:
        types = ", ".join(dict.fromkeys(finding.code for finding in deciding))
        message = _clean(verdict_of(report))
        ET.SubElement(case, kind, {"type": types, "message": message}).text = _texts(deciding)
    rest = [f for f in report.findings if f not in deciding]
    if rest:
        ET.SubElement(case, "system-out").text = _texts(rest)


def _texts(findings: Sequence[Finding]) -> str:
    order = list(Severity)
    ordered = sorted(findings, key=lambda finding: order.index(finding.severity))
    return _clean("\n\n".join(map(str, ordered)))


def _clean(text: str) -> str:
    """``text`` without characters that XML 1.0 cannot contain."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
