"""The differences between two locks as sentences, for people who review a change."""

from __future__ import annotations

from collections.abc import Iterator

from ...manifests.lockfile import NEW_ADAPTER, Lock, LockedAdapter, LockedBase
from .diff import diff

SHOWN_DIGITS = 12
"""Digits of a digest."""
_COVERED = ("adapters.", "compositions.", "declared.compositions.", "base.", "accepted")
"""Paths of a difference that have sentences of their own."""


def in_words(old: Lock | None, new: Lock | None) -> list[str]:
    """What changed from ``old`` to ``new``, a sentence each; none where they pin the same.

    ``None`` is a lock that does not exist.
    """
    if new is None:
        return [] if old is None else ["The lock was removed: nothing is pinned any more"]
    sentences = ["The lock is new"] if old is None else []
    sentences += _base(None if old is None else old.base, new.base)
    before = {} if old is None else old.adapters
    for name in sorted({*before, *new.adapters}):
        sentences += _adapter(name, before.get(name), new.adapters.get(name))
    sentences += _compositions(old, new)
    accepted = () if old is None else old.accepted
    sentences += [f"{code} is accepted now" for code in new.accepted if code not in accepted]
    sentences += [f"{code} is no longer accepted" for code in accepted if code not in new.accepted]
    if old is not None:
        come_or_gone = [f"declared.adapters.{name}." for name in {*before} ^ {*new.adapters}]
        sentences += [
            f"{change.path} changed from {change.old or 'nothing'} to {change.new or 'nothing'}"
            for change in diff(old, new)
            if not change.path.startswith((*_COVERED, *come_or_gone))
        ]
    return sentences


def _base(old: LockedBase | None, new: LockedBase | None) -> Iterator[str]:
    if new is None:
        if old is not None:
            yield f"The base {old.source} is no longer pinned"
        return
    if old is None:
        yield f"The base {new.source} was added"
        return
    if old.source != new.source:
        yield f"The base changed from {old.source} to {new.source}"
    levels = _levels(old, new)
    if levels:
        yield f"The base is another model: its {_listed(levels)} changed"
    files = sorted(
        path for path in {*old.files, *new.files} if old.files.get(path) != new.files.get(path)
    )
    if files and not levels:
        yield f"Files of the base changed: {_listed(files)}"
    if old.loaded_as != new.loaded_as:
        yield "The base is loaded in another way (task, labels or vocabulary)"
    if old.fetched_from != new.fetched_from:
        yield f"The base is fetched from {new.fetched_from or 'its own source'}"


def _levels(old: LockedBase, new: LockedBase) -> list[str]:
    """The levels of the fingerprint that changed."""
    if old.fingerprint is None or new.fingerprint is None:
        return []
    before, after = old.fingerprint, new.fingerprint
    names = ("structure", "config", "weights", "head_weights", "tokenizer", "chat_template")
    found = [n for n in names if getattr(before, n) != getattr(after, n)]
    return [name.replace("_", " ") for name in found]


def _adapter(name: str, old: LockedAdapter | None, new: LockedAdapter | None) -> Iterator[str]:
    title = f"Adapter {name!r}"
    if new is None:
        assert old is not None
        yield f"{title} was removed (it was {_source(old)})"
        return
    if old is None:
        yield f"{title} was added: {_described(new)}, from {_source(new)}{_digest(new)}"
        return
    before, after = _version(old), _version(new)
    if before is not None and after is not None and before != after:
        yield f"{title} moved from {before} to {after}"
    elif old.source != new.source:
        yield f"{title} comes from {_source(new)} instead of {_source(old)}"
    if old.digest != new.digest:
        yield f"{title} has other content: {_short(old.digest)} is now {_short(new.digest)}"
    if _described(old) != _described(new):
        yield f"{title} was {_described(old)} and is {_described(new)}"
    if old.targets != new.targets:
        gone = [target for target in old.targets if target not in new.targets]
        come = [target for target in new.targets if target not in old.targets]
        if gone:
            yield f"{title} no longer targets {_listed(gone)}"
        if come:
            yield f"{title} also targets {_listed(come)}"
    if old.mutable != new.mutable:
        yield f"{title} is {'no longer pinned (mutable)' if new.mutable else 'pinned now'}"
    if old.fetched_from != new.fetched_from:
        yield f"{title} is fetched from {new.fetched_from or 'its own source'}"
    if old.seed != new.seed:
        yield f"{title} starts from seed {new.seed} instead of {old.seed}"


def _compositions(old: Lock | None, new: Lock) -> Iterator[str]:
    before = {} if old is None else old.compositions
    for name in sorted({*before, *new.compositions}):
        if name not in before:
            yield f"Composition {name!r} was added ({new.compositions[name].combine})"
        elif name not in new.compositions:
            yield f"Composition {name!r} was removed"
        elif before[name].combine != new.compositions[name].combine:
            kinds = (before[name].combine, new.compositions[name].combine)
            yield f"Composition {name!r} combines by {kinds[1]} instead of {kinds[0]}"
        elif before[name] != new.compositions[name]:
            yield f"Composition {name!r} has other members, weights or contents"


def _described(entry: LockedAdapter) -> str:
    return f"{entry.method} rank {entry.rank}" if entry.rank else entry.method


def _source(entry: LockedAdapter) -> str:
    return "a config in the manifest" if entry.source == NEW_ADAPTER else entry.source


def _version(entry: LockedAdapter) -> str | None:
    """Of a registry; on the Hub, the start of the commit."""
    if entry.registry is not None:
        return entry.registry.version
    return None if entry.revision is None else entry.revision[:SHOWN_DIGITS]


def _digest(entry: LockedAdapter) -> str:
    return f" ({_short(entry.digest)})" if entry.digest else ""


def _short(digest: str | None) -> str:
    kind, _, figures = (digest or "").rpartition(":")
    return f"{kind}:{figures[:SHOWN_DIGITS]}" if digest else "nothing"


def _listed(names: list[str]) -> str:
    return ", ".join(names)
