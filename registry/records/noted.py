"""The journal's line about a change that was made: where only the line fails, a warning says so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import AdapterdockError
from ...manifests.findings.finding import Finding, Where
from ..storages.storage import Storage
from .journal import note
from .series import Value

Told = Callable[[Finding], object]
"""Gets warnings: what could not be done after a change was made."""

_log = logging.getLogger("adapterdock")


def log_warning(finding: Finding) -> None:
    """Tell it in the log."""
    _log.warning("%s", finding)


def noted(
    storage: Storage, line: Mapping[str, Any], done: str, told: Told, *, verb: str | None = None
) -> Value | None:
    """Write the line about ``done`` (``x@1.0.0 is published``). The change stays where that fails,
    and ``told`` gets the warning; then ``None``.

    Args:
        storage: The registry.
        line: Of the journal.
        done: The change, as a sentence without its stop.
        told: Gets the warning.
        verb: What a person need not do again.
    """
    try:
        return note(storage, line)
    except AdapterdockError as error:
        (problem, *_) = error.findings
        again = f" Do not {verb} again." if verb else ""
        verify = f"run `adapterdock registry verify`, which adds the line.{again}"
        told(
            codes.JOURNAL_INCOMPLETE.finding(
                f"{done}, but the journal has no line about it, so search and outdated do not see "
                "it",
                Where(file=storage.url),
                found=problem.message,
                hint=f"Restore the journal's files from a mirror, a backup or git. Then {verify}"
                if problem.code == codes.HISTORY_BROKEN.id
                else f"When the registry can be written again, {verify}",
            )
        )
        return None
