"""What `lock --diff` tells of two locks."""

from __future__ import annotations

import adapterdock
from adapterdock.registry.locks.diff import diff
from support.project import Project


def test_a_retrained_adapter_is_one_line_with_both_digests(project: Project) -> None:
    project.base()
    project.adapter("tone")
    manifest = project.write({"tone": "./tone"})
    old = adapterdock.lock(manifest)
    project.adapter("tone", seed=9)
    new = adapterdock.lock(manifest, upgrade_all=True)
    before, after = old.adapters["tone"].digest, new.adapters["tone"].digest
    assert [str(c) for c in diff(old, new)] == [f"~ adapters.tone.digest: {before} -> {after}"]


def test_locks_of_the_same_content_do_not_differ(project: Project) -> None:
    project.base()
    project.adapter("tone")
    lock = adapterdock.lock(project.write({"tone": "./tone"}))
    assert diff(lock, lock.model_copy(update={"generator": "adapterdock 9"})) == []


def test_added_and_removed_entries_are_distinguished(project: Project) -> None:
    project.base()
    project.adapter("tone")
    project.adapter("legal", seed=2, r=8)
    old = adapterdock.lock(project.write({"tone": "./tone"}))
    new = adapterdock.lock(project.write({"legal": "./legal"}))
    lines = [str(c) for c in diff(old, new)]
    assert f"- adapters.tone.digest: {old.adapters['tone'].digest}" in lines
    assert "+ adapters.legal.rank: 8" in lines
    assert "+ adapters.legal.targets: q_proj, v_proj" in lines
    assert not any("inputs" in line or ".files." in line for line in lines)


def test_another_base_shows_its_digests_and_not_its_samples(project: Project) -> None:
    project.base()
    old = adapterdock.lock(project.write())
    project.base(seed=5)
    new = adapterdock.lock(project.write(), upgrade=["base"])
    paths = [c.path for c in diff(old, new)]
    assert "base.files.model.safetensors.sha256" in paths
    assert "base.fingerprint.weights.float32" in paths
    assert "base.samples" not in paths
    assert diff(None, new)[0].old is None
