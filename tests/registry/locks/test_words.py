"""What changed between two locks, in sentences."""

from __future__ import annotations

from collections.abc import Callable

import adapterdock
import pytest
from adapterdock.manifests.lockfile import Lock
from adapterdock.registry.locks.words import in_words
from support.project import Project


@pytest.fixture
def lock(project: Project) -> Callable[..., Lock]:
    """``lock(keys)``: the lock of the manifest with ``tone`` and what else is said."""
    project.base()
    project.adapter("tone")
    project.adapter("other", seed=3, r=8)

    def make(**keys: object) -> Lock:
        adapters = {"tone": "./tone", **(keys.pop("adapters", {}))}  # type: ignore[dict-item]
        project.write(adapters, **keys)  # type: ignore[arg-type]
        return adapterdock.lock(project.manifest, upgrade_all=True)

    return make


def test_the_same_lock_says_nothing(lock: Callable[..., Lock]) -> None:
    assert in_words(lock(), lock()) == []


def test_a_new_and_a_removed_lock_say_so(lock: Callable[..., Lock]) -> None:
    pinned = lock()
    first, base, adapter = in_words(None, pinned)
    assert (first, base) == ("The lock is new", "The base ./base was added")
    assert adapter.startswith("Adapter 'tone' was added: LORA rank 4, from ./tone (sha256:")
    assert in_words(pinned, None) == ["The lock was removed: nothing is pinned any more"]


def test_adapters_that_come_go_or_change_are_named(
    lock: Callable[..., Lock], project: Project
) -> None:
    before = lock()
    both = lock(adapters={"other": "./other"}, compositions={"mix": {"of": {"tone": 1.0}}})
    come = in_words(before, both)
    assert come[0].startswith("Adapter 'other' was added: LORA rank 8, from ./other (sha256:")
    assert come[1:] == ["Composition 'mix' was added (sum)"]
    assert in_words(both, before) == [
        "Adapter 'other' was removed (it was ./other)",
        "Composition 'mix' was removed",
    ]
    project.adapter("tone", seed=9, r=2)
    source, content, rank = in_words(before, lock(adapters={"tone": "../project/tone"}))
    assert source == "Adapter 'tone' comes from ../project/tone instead of ./tone"
    assert content.startswith("Adapter 'tone' has other content: sha256:")
    assert rank == "Adapter 'tone' was LORA rank 4 and is LORA rank 2"


def test_another_base_is_named_by_what_changed(lock: Callable[..., Lock], project: Project) -> None:
    before = lock()
    project.base(seed=7)
    assert in_words(before, lock()) == [
        "The base is another model: its weights, head weights changed"
    ]
    project.base("base2", rope_theta=5.0)
    found = in_words(before, lock(model="./base2"))
    assert found == [
        "The base changed from ./base to ./base2",
        "The base is another model: its config changed",
    ]


def test_every_change_that_a_lock_shows_is_said(lock: Callable[..., Lock]) -> None:
    before = lock()
    accepting = before.model_copy(update={"accepted": ("AD364",)})
    assert in_words(before, accepting) == ["AD364 is accepted now"]
    assert in_words(accepting, before) == ["AD364 is no longer accepted"]
    other = before.model_copy(update={"overrides": {"dtype": "float16"}})
    assert in_words(before, other) == ["overrides.dtype changed from nothing to float16"]
