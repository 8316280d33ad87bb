"""Does the model call every module that the adapter adapts?"""

from __future__ import annotations

from collections.abc import Iterator

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.facts import Layout
from ..files.wording import count, some
from ..methods.idle import is_idle, uncalled
from .candidate import Subject
from .zeros import zeros_of


def check(subject: Subject, layout: Layout) -> Iterator[Finding]:
    """An error for targets that can never act, a warning for those whose factors do nothing."""
    sites = list(uncalled(subject.plan, layout))
    zeros = zeros_of(subject.stored, subject.plan, layout, subject.ask.is_zero)
    idle = [site.module for site in sites if is_idle(site, zeros)]
    lost = [site.module for site in sites if site.module not in idle]
    if lost:
        yield codes.TARGET_NOT_CALLED.finding(
            f"The model never calls {count(len(lost), 'target')} of {subject.name}, it only "
            f"reads the weight: {some(lost)}",
            found="factors that would do nothing",
            expected="targets that the model calls",
        )
    if idle:
        yield codes.TARGET_IDLE.finding(
            f"The model never calls {count(len(idle), 'target')} of {subject.name}; "
            f"the factors are zero, so nothing is lost: {some(idle)}"
        )
