"""Warnings from a running model."""

from __future__ import annotations

import warnings

from ...manifests.findings import loader as codes
from ...manifests.findings.finding import Finding
from .adapter import Adapter


class AdapterWarning(UserWarning):
    """A warning from the loader; its text is a finding."""


def never_fired(adapter: Adapter) -> Finding | None:
    names = sorted(adapter.unfired)
    if not names:
        return None
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return codes.SITE_NEVER_FIRED.finding(
        f"{adapter.name!r} did not run at {shown}",
        found=f"{len(names)} of {len(adapter.modules)} modules never ran",
    )


def warn(finding: Finding) -> None:
    warnings.warn(AdapterWarning(str(finding)), stacklevel=4)
