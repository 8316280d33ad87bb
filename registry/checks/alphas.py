"""Can it be told which alpha each module was trained with?"""

from __future__ import annotations

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..methods.lora_attention import TARGET
from ..methods.patterns import PatternTable
from .candidate import Subject, count, some


def check(subject: Subject) -> list[Finding]:
    """Modules for which several patterns of ``alpha_pattern`` give several values. Raises
    ``PatternError``."""
    written = list(subject.config.alpha_pattern)
    if len(written) < 2 or written != sorted(written):
        return []  # an order that PEFT did not make is the author's
    table = PatternTable(subject.config.alpha_pattern, subject.patterns)
    unsure: dict[tuple[float, ...], list[str]] = {}
    for site in subject.plan.sites:
        name = subject.naming.author(site.settings.get(TARGET, site.module))
        if TARGET not in site.settings and (parameter := site.settings.get("parameter")):
            name = f"{name}.{parameter}"
        values = tuple(dict.fromkeys(table.all(name)))
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
