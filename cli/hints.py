"""Commands that hints name, completed so that they can be copied."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..manifests.findings.finding import Finding, Report
from .options import as_argument

_COMMAND = re.compile(r"`adapterdock (?:lock|plan|pull|validate)(?=`| --)")
"""A command that takes a manifest, and names none."""
_manifest: ContextVar[Path | None] = ContextVar("_manifest", default=None)


@contextmanager
def hints_name(parameters: Mapping[str, Any]) -> Generator[None]:
    """Within the block, hints name the one manifest that a command was called with."""
    one, several = parameters.get("manifest"), parameters.get("manifests")
    paths: Sequence[object] = several if isinstance(several, list) else [one]
    alone = paths[0] if len(paths) == 1 else None
    token = _manifest.set(alone if isinstance(alone, Path) else None)
    try:
        yield
    finally:
        _manifest.reset(token)


def completed(findings: Iterable[Finding], manifest: Path | None = None) -> tuple[Finding, ...]:
    """The findings, with the manifest in the commands of their hints.

    Args:
        findings: Hints are completed in them; nothing else changes.
        manifest: By default the one that the command was called with. ``adapters.yaml`` is the
            default of every command, and not written.
    """
    manifest = manifest or _manifest.get()
    argument = "" if manifest is None else as_argument(manifest)
    return tuple(_with(argument, finding) if argument else finding for finding in findings)


def completed_report(report: Report, manifest: Path | None = None) -> Report:
    """The report, with the manifest in the commands of its hints."""
    return replace(report, findings=completed(report.findings, manifest))


def _with(argument: str, finding: Finding) -> Finding:
    if finding.hint is None or not _COMMAND.search(finding.hint):
        return finding
    return replace(finding, hint=_COMMAND.sub(lambda m: m[0] + argument, finding.hint))
