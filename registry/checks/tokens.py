"""Are the rows that were trained (trainable tokens) rows of the base's embedding?"""

from __future__ import annotations

from collections.abc import Iterator

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.wording import some
from ..methods.trainable_tokens import rows_of
from .candidate import Subject
from .vocabulary import resize_hint


def check(subject: Subject) -> Iterator[Finding]:
    """Indices outside the vocabulary, duplicate ones, and rows that the config says were trained
    but the file does not have."""
    config = subject.config
    with_rows = [site for site in subject.plan.sites if "indices" in site.settings]
    for site in with_rows:
        if "follows" in site.settings:
            continue
        indices = site.settings["indices"]
        module = subject.layout.modules.get(site.module) if subject.layout else None
        rows = None if module is None else rows_of(module)
        outside = [i for i in indices if i < 0 or (rows is not None and i >= rows)]
        if outside:
            yield codes.TOKEN_OUTSIDE.finding(
                f"{site.module} does not have the trained tokens {some(map(str, outside))}",
                expected="0 or more" if rows is None else f"0 to {rows - 1}",
                hint=resize_hint(max(outside) + 1) if min(outside) >= 0 else None,
            )
        twice = sorted({i for i in indices if indices.count(i) > 1})
        if twice:
            message = f"Duplicate trained tokens of {site.module}: {some(map(str, twice))}"
            yield codes.OPTION_CONTRADICTION.finding(message)
    authors = [subject.naming.author(site.module) for site in with_rows]
    for name in config.tokens:
        if not any(author.endswith(name) for author in authors):
            yield codes.TARGETS_WITHOUT_TENSORS.finding(
                "The config sets trainable_token_indices, but the file has no rows of "
                f"{name or 'the embedding'}",
                found=f"{len(config.tokens[name])} indices",
                expected="<embedding>.token_adapter.trainable_tokens_delta",
            )
