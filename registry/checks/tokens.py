"""Are the rows that were trained (trainable tokens) rows of the base's embedding?"""

from __future__ import annotations

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.facts import Layout
from ..files.wording import some
from ..methods.trainable_tokens import rows_of
from .candidate import Subject
from .vocabulary import resize_hint


def check(subject: Subject) -> list[Finding]:
    """Indices outside the vocabulary or named twice, and rows that the config says were trained
    and that are not in the file."""
    findings: list[Finding] = []
    for site in subject.plan.sites:
        if "indices" not in site.settings or "follows" in site.settings:
            continue
        indices = site.settings["indices"]
        rows = _rows(subject.layout, site.module)
        outside = [i for i in indices if i < 0 or (rows is not None and i >= rows)]
        if outside:
            findings.append(
                codes.TOKEN_OUTSIDE.finding(
                    f"trained tokens of {site.module} that it does not have: "
                    f"{some(map(str, outside))}",
                    subject.where,
                    expected="0 or more" if rows is None else f"0 to {rows - 1}",
                    hint=resize_hint(max(outside) + 1) if min(outside) >= 0 else None,
                )
            )
        twice = sorted({i for i in indices if indices.count(i) > 1})
        if twice:
            findings.append(
                codes.OPTION_CONTRADICTION.finding(
                    f"trained tokens of {site.module} named twice: {some(map(str, twice))}",
                    subject.where,
                )
            )
    return [*findings, *_without_rows(subject)]


def _without_rows(subject: Subject) -> list[Finding]:
    config = subject.config
    with_rows = [site.module for site in subject.plan.sites if "indices" in site.settings]
    authors = [subject.naming.author(module) for module in with_rows]
    missing = [name for name in config.tokens if not any(a.endswith(name) for a in authors)]
    return [
        codes.TARGETS_WITHOUT_TENSORS.finding(
            f"trainable_token_indices, and no rows of {name or 'the embedding'} in the file",
            subject.where,
            found=f"{len(config.tokens[name])} indices",
            expected="<embedding>.token_adapter.trainable_tokens_delta",
        )
        for name in missing
    ]


def _rows(layout: Layout | None, module: str) -> int | None:
    shape = layout.modules.get(module) if layout is not None else None
    return None if shape is None else rows_of(shape)
