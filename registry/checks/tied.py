"""Does the adapter act on only one of two modules that share their weight?"""

from __future__ import annotations

from collections.abc import Iterator

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.facts import Layout
from ..files.wording import some
from .candidate import Subject


def check(subject: Subject, layout: Layout) -> Iterator[Finding]:
    """A warning for each tie of which one side, or each side by itself, is adapted."""
    if subject.config.ensure_weight_tying:
        return
    adapted = {*subject.plan.modules, *subject.plan.saved, *subject.plan.tuned}
    tokens = {site.module for site in subject.plan.sites if "indices" in site.settings}
    for target, source in layout.tied.items():
        if not (target.endswith(".weight") and source.endswith(".weight")):
            continue
        pair = [target.removesuffix(".weight"), source.removesuffix(".weight")]
        acting = [module for module in pair if module in adapted]
        if acting and not tokens.issuperset(pair):  # the same rows of both are fine
            yield codes.TIED_WEIGHT.finding(
                f"The adapter acts on {some(acting)}, but {pair[0]} and {pair[1]} share one weight"
            )
