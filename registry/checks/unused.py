"""Does every entry of the config that singles modules out match one?"""

from __future__ import annotations

from collections.abc import Mapping

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.wording import some
from ..methods.patterns import PatternError, Patterns, PatternTable
from .candidate import Subject

BUDGET_SECONDS = 0.3
"""A budget of its own: what only warns must not use up the time of what decides."""


def check(subject: Subject) -> list[Finding]:
    """A warning for each field with entries that match no adapted module; none where telling
    takes too long."""
    try:
        unused = _unused(subject, Patterns(BUDGET_SECONDS))
    except PatternError:
        return []
    return [
        codes.PATTERN_UNUSED.finding(
            f"{field} has entries for no adapted module: {some(entries)}", subject.where
        )
        for field, entries in unused.items()
        if entries
    ]


def _unused(subject: Subject, patterns: Patterns) -> Mapping[str, list[str]]:
    config = subject.config
    authors = [subject.naming.author(module) for module in subject.plan.modules]
    adapted = dict.fromkeys(subject.pattern_name(site) for site in subject.plan.sites)
    tables = {"rank_pattern": config.rank_pattern, "alpha_pattern": config.alpha_pattern}
    unused: dict[str, list[str]] = {}
    for field, entries in tables.items():
        table = PatternTable({entry: entry for entry in entries}, patterns)
        used = {entry for name in adapted for entry in table.all(name)} if entries else set()
        unused[field] = [entry for entry in entries if entry not in used]
    if config.layers is not None and authors:
        layers = {patterns.layer_index(config.layers_pattern, author) for author in authors}
        unused["layers_to_transform"] = [str(n) for n in config.layers if n not in layers]
    return unused
