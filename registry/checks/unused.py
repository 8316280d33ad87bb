"""Does every entry of the config that selects modules match one?"""

from __future__ import annotations

from collections.abc import Iterator

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.wording import some
from ..methods.patterns import PatternError, Patterns, PatternTable
from .candidate import Subject

BUDGET_SECONDS = 0.3
"""A budget of its own: a warning must not use up the time of the errors."""


def check(subject: Subject) -> list[Finding]:
    """A warning for each field with entries that match no adapted module; none where finding them
    takes too long."""
    try:
        unused = dict(_unused(subject, Patterns(BUDGET_SECONDS)))
    except PatternError:
        return []
    return [
        codes.PATTERN_UNUSED.finding(f"Entries of {field} match no adapted module: {some(entries)}")
        for field, entries in unused.items()
        if entries
    ]


def _unused(subject: Subject, patterns: Patterns) -> Iterator[tuple[str, list[str]]]:
    config = subject.config
    authors = [subject.naming.author(module) for module in subject.plan.modules]
    adapted = dict.fromkeys(subject.pattern_name(site) for site in subject.plan.sites)
    tables = {"rank_pattern": config.rank_pattern, "alpha_pattern": config.alpha_pattern}
    for field, entries in tables.items():
        table = PatternTable({entry: entry for entry in entries}, patterns)
        used = {entry for name in adapted for entry in table.all(name)} if entries else set()
        yield field, [entry for entry in entries if entry not in used]
    if config.layers is not None and authors:
        layers = {patterns.layer_index(config.layers_pattern, author) for author in authors}
        yield "layers_to_transform", [str(n) for n in config.layers if n not in layers]
