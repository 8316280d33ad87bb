"""Whether a lock is for a manifest as it is now: what stales it, and what does not."""

from __future__ import annotations

from collections.abc import Callable

import adapterdock
import pytest
from adapterdock.manifests.findings.errors import LockError
from adapterdock.manifests.lockfile import Lock, LockedBase, render_lock
from adapterdock.manifests.manifest import ManifestFile, read_manifest
from adapterdock.registry.locks.inputs import (
    declared_inputs,
    inputs_digest,
    inputs_digests,
    options_digest,
)
from adapterdock.registry.locks.project import lock_of
from adapterdock.registry.locks.state import kept, require_lock, stale
from support.project import Project, codes

MANIFEST = """\
version: 1
name: desk
description: what a person reads   # and a comment
base:
  model: ./base
  dtype: float32
  aliases: [org/base]
adapters:
  tone: {source: ./tone, owner: me, description: one, tags: [a]}
  legal: {source: ./legal}
compositions:
  both: {combine: sum, of: {tone: 1.0, legal: 0.5}}
rules: {max_active: 2}
active: tone
"""


@pytest.fixture
def locked(project: Project) -> Project:
    project.base()
    project.adapter("tone")
    project.adapter("legal", seed=3)
    project.manifest.write_text(MANIFEST)
    adapterdock.lock(project.manifest)
    return project


def read(project: Project, **overrides: str) -> ManifestFile:
    return read_manifest(project.manifest, **overrides)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# and a comment", "# and another"),
        ("what a person reads", "something else"),
        ("owner: me, description: one, tags: [a]", "owner: you, licence: mit"),
        ("max_active: 2", "max_active: 3"),
        ("active: tone", "active: legal"),
        ("active: tone", "policy: {require_digest: true}"),
        ("active: tone", "mirrors: {'hf://': 's3://bucket/hf/'}"),
        ("dtype: float32", "dtype: bfloat16"),
        ("dtype: float32", "device_map: cpu"),
        ("./tone, owner", "./tone, dtype: bfloat16, trainable: true, owner"),
        ("legal: 0.5", "legal: 0.50"),
        ("name: desk", "x-note: {any: thing}"),
        ("dtype: float32", f"fingerprint: {{structure: 'v1:sha256:{'0' * 64}'}}"),
    ],
)
def test_a_change_that_resolution_ignores_does_not_stale_a_lock(
    old: str, new: str, locked: Project
) -> None:
    locked.change(old, new)
    file = read(locked)
    assert stale(file, locked.lock) == []
    require_lock(file, lock_of(file), frozen=True)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("./base", "./other", "base.model was ./base, is ./other"),
        ("{source: ./legal}", "{source: ./other}", "adapters.legal.source was ./legal, is ./other"),
        (
            "{source: ./legal}",
            "{config: {peft_type: LORA, r: 4, target_modules: [q_proj]}, trainable: true}",
            "adapters.legal.source was ./legal, is not set",
        ),
        (
            "  legal: {source: ./legal}",
            "  legal: {source: ./legal}\n  new: {source: ./new}",
            "adapter 'new' is new",
        ),
        (
            "{source: ./legal}",
            "{source: ./legal, mutable: true}",
            "adapters.legal.mutable was false, is true",
        ),
        (
            "{source: ./legal}",
            f"{{source: ./legal, sha256: 'sha256:{'0' * 64}'}}",
            f"adapters.legal.sha256 was not set, is sha256:{'0' * 64}",
        ),
        ("legal: 0.5", "legal: 0.6", "compositions.both.of.legal was 0.5, is 0.6"),
        ("combine: sum", "combine: linear", "compositions.both.combine was sum, is linear"),
        (
            "combine: sum",
            "combine: ties, density: 0.5",
            "compositions.both.combine was sum, is ties; "
            "compositions.both.density was not set, is 0.5",
        ),
        (
            "legal: 0.5",
            "legal: {'*.mlp.*': 0.5}",
            'compositions.both.of.legal was 0.5, is [["*.mlp.*", 0.5]]',
        ),
        (", legal: 0.5", "", "compositions.both.of.legal was 0.5, is not set"),
        ("  both:", "  each:", "composition 'both' is gone; composition 'each' is new"),
        (
            "dtype: float32",
            "trust_remote_code: true",
            "base.trust_remote_code was not set, is true",
        ),
        ("dtype: float32", "task: CAUSAL_LM", "base.task was not set, is CAUSAL_LM"),
        ("dtype: float32", "vocab_size: 128", "base.vocab_size was not set, is 128"),
        (
            "dtype: float32",
            "storage_options: {client: second}",
            "base.storage_options.client was not set, is second",
        ),
    ],
)
def test_a_change_of_a_resolution_input_stales_a_lock_and_is_named(
    old: str, new: str, said: str, locked: Project
) -> None:
    locked.change(old, new)
    found = stale(read(locked), locked.lock)
    assert codes(found) == ["AD505"]
    assert str(found[0].found) == said
    with pytest.raises(LockError) as caught:
        require_lock(read(locked), locked.lock, frozen=False)
    assert caught.value.findings == tuple(found)


def test_a_removed_adapter_stales_a_lock(locked: Project) -> None:
    text = MANIFEST.replace("  legal: {source: ./legal}\n", "").replace(", legal: 0.5", "")
    locked.manifest.write_text(text)
    assert "adapter 'legal' is gone" in str(stale(read(locked), locked.lock)[0].found)


def test_changed_storage_options_stale_a_lock_that_does_not_show_them(project: Project) -> None:
    project.base()
    project.adapter("tone")
    row = {"source": "memory://tone"}
    options = {"source": "memory://tone", "storage_options": {"client": "first"}}
    with_options = inputs_digest(read_manifest(project.write({"tone": options})))
    assert inputs_digest(read_manifest(project.write({"tone": row}))) != with_options


NEW = "{config: {peft_type: LORA, r: 4, target_modules: [q_proj]}, trainable: true}"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("r: 4", "r: 8", "adapters.fresh.config.r was 4, is 8"),
        ("trainable: true", "trainable: true, seed: 7", "adapters.fresh.seed was 0, is 7"),
        (
            "[q_proj]",
            "[q_proj, v_proj]",
            'adapters.fresh.config.target_modules was ["q_proj"], is ["q_proj", "v_proj"]',
        ),
    ],
)
def test_a_changed_config_of_a_new_adapter_is_named(
    old: str, new: str, said: str, project: Project
) -> None:
    project.base()
    project.manifest.write_text(f"version: 1\nbase: {{model: ./base}}\nadapters:\n  fresh: {NEW}\n")
    adapterdock.lock(project.manifest)
    project.change(old, new)
    assert stale(read(project), project.lock)[0].found == said


def test_a_stale_lock_of_an_earlier_release_says_what_it_knows(locked: Project) -> None:
    earlier = locked.lock.model_copy(update={"declared": None})
    locked.change("legal: 0.5", "legal: 0.6")
    assert "weights" in str(stale(read(locked), earlier)[0].found)
    locked.change("{source: ./legal}", "{source: ./other}")
    found = str(stale(read(locked), earlier)[0].found)
    assert found == "adapters.legal.source was ./legal, is ./other"


OPTIONS = """\
version: 1
base: {model: ./base}
registries: {team: "${TEAM_URL:-./registry}"}
adapters:
  tone:
    source: s3://bucket/tone
    storage_options: {account: "${ACCOUNT:-one}", proxy: "${PROXY_HOST:-}", which: "${WHICH:-a}"}
"""


@pytest.mark.parametrize(
    ("variable", "counts"),
    [("TEAM_URL", False), ("ACCOUNT", False), ("PROXY_HOST", False), ("WHICH", True)],
)
def test_a_variable_that_only_says_where_does_not_stale_a_lock(
    variable: str, counts: bool, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.manifest.write_text(OPTIONS)
    before = inputs_digest(read(project)), options_digest(read(project), "tone")
    shown = declared_inputs(read(project))
    monkeypatch.setenv(variable, "./elsewhere")
    now = inputs_digest(read(project)), options_digest(read(project), "tone")
    assert (now != before) is counts
    assert (declared_inputs(read(project)) != shown) is counts


def test_the_url_of_a_registry_does_not_count(project: Project) -> None:
    project.manifest.write_text(OPTIONS)
    before, shown = inputs_digest(read(project)), declared_inputs(read(project))
    project.change('"${TEAM_URL:-./registry}"', "./another")
    assert (inputs_digest(read(project)), declared_inputs(read(project))) == (before, shown)


def test_a_lock_of_an_earlier_release_where_places_counted_is_current(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.manifest.write_text(OPTIONS)
    file = read(project)
    (earlier,) = inputs_digests(file) - {inputs_digest(file)}
    base = LockedBase(declared="./base", source="./base", files={})
    lock = Lock(version=1, generator="earlier", inputs=earlier, base=base)
    assert stale(file, lock) == []
    monkeypatch.setenv("TEAM_URL", "./elsewhere")
    assert codes(stale(read(project), lock)) == ["AD505"]


def test_the_value_of_a_variable_is_locked(
    locked: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked.change("./legal}", "'./${WHICH:-legal}'}")
    assert stale(read(locked), locked.lock) == []
    monkeypatch.setenv("WHICH", "tone")
    assert codes(stale(read(locked), locked.lock)) == ["AD505"]


def test_a_changed_entry_gives_up_its_pin_and_the_others_keep_theirs(locked: Project) -> None:
    assert kept(read(locked), locked.lock) == {"tone", "legal", None}
    locked.change("./legal}", "./other}")
    assert kept(read(locked), locked.lock) == {"tone", None}
    locked.change("./base", "./other")
    assert kept(read(locked), locked.lock) == {"tone"}


def without_adapter(lock: Lock) -> Lock:
    rest = {name: entry for name, entry in lock.adapters.items() if name != "tone"}
    return lock.model_copy(update={"adapters": rest})


def without_base(lock: Lock) -> Lock:
    return lock.model_copy(update={"base": None})


def mutable(lock: Lock) -> Lock:
    entry = lock.adapters["tone"].model_copy(update={"mutable": True, "files": {}, "digest": None})
    return lock.model_copy(update={"adapters": {**lock.adapters, "tone": entry}})


def without_composition(lock: Lock) -> Lock:
    return lock.model_copy(update={"compositions": {}})


def other_recipe(lock: Lock) -> Lock:
    entry = lock.compositions["both"].model_copy(update={"digest": "sha256:" + "0" * 64})
    return lock.model_copy(update={"compositions": {"both": entry}})


@pytest.mark.parametrize(
    "edit", [without_adapter, without_base, mutable, without_composition, other_recipe]
)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_lock_that_lost_a_part_is_refused_frozen_or_not(
    edit: Callable[[Lock], Lock], frozen: bool, locked: Project
) -> None:
    locked.lock_file.write_text(render_lock(edit(locked.lock)))
    with pytest.raises(LockError) as caught:
        require_lock(read(locked), lock_of(read(locked)), frozen=frozen)
    assert set(codes(caught.value.findings)) == {"AD506"}
    with pytest.raises(LockError):
        adapterdock.pull(locked.manifest)


@pytest.mark.parametrize("what", ["sha256", "size", "path"])
def test_a_lock_whose_digests_contradict_one_another_is_refused(what: str, locked: Project) -> None:
    text = locked.lock_file.read_text()
    file = locked.lock.adapters["tone"].files["adapter_model.safetensors"]
    before = {"sha256": str(file.sha256), "size": f"size: {file.size}", "path": "model.safe"}[what]
    after = {
        "sha256": "sha256:" + "0" * 64,
        "size": f"size: {file.size + 1}",
        "path": "model.unsafe",
    }[what]
    locked.lock_file.write_text(text.replace(before, after))
    with pytest.raises(LockError) as caught:
        adapterdock.pull(locked.manifest)
    assert set(codes(caught.value.findings)) == {"AD501"}
    assert caught.value.findings[0].where.file == str(locked.lock_file)


def test_frozen_refuses_what_is_not_pinned_by_content(project: Project) -> None:
    project.base()
    project.adapter("tone")
    manifest = project.write({"tone": {"source": "./tone", "mutable": True}})
    with pytest.raises(LockError) as caught:
        require_lock(read(project), None, frozen=True)
    assert codes(caught.value.findings) == ["AD504"]
    require_lock(read(project), None, frozen=False)
    lock = adapterdock.lock(manifest)
    require_lock(read(project), lock, frozen=False)
    assert lock.base is not None
    path, file = next(iter(lock.base.files.items()))
    bare = file.model_copy(update={"sha256": None, "version": "etag:x"})
    base = lock.base.model_copy(update={"files": {**lock.base.files, path: bare}})
    with pytest.raises(LockError) as caught:
        require_lock(read(project), lock.model_copy(update={"base": base}), frozen=True)
    assert codes(caught.value.findings) == ["AD506", "AD508"]


def test_the_recipe_digest_covers_members_content_weights_and_method(locked: Project) -> None:
    before = locked.lock.compositions["both"].digest
    assert before is not None
    locked.change("legal: 0.5", "legal: 0.25")
    other_weight = adapterdock.lock(locked.manifest).compositions["both"].digest
    locked.change("legal: 0.25", "legal: 0.5")
    assert adapterdock.lock(locked.manifest).compositions["both"].digest == before
    locked.adapter("legal", seed=4)
    changed = adapterdock.lock(locked.manifest, upgrade=["legal"])
    assert len({before, other_weight, changed.compositions["both"].digest}) == 3


def test_the_recipe_digest_covers_weights_by_module_in_their_order(locked: Project) -> None:
    found = [locked.lock.compositions["both"].digest]
    before = "0.5"
    for weight in ("{'*.mlp.*': 0.5, '*': 1}", "{'*': 1, '*.mlp.*': 0.5}", "{'*': 0.5}"):
        locked.change(f"legal: {before}", f"legal: {weight}")
        before = weight
        found.append(adapterdock.lock(locked.manifest).compositions["both"].digest)
    assert None not in found and len(set(found)) == 4


def test_a_recipe_does_not_depend_on_what_its_members_are_called(locked: Project) -> None:
    before = locked.lock.compositions["both"].digest
    locked.manifest.write_text(MANIFEST.replace("legal", "law").replace("./law", "./legal"))
    assert adapterdock.lock(locked.manifest).compositions["both"].digest == before


def test_a_recipe_with_a_mutable_member_has_no_digest(locked: Project) -> None:
    locked.change("{source: ./legal}", "{source: ./legal, mutable: true}")
    assert adapterdock.lock(locked.manifest).compositions["both"].digest is None
