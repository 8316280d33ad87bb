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
    """What to do where the base was resized in training, to this number of rows."""
    return (
        f"Write `base.vocab_size: {rows}` (the number of rows in training) if the base was resized "
        f"there; resize a live model with `model.resize_token_embeddings({rows})`."
    )


def check_embeddings(subject: Subject, layout: Layout) -> Iterator[Finding]:
    """Embeddings that are stored with the adapter, against the base's."""
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
            f"The stored {module} has {what} than the base's",
            found=found,
            expected=wanted,
            hint=resize_hint(found[0]) if resized else None,
        )


def check_tokens(subject: Subject) -> Iterator[Finding]:
    """The adapter's tokenizer against the base's rows, and its tokenizer."""
    theirs = subject.ask.tokenizer()
    if theirs is None:
        return
    rows = _base_rows(subject)
    if rows is not None and theirs.rows > rows:
        yield codes.VOCABULARY.finding(
            "The adapter's tokenizer has more tokens than the base has rows",
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
        names = some(repr(token) for token in added)
        yield codes.TOKENS_ADDED.finding(f"Only the adapter's tokenizer has the tokens {names}")


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
    if subject.layout is None:
        return None
    embeddings = (m for m in subject.layout.modules.values() if m.kind is ModuleKind.EMBEDDING)
    return max((m.in_features for m in embeddings if m.in_features is not None), default=None)
