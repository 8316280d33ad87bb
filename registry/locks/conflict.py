"""What both sides of a merge conflict in a lock agree on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from ...manifests.lockfile import Lock, LockedBase, without_samples
from .state import is_sound

_T = TypeVar("_T")


def agreed(ours: Lock, theirs: Lock) -> Lock:
    """The pins that two sides of a merge have alike, or that only one of them has.

    A pin that differs, or contradicts itself (git merges line by line), is left out, so that it is
    resolved again. Whether the manifest still declares the others is for ``kept`` to say. Codes
    that one side accepted stay accepted: a person answers for each. The result is for no manifest
    in particular; its ``inputs`` are those of ``ours``.
    """
    return ours.model_copy(
        update={
            "declared": None,
            "base": _agreed_base(ours, theirs),
            "adapters": {
                name: entry
                for name, entry in _alike(ours.adapters, theirs.adapters).items()
                if entry.mutable or is_sound(entry)
            },
            "compositions": _alike(ours.compositions, theirs.compositions),
            "accepted": tuple(sorted({*ours.accepted, *theirs.accepted})),
        }
    )


def _alike(ours: Mapping[str, _T], theirs: Mapping[str, _T]) -> dict[str, _T]:
    both = {**theirs, **ours}
    return {
        name: entry
        for name, entry in both.items()
        if name not in ours or name not in theirs or ours[name] == theirs[name]
    }


def _agreed_base(ours: Lock, theirs: Lock) -> LockedBase | None:
    if ours.base is None or theirs.base is None:
        return ours.base or theirs.base
    same = without_samples(ours).base == without_samples(theirs).base
    return ours.base if same else None
