"""Does every entry of the config that singles modules out match one?"""

from __future__ import annotations

from collections.abc import Mapping

from ...manifests.codes import fit as codes
from ...manifests.findings import Finding
from ..patterns import PatternTable
from .subject import Subject, some


def check(subject: Subject) -> list[Finding]:
    """A warning for each field with entries that match no adapted module. Raises
    :class:`~adapterdock.registry.patterns.PatternError`."""
    config, modules = subject.config, subject.plan.modules
    authors = [subject.naming.author(module) for module in modules]
    unused: dict[str, list[str]] = {}
    for field in ("rank_pattern", "alpha_pattern"):
        entries: Mapping[str, float] = getattr(config, field)
        table = PatternTable({entry: entry for entry in entries}, subject.patterns)
        used = {entry for author in authors for entry in table.all(author)} if entries else set()
        unused[field] = [entry for entry in entries if entry not in used]
    if config.layers is not None and modules:
        # a module that is named in full needs no layer
        layers = {subject.patterns.layer_index(config.layers_pattern, a) for a in authors}
        unused["layers_to_transform"] = [str(n) for n in config.layers if n not in layers]
    return [
        codes.PATTERN_UNUSED.finding(
            f"{field} has entries for no adapted module: {some(entries)}", subject.where
        )
        for field, entries in unused.items()
        if entries
    ]
