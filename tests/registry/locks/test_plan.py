"""What locking again would change, from the manifest and its lock alone."""

from __future__ import annotations

from pathlib import Path

import adapterdock
import pytest
from adapterdock.manifests.lockfile import Lock, read_lock
from adapterdock.manifests.manifest import read_manifest
from adapterdock.registry.locks.plan import LockPlan, lock_plan

TEXT = """\
version: 1
base: {model: ./base}
adapters:
  a0: {source: ./adapters/a0}
  a1: {source: ./adapters/a1}
compositions:
  both: {of: {a0: 1, a1: {"*.up_proj": 0.5}}}
active: a0
"""


@pytest.fixture
def locked(at_desk: Path) -> Lock:
    (at_desk / "adapters.yaml").write_text(TEXT)
    return adapterdock.lock("adapters.yaml", accept=["AD364"])


def plan(text: str, lock: Lock | None) -> LockPlan:
    path = Path("adapters.yaml")
    path.write_text(text)
    return lock_plan(read_manifest(path), lock)


def said(found: LockPlan) -> list[str]:
    return [str(step) for step in found.steps]


def test_without_changes_the_plan_is_empty(locked: Lock) -> None:
    for text in (TEXT, TEXT.replace("active: a0", "active: a1  # comments do not count")):
        found = plan(text, locked)
        assert not found and found.kept == ("a0", "a1")


def test_without_a_lock_everything_is_added(locked: Lock) -> None:
    assert said(plan(TEXT, None)) == [
        "+ base  ./base",
        "+ adapter a0  ./adapters/a0",
        "+ adapter a1  ./adapters/a1",
        "+ composition both  sum of a0 + {'*.up_proj': 0.5} a1",
    ]


def test_what_is_added_changed_and_removed(locked: Lock) -> None:
    text = (
        TEXT.replace("./adapters/a0}", "./adapters/a1, mutable: true}")
        .replace("a1: {source: ./adapters/a1}", "b.v2: {source: ./b, trainable: true}")
        .replace('{a0: 1, a1: {"*.up_proj": 0.5}}', "{a0: 2}")
        .replace("model: ./base", "model: ./base, num_labels: 3")
    )
    found = plan(text, locked)
    assert said(found) == [
        "~ base  num_labels not set -> 3",
        "~ adapter a0  source ./adapters/a0 -> ./adapters/a1, mutable false -> true",
        "+ adapter b.v2  ./b, trainable",
        "- adapter a1  LORA r=4, ./adapters/a1",
        '~ composition both  of.a0 1.0 -> 2.0, of.a1 [["*.up_proj", 0.5]] -> not set',
    ]
    assert found.counts == {"add": 1, "change": 3, "remove": 1}
    assert found.kept == ()
    field = found.steps[0].as_dict()["fields"]
    assert field == [{"field": "num_labels", "before": None, "now": "3"}]


def test_a_base_that_comes_or_goes(locked: Lock) -> None:
    assert said(plan(TEXT.replace("{model: ./base}", "{}"), locked))[0] == "- base  ./base"


def test_the_plan_is_empty_exactly_when_the_lock_is_current(locked: Lock) -> None:
    changed = plan(
        TEXT.replace("a1: {source: ./adapters/a1}", "a1: {source: ./adapters/a0}"), locked
    )
    assert changed and changed.kept == ("a0",)
    adapterdock.lock("adapters.yaml", accept=["AD364"])
    assert not plan(Path("adapters.yaml").read_text(), read_lock(Path("adapters.lock")))
