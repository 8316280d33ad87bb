"""Does the adapter act on one of two modules that share their weight?"""

from __future__ import annotations

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.wording import some
from .candidate import Subject


def check(subject: Subject) -> list[Finding]:
    """A warning for each tie of which one side, or both on their own, is adapted."""
    layout = subject.layout
    if layout is None or subject.config.ensure_weight_tying:
        return []
    adapted = {*subject.plan.modules, *subject.plan.saved, *subject.plan.tuned}
    tokens = {site.module for site in subject.plan.sites if "indices" in site.settings}
    findings: list[Finding] = []
    for one, other in layout.tied.items():
        if not (one.endswith(".weight") and other.endswith(".weight")):
            continue
        pair = [one.removesuffix(".weight"), other.removesuffix(".weight")]
        if tokens.issuperset(pair):
            continue  # the same rows of both
        acting = [module for module in pair if module in adapted]
        if acting:
            findings.append(
                codes.TIED_WEIGHT.finding(
                    f"the adapter acts on {some(acting)}, and {pair[0]} and {pair[1]} share "
                    "one weight",
                    subject.where,
                )
            )
    return findings
