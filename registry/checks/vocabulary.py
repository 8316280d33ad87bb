"""Do the adapter's tokens and embeddings fit the base's vocabulary?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.facts import Layout, ModuleKind
from ..files.wording import some
from .candidate import Subject


def resize_hint(rows: int) -> str:
    """The way out where the base was resized in training, to this number of rows."""
    return (
        f"Write `base.vocab_size: {rows}` (the number of rows in training) if the base was resized "
        f"there; resize a live model with `model.resize_token_embeddings({rows})`."
    )


def check(subject: Subject) -> list[Finding]:
    """Embeddings stored with the adapter."""
    return list(_embeddings(subject))


def check_tokens(subject: Subject) -> list[Finding]:
    """The tokenizer beside the adapter, which is read for this."""
    return list(_tokens(subject))


def _embeddings(subject: Subject) -> Iterator[Finding]:
    layout = subject.layout
    if layout is None:
        return
    for module, key in subject.plan.embeddings.items():
        owner = layout.modules.get(module)
        wanted = owner.parameters.get("weight") if owner else None
        found = subject.tensors[key].shape
        if wanted is None or found == wanted:
            continue
        resized = len(found) == len(wanted) == 2 and found[1] == wanted[1]
        code = codes.VOCABULARY if resized else codes.EMBEDDING_MISMATCH
        what = "another number of rows" if resized else "another width"
        yield code.finding(
            f"{module} is stored with the adapter and has {what} than the base's",
            subject.where,
            found=found,
            expected=wanted,
            hint=resize_hint(found[0]) if resized else None,
        )


def _tokens(subject: Subject) -> Iterator[Finding]:
    theirs = subject.ask.tokenizer()
    if theirs is None:
        return
    rows = _base_rows(subject)
    if rows is not None and theirs.rows > rows:
        yield codes.VOCABULARY.finding(
            "the adapter's tokenizer has more tokens than the base has rows",
            subject.where,
            found=f"{theirs.rows} ids",
            expected=f"at most {rows}",
            hint=resize_hint(theirs.rows),
        )
        return
    ours = subject.base.tokenizer if subject.base else None
    if ours is None:
        return
    added = [token for token in theirs.added if token not in ours.added]
    if added and theirs.rows > ours.rows:
        yield codes.TOKENS_ADDED.finding(
            f"tokens that only the adapter's tokenizer has: {some(repr(t) for t in added)}",
            subject.where,
        )


def _base_rows(subject: Subject) -> int | None:
    """Rows of the base's token embedding: what it is resized to, else what config.json says, else
    the largest embedding."""
    if subject.base is not None:
        loaded = subject.base.loaded_as
        if loaded is not None and loaded.vocab_size is not None:
            return loaded.vocab_size
        text = subject.base.config.get("text_config")
        config = cast("dict[str, Any]", text) if isinstance(text, dict) else subject.base.config
        size = config.get("vocab_size")
        if isinstance(size, int):
            return size
    return None if subject.layout is None else _largest_embedding(subject.layout)


def _largest_embedding(layout: Layout) -> int | None:
    rows = [
        module.in_features
        for module in layout.modules.values()
        if module.kind is ModuleKind.EMBEDDING and module.in_features is not None
    ]
    return max(rows, default=None)
