"""Is it clear which alpha each module was trained with?"""

from __future__ import annotations

from collections.abc import Iterator

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.wording import listed
from ..methods.patterns import PatternTable
from .candidate import Subject


def check(subject: Subject) -> Iterator[Finding]:
    """Modules for which several patterns of ``alpha_pattern`` give several values. Raises
    ``PatternError``."""
    written = list(subject.config.alpha_pattern)
    if len(written) < 2 or written != sorted(written):
        return  # PEFT sorts the patterns: another order is the author's choice
    table = PatternTable(subject.config.alpha_pattern, subject.patterns)
    unsure: dict[tuple[float, ...], list[str]] = {}
    for site in subject.plan.sites:
        values = tuple(dict.fromkeys(table.all(subject.pattern_name(site))))
        if len(values) > 1:
            unsure.setdefault(values, []).append(site.module)
    for values, modules in unsure.items():
        yield codes.ALPHA_AMBIGUOUS.finding(
            f"Several patterns of alpha_pattern match {listed(modules, 'module')}",
            found=", ".join(f"{value:g}" for value in values),
            expected=f"one value; {values[0]:g} is used, as in PEFT",
        )
