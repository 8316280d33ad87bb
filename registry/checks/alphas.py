"""Can it be told which alpha each module was trained with?"""

from __future__ import annotations

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.wording import count, some
from ..methods.patterns import PatternTable
from .candidate import Subject


def check(subject: Subject) -> list[Finding]:
    """Modules for which several patterns of ``alpha_pattern`` give several values. Raises
    ``PatternError``."""
    written = list(subject.config.alpha_pattern)
    if len(written) < 2 or written != sorted(written):
        return []  # an order that PEFT did not make is the author's
    table = PatternTable(subject.config.alpha_pattern, subject.patterns)
    unsure: dict[tuple[float, ...], list[str]] = {}
    for site in subject.plan.sites:
        values = tuple(dict.fromkeys(table.all(subject.pattern_name(site))))
        if len(values) > 1:
            unsure.setdefault(values, []).append(site.module)
    return [
        codes.ALPHA_AMBIGUOUS.finding(
            f"several patterns give an alpha to {count(len(modules), 'module')}: {some(modules)}",
            subject.where,
            found=", ".join(f"{value:g}" for value in values),
            expected=f"one value; {values[0]:g} is taken, as PEFT would",
        )
        for values, modules in unsure.items()
    ]
