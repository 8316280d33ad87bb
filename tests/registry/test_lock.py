"""Making locks: what is pinned, what is kept, what moves, what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
from pathlib import Path

import adapterdock
import pytest
from adapterdock.manifests.findings import catalogue
from adapterdock.manifests.findings.catalogue import all_codes
from adapterdock.manifests.findings.errors import (
    FingerprintError,
    FitError,
    IntegrityError,
    LockError,
    OfflineError,
    SourceError,
    UsageError,
)
from adapterdock.manifests.lockfile import render_lock
from adapterdock.manifests.manifest import read_manifest
from adapterdock.registry.access.session import Session
from adapterdock.registry.base.samples import Samples
from adapterdock.registry.files.digests import folder_digest
from adapterdock.registry.lock import make_lock
from adapterdock.registry.locks.diff import diff
from adapterdock.registry.locks.project import lock_of
from adapterdock.registry.locks.state import facts_of
from adapterdock.registry.pull import pull
from adapterdock.registry.store.store import Store
from adapterdock.registry.validate import check_lock
from support.hub_server import HubServer
from support.project import (
    Project,
    codes,
    edit_config,
    files_of,
    put_folder,
    stored,
    swap_bytes,
)
from support.s3_server import S3Server


def sha256(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def local(project: Project) -> Project:
    """A base, two adapters and a composition, all local."""
    project.base(tokenizer=True)
    project.adapter("tone")
    modules = {f"model.layers.{n}.mlp.up_proj": (16, 32) for n in range(2)}
    project.adapter("legal", seed=3, modules=modules, target_modules=["up_proj"])
    project.write(
        {"tone": "./tone", "legal": "./legal"},
        compositions={"both": {"of": {"tone": 1.0, "legal": 0.5}}},
    )
    return project


@pytest.fixture
def on_hub(project: Project, hub: HubServer) -> Project:
    """Base and adapter on the Hub, on a branch."""
    hub.commit(
        "org/base", {**files_of(project.base(tokenizer=True)), "README.md": b"read", "x.bin": b"no"}
    )
    hub.commit("acme/tone", files_of(project.adapter("tone")))
    project.write({"tone": "hf://acme/tone"}, model="hf://org/base@main")
    return project


# What is pinned.


def test_a_lock_pins_every_consumed_file_of_local_folders(local: Project) -> None:
    (local.folder / "tone" / "README.md").write_text("not consumed")
    lock = adapterdock.lock(local.manifest)
    assert lock == local.lock
    tone, base = lock.adapters["tone"], lock.base
    assert set(tone.files) == {"adapter_config.json", "adapter_model.safetensors"}
    for path, file in tone.files.items():
        place = local.folder / "tone" / path
        assert (file.sha256, file.size) == (sha256(place), place.stat().st_size)
    assert tone.digest == folder_digest(facts_of(tone.files).values())
    assert (tone.method, tone.rank, tone.targets) == ("LORA", 4, ("q_proj", "v_proj"))
    assert lock.adapters["legal"].targets == ("up_proj",)
    assert base is not None and base.fingerprint is not None and base.samples is not None
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert set(base.files) == names
    assert all(f.sha256 == sha256(local.folder / "base" / p) for p, f in base.files.items())
    assert base.fingerprint.architecture == "LlamaForCausalLM"
    assert base.fingerprint.weights is not None and base.fingerprint.tokenizer is not None
    assert Samples.parse(base.samples).all
    assert lock.compositions["both"].digest is not None
    assert lock.generator == f"adapterdock {adapterdock.__version__}"


def test_the_hub_is_pinned_by_its_commit_and_the_base_is_not_downloaded(
    on_hub: Project, hub: HubServer
) -> None:
    lock = adapterdock.lock(on_hub.manifest)
    tone, base = lock.adapters["tone"], lock.base
    assert base is not None
    commits = {name: repo.refs["main"] for name, repo in hub.repos.items()}
    assert tone.declared == "hf://acme/tone"
    assert (tone.source, tone.revision) == (
        f"hf://acme/tone@{commits['acme/tone']}",
        commits["acme/tone"],
    )
    assert (base.source, base.revision) == (
        f"hf://org/base@{commits['org/base']}",
        commits["org/base"],
    )
    assert all(file.sha256 for file in (*tone.files.values(), *base.files.values()))
    assert base.files["model.safetensors"].sha256 == sha256(
        on_hub.folder / "base" / "model.safetensors"
    )
    ranges = [
        r for r in hub.requests if r.path.endswith("/model.safetensors") and r.method == "GET"
    ]
    assert ranges and all("Range" in r.headers for r in ranges)
    assert "README.md" not in base.files and "x.bin" not in base.files


@pytest.mark.parametrize("versioned", [True, False])
def test_s3_is_pinned_by_version_where_versions_are_kept_else_by_etag(
    versioned: bool, project: Project, s3: S3Server
) -> None:
    bucket = s3.bucket(versioned=versioned)
    source = put_folder(s3, bucket, "tone", project.adapter("tone"))
    project.base()
    file = adapterdock.lock(project.write({"tone": source})).adapters["tone"].files
    kind = "versionid:" if versioned else "etag:"
    assert all(str(f.version).startswith(kind) and f.sha256 for f in file.values())


def test_a_large_base_on_s3_is_pinned_by_version_until_its_first_pull(
    project: Project, s3: S3Server
) -> None:
    source = put_folder(s3, s3.bucket(), "base", project.base(tokenizer=True))
    project.adapter("tone")
    manifest = project.write({"tone": "./tone"}, model=source)
    file, store = read_manifest(manifest), Store.default()
    lock, _ = make_lock(file, None, Session(store=store), hash_up_to=10_000)
    assert lock.base is not None
    weights = lock.base.files["model.safetensors"]
    assert weights.sha256 is None and str(weights.version).startswith("etag:")
    assert lock.base.files["config.json"].sha256 and lock.base.files["tokenizer.json"].sha256
    assert weights.size == (project.folder / "base" / "model.safetensors").stat().st_size
    assert lock.base.fingerprint is not None and lock.base.fingerprint.weights is not None
    digest = sha256(project.folder / "base" / "model.safetensors")
    assert digest not in stored()
    project.lock_file.write_text(render_lock(lock))
    with pytest.raises(LockError) as caught:
        adapterdock.pull(manifest, frozen=True)
    assert caught.value.code == "AD506"
    assert codes(check_lock(manifest).errors) == ["AD506"]
    assert adapterdock.validate(manifest, frozen=True).exit_status == 1
    assert adapterdock.validate(manifest).exit_status == 0
    adapterdock.pull(manifest, with_base=False)
    assert project.lock == lock
    pulled = adapterdock.pull(manifest)
    assert project.lock == pulled.lock != lock
    assert project.lock.base is not None
    assert project.lock.base.files["model.safetensors"].sha256 == digest
    assert adapterdock.pull(manifest, frozen=True).lock == pulled.lock
    assert check_lock(manifest).exit_status == 0
    assert adapterdock.lock(manifest) == pulled.lock  # the pin is kept, with its sha256


def test_a_lock_written_by_another_process_during_a_pull_is_not_overwritten(
    project: Project, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put_folder(s3, s3.bucket(), "base", project.base())
    manifest = project.write(model=source)
    lock, _ = make_lock(read_manifest(manifest), None, Session(), hash_up_to=1000)
    project.lock_file.write_text(render_lock(lock))
    other = render_lock(lock.model_copy(update={"generator": "another"}))

    class Meanwhile:
        def start(self, label: str, size: int | None) -> None:
            project.lock_file.write_text(other)

        def advance(self, label: str, count: int) -> None: ...

        def done(self, label: str) -> None: ...

    adapterdock.pull(manifest, progress=Meanwhile())
    assert project.lock_file.read_text() == other


def test_the_same_manifest_gives_the_same_lock_on_another_machine(
    local: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapterdock.lock(local.manifest)
    text = local.lock_file.read_text()
    assert str(tmp_path) not in text and "/tmp" not in text
    assert not re.search(r"20\d\d-\d\d|\d{10}\.", text)
    elsewhere = tmp_path / "deep" / "elsewhere"
    shutil.copytree(local.folder, elsewhere)
    (elsewhere / "adapters.lock").unlink()
    monkeypatch.setenv("ADAPTERDOCK_CACHE", str(tmp_path / "another-cache"))
    monkeypatch.chdir(elsewhere)
    adapterdock.lock("adapters.yaml")
    assert (elsewhere / "adapters.lock").read_text() == text


def test_a_lock_from_the_hub_is_the_same_with_a_cold_and_a_warm_cache(
    on_hub: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    adapterdock.lock(on_hub.manifest)
    cold = on_hub.lock_file.read_bytes()
    adapterdock.pull(on_hub.manifest)
    on_hub.lock_file.unlink()
    adapterdock.lock(on_hub.manifest)
    assert on_hub.lock_file.read_bytes() == cold


def test_an_overlay_in_another_folder_keeps_its_sources_relative(local: Project) -> None:
    (local.folder / "sub").mkdir()
    overlay = local.folder / "sub" / "prod.yaml"
    overlay.write_text("extends: ../adapters.yaml\nactive: tone\n")
    lock = adapterdock.lock(overlay)
    assert lock.adapters["tone"].declared.startswith("../")
    assert str(local.folder) not in (local.folder / "sub" / "prod.lock").read_text()
    assert adapterdock.pull(overlay, frozen=True).lock == lock


def test_overrides_are_recorded(local: Project) -> None:
    local.base("other", seed=7)
    lock = adapterdock.lock(local.manifest, model=str(local.folder / "other"), dtype="float32")
    assert lock.overrides == {"model": str(local.folder / "other"), "dtype": "float32"}
    assert lock.base is not None and lock.base.declared == str(local.folder / "other")
    with pytest.raises(LockError) as caught:
        adapterdock.pull(local.manifest)  # it was for that base
    assert caught.value.code == "AD505" and "base.model was" in str(caught.value)
    adapterdock.pull(local.manifest, model=str(local.folder / "other"), frozen=True)


def test_a_manifest_in_memory_is_locked_in_memory(
    local: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(local.folder)
    base = {"model": "./base", "aliases": ["org/base"]}
    data = {"version": 1, "base": base, "adapters": {"tone": {"source": "./tone"}}}
    assert set(adapterdock.lock(data).adapters) == {"tone"}
    assert not local.lock_file.exists()


# What is kept, and what moves.


def test_pins_are_kept_while_a_branch_moves_and_upgrade_moves_one(
    on_hub: Project, hub: HubServer
) -> None:
    hub.commit("acme/legal", files_of(on_hub.adapter("legal", seed=2)))
    on_hub.write({"tone": "hf://acme/tone", "legal": "hf://acme/legal"}, model="hf://org/base")
    first = adapterdock.lock(on_hub.manifest)
    hub.commit("acme/tone", files_of(on_hub.adapter("tone", seed=8)))
    hub.commit("acme/legal", files_of(on_hub.adapter("legal", seed=9)))
    hub.commit("org/base", {**files_of(on_hub.folder / "base"), "generation_config.json": b"{}"})
    assert adapterdock.lock(on_hub.manifest) == first
    dry, _ = make_lock(
        read_manifest(on_hub.manifest),
        first,
        Session(),
        upgrade_all=True,
    )
    assert on_hub.lock == first
    moved = {c.path.split(".")[1] for c in diff(first, dry) if c.path.endswith("revision")}
    assert moved == {"tone", "legal", "revision"}
    second = adapterdock.lock(on_hub.manifest, upgrade=["tone"])
    assert second.adapters["tone"].revision == hub.repos["acme/tone"].refs["main"]
    assert second.adapters["tone"].digest != first.adapters["tone"].digest
    assert (second.adapters["legal"], second.base) == (first.adapters["legal"], first.base)
    third = adapterdock.lock(on_hub.manifest, upgrade=["base"])
    assert third.base is not None and "generation_config.json" in third.base.files
    assert third.adapters == second.adapters
    last = adapterdock.lock(on_hub.manifest, upgrade_all=True)
    assert last.adapters["legal"].digest == dry.adapters["legal"].digest
    assert last == dry


def test_a_new_adapter_does_not_move_the_others(on_hub: Project, hub: HubServer) -> None:
    first = adapterdock.lock(on_hub.manifest)
    hub.commit("acme/tone", files_of(on_hub.adapter("tone", seed=8)))
    on_hub.adapter("new", seed=5)
    on_hub.write({"tone": "hf://acme/tone", "new": "./new"}, model="hf://org/base@main")
    second = adapterdock.lock(on_hub.manifest)
    assert second.adapters["tone"] == first.adapters["tone"]
    assert "new" in second.adapters


def test_a_lock_that_is_current_is_not_written_again(local: Project) -> None:
    adapterdock.lock(local.manifest)
    before = local.lock_file.stat().st_mtime_ns, local.lock_file.stat().st_ino
    adapterdock.lock(local.manifest)
    assert (local.lock_file.stat().st_mtime_ns, local.lock_file.stat().st_ino) == before


def test_upgrade_of_an_unknown_name_is_wrong_usage(local: Project) -> None:
    with pytest.raises(UsageError) as caught:
        adapterdock.lock(local.manifest, upgrade=["tnoe", "base"])
    assert codes(caught.value.findings) == ["AD510"]
    assert caught.value.findings[0].hint == "Did you mean 'tone'?"
    assert not local.lock_file.exists()


@pytest.mark.parametrize("what", ["weights", "config", "base weights", "base config", "gone"])
def test_lock_does_not_move_the_pin_of_a_local_folder_by_itself(what: str, local: Project) -> None:
    first = adapterdock.lock(local.manifest)
    change_local(local, what)
    with pytest.raises((IntegrityError, SourceError)):
        adapterdock.lock(local.manifest)
    assert local.lock == first
    report = check_lock(local.manifest)
    assert report.exit_status == 1 and not report.ok
    with pytest.raises((IntegrityError, SourceError)):
        adapterdock.pull(local.manifest)
    if what != "gone":
        name = "base" if what.startswith("base") else "tone"
        second = adapterdock.lock(local.manifest, upgrade=[name])
        assert second != first
        assert check_lock(local.manifest).exit_status == 0


def change_local(project: Project, what: str) -> None:
    """A change that keeps every size and every header."""
    if what == "weights":
        swap_bytes(project.folder / "tone" / "adapter_model.safetensors")
    elif what == "config":
        edit_config(project.folder / "tone", lora_alpha=9)
    elif what == "base weights":
        swap_bytes(project.folder / "base" / "model.safetensors")
    elif what == "base config":
        path = project.folder / "base" / "config.json"
        path.write_text(path.read_text().replace("10000.0", "20000.0"))
    else:
        shutil.rmtree(project.folder / "tone")


def test_alpha_changed_under_the_lock_is_told_by_validate_too(local: Project) -> None:
    adapterdock.lock(local.manifest)
    edit_config(local.folder / "tone", lora_alpha=9)
    report = adapterdock.validate(local.manifest)
    assert codes(report.errors) == ["AD509"]
    assert report.errors[0].where.dotted == "adapters.tone.source"


# `lock --check`.


def test_check_passes_a_sound_lock_and_tells_a_missing_and_a_stale_one(local: Project) -> None:
    assert codes(check_lock(local.manifest).errors) == ["AD504"]
    adapterdock.lock(local.manifest)
    assert check_lock(local.manifest).exit_status == 0
    local.change("./legal", "./tone")
    assert codes(check_lock(local.manifest).errors) == ["AD505"]


def test_check_never_raises_for_what_a_lock_or_manifest_says(local: Project) -> None:
    local.lock_file.write_text("<<<<<<< HEAD\n")
    assert codes(check_lock(local.manifest).errors) == ["AD518"]
    local.lock_file.write_text("a: [\n")
    assert codes(check_lock(local.manifest).errors) == ["AD501"]
    local.manifest.write_text("version: 3\nbse: {}\n")
    assert check_lock(local.manifest).exit_status == 1
    assert check_lock(local.folder / "none.yaml").exit_status == 1


def test_check_notices_that_a_source_is_gone(
    on_hub: Project, hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    adapterdock.lock(on_hub.manifest)
    assert check_lock(on_hub.manifest).exit_status == 0
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cold"))
    del hub.repos["acme/tone"]
    report = check_lock(on_hub.manifest)
    assert report.exit_status == 1
    assert [f.where.dotted for f in report.errors] == ["adapters.tone.source"]


def test_check_looks_at_the_source_and_not_at_what_the_cache_still_has(
    project: Project, s3: S3Server
) -> None:
    bucket = s3.bucket()
    source = put_folder(s3, bucket, "tone", project.adapter("tone"))
    project.base()
    manifest = project.write({"tone": source})
    adapterdock.lock(manifest)
    s3.delete(bucket, "tone/adapter_model.safetensors")
    assert check_lock(manifest).exit_status == 1
    assert adapterdock.validate(manifest).exit_status == 0  # what would be loaded is here
    adapterdock.pull(manifest, frozen=True)


# What is refused, and leaves nothing behind.


def test_a_misfit_is_not_locked_and_none_of_its_weights_are_fetched(
    project: Project, s3: S3Server
) -> None:
    project.base()
    good = put_folder(s3, s3.bucket(), "good", project.adapter("good"))
    wide = {"model.layers.0.self_attn.q_proj": (32, 32)}
    bad = put_folder(s3, s3.bucket(), "bad", project.adapter("bad", modules=wide))
    with pytest.raises(FitError):
        adapterdock.lock(project.write({"good": good, "bad": bad}))
    assert not project.lock_file.exists()
    assert stored() == set()


def test_a_wrong_declared_digest_leaves_nothing_in_the_store(local: Project, s3: S3Server) -> None:
    bucket = s3.bucket()
    for name, content in files_of(local.folder / "tone").items():
        s3.put(bucket, f"tone/{name}", content)
    source = f"s3://{bucket}/tone"
    local.write({"tone": {"source": source, "sha256": "sha256:" + "0" * 64}})
    for act in (adapterdock.lock, pull):
        with pytest.raises(IntegrityError) as caught:
            act(local.manifest)
        assert codes(caught.value.findings) == ["AD511"]
        assert stored() == set()
    local.write({"tone": {"source": source, "sha256": caught.value.findings[0].found}})
    adapterdock.lock(local.manifest)
    assert len(stored()) == 2


def test_a_wrong_declared_digest_is_refused(local: Project) -> None:
    first = adapterdock.lock(local.manifest)
    digest = first.adapters["tone"].digest
    local.write({"tone": {"source": "./tone", "sha256": digest}})
    adapterdock.lock(local.manifest)
    local.write({"tone": {"source": "./tone", "sha256": "sha256:" + "0" * 64}})
    before = local.lock_file.read_text()
    with pytest.raises(IntegrityError) as caught:
        adapterdock.lock(local.manifest)
    assert codes(caught.value.findings) == ["AD511"]
    assert caught.value.findings[0].found == digest
    assert caught.value.findings[0].where.dotted == "adapters.tone.sha256"
    assert local.lock_file.read_text() == before


def test_a_mutable_adapter_is_named_and_not_pinned(local: Project) -> None:
    local.write({"tone": {"source": "./tone", "mutable": True}, "legal": "./legal"})
    lock = adapterdock.lock(local.manifest)
    tone = lock.adapters["tone"]
    assert tone.mutable and tone.digest is None and not tone.files and tone.rank == 4
    report = adapterdock.validate(local.manifest)
    assert "AD507" in codes(report.warnings) and report.ok
    swap_bytes(local.folder / "tone" / "adapter_model.safetensors")
    pulled = adapterdock.pull(local.manifest)
    assert "AD507" in codes(pulled.notes)
    assert check_lock(local.manifest).exit_status == 0
    with pytest.raises(LockError) as caught:
        adapterdock.pull(local.manifest, frozen=True)
    assert codes(caught.value.findings) == ["AD508"]


def test_only_unchecked_codes_can_be_accepted_and_they_stand_in_the_lock(
    project: Project,
) -> None:
    project.base(architectures=["NobodyKnowsForCausalLM"])
    project.adapter("tone")
    manifest = project.write({"tone": "./tone"})
    report = adapterdock.validate(manifest)
    assert report.exit_status == 3
    code = report.unchecked[0].code
    with pytest.raises(FitError) as caught:
        adapterdock.lock(manifest)
    assert code in codes(caught.value.findings)
    for wrong in ("AD505", "AD999", "nonsense"):
        with pytest.raises(UsageError) as usage:
            adapterdock.lock(manifest, accept=[wrong])
        assert codes(usage.value.findings) == ["AD513"]
    every = {f.code for f in report.unchecked}
    lock = adapterdock.lock(manifest, accept=[*every, "AD257"])
    assert set(lock.accepted) == every  # and none that there was no need of
    assert adapterdock.validate(manifest).exit_status == 0
    assert adapterdock.lock(manifest).accepted == lock.accepted
    assert adapterdock.lock(project.write({})).accepted == ()


def test_a_code_may_be_accepted_by_its_name(project: Project) -> None:
    project.base(architectures=["NobodyKnowsForCausalLM"])
    project.adapter("tone")
    manifest = project.write({"tone": "./tone"})
    names = [f.name.upper() for f in adapterdock.validate(manifest).unchecked]
    assert adapterdock.validate(manifest, accept=names).exit_status == 0
    assert adapterdock.validate(manifest, accept=["AD505"]).exit_status == 1
    assert adapterdock.lock(manifest, accept=names).accepted


def test_a_code_may_be_accepted_by_its_earlier_id_or_name(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.base(architectures=["NobodyKnowsForCausalLM"])
    project.adapter("tone")
    manifest = project.write({"tone": "./tone"})
    (code,) = (f.code for f in adapterdock.validate(manifest).unchecked)
    was = dataclasses.replace(all_codes()[code], was=("AD000", "name-of-before"))
    monkeypatch.setattr(catalogue, "all_codes", lambda: {**all_codes(), code: was})
    for text in ("AD000", "Name-of-before"):
        assert adapterdock.validate(manifest, accept=[text]).exit_status == 0
    assert adapterdock.lock(manifest, accept=["AD000"]).accepted == (code,)


def test_an_error_cannot_be_accepted_by_its_earlier_id_either(local: Project) -> None:
    with pytest.raises(UsageError) as caught:
        adapterdock.lock(local.manifest, accept=["AD710"])
    assert caught.value.findings[0].found == "a code of severity error"


def test_what_could_not_be_reached_cannot_be_locked_even_if_accepted(
    on_hub: Project, hub: HubServer
) -> None:
    hub.fail(503)
    with pytest.raises(OfflineError) as caught:
        adapterdock.lock(on_hub.manifest, accept=["AD257"])
    assert set(codes(caught.value.findings)) == {"AD257"}
    assert not on_hub.lock_file.exists()


def test_a_declared_fingerprint_of_another_base_is_refused(local: Project) -> None:
    lock = adapterdock.lock(local.manifest)
    assert lock.base is not None and lock.base.fingerprint is not None
    data = lock.base.fingerprint.model_dump(mode="json", exclude_none=True)
    local.write({"tone": "./tone"}, base={"fingerprint": data})
    adapterdock.lock(local.manifest)
    other = {**data, "weights": {"float32": "v1:sha256:" + "0" * 64}}
    local.write({"tone": "./tone"}, base={"fingerprint": other})
    with pytest.raises(FingerprintError) as caught:
        adapterdock.lock(local.manifest)
    assert caught.value.findings[0].where.dotted.startswith("base.fingerprint")


def test_an_unchecked_fingerprint_is_refused_unless_it_is_accepted(local: Project) -> None:
    shutil.rmtree(local.folder / "base")
    local.base()  # without a tokenizer
    declared = {"tokenizer": "v1:sha256:" + "0" * 64}
    local.write({"tone": "./tone"}, base={"fingerprint": declared})
    with pytest.raises(FingerprintError) as caught:
        adapterdock.lock(local.manifest)
    code = caught.value.code
    assert adapterdock.validate(local.manifest).exit_status == 3
    assert adapterdock.lock(local.manifest, accept=[code]).accepted == (code,)
    assert adapterdock.validate(local.manifest).exit_status == 0


# Offline.


def test_offline_lock_works_from_warm_caches_and_asks_nobody(
    on_hub: Project, hub: HubServer, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put_folder(s3, s3.bucket(), "legal", on_hub.adapter("legal", seed=2))
    on_hub.write({"tone": "hf://acme/tone", "legal": source}, model="hf://org/base@main")
    lock = adapterdock.lock(on_hub.manifest)
    adapterdock.pull(on_hub.manifest)
    hub.requests.clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert adapterdock.lock(on_hub.manifest, offline=True) == lock
    assert adapterdock.validate(on_hub.manifest, offline=True).exit_status == 0
    assert adapterdock.pull(on_hub.manifest, offline=True, frozen=True).lock == lock
    assert hub.requests == []


def test_offline_with_cold_caches_fails_clearly(
    on_hub: Project, hub: HubServer, s3: S3Server
) -> None:
    source = put_folder(s3, s3.bucket(), "legal", on_hub.adapter("legal", seed=2))
    on_hub.write({"tone": "hf://acme/tone", "legal": source}, model="hf://org/base@main")
    hub.requests.clear()
    report = adapterdock.validate(on_hub.manifest, offline=True)
    assert report.exit_status == 3
    assert {f.where.dotted for f in report.unchecked} >= {
        "adapters.tone.source",
        "adapters.legal.source",
        "base.model",
    }
    for act in (adapterdock.lock, pull):
        with pytest.raises(OfflineError):
            act(on_hub.manifest, offline=True)
    assert hub.requests == [] and not on_hub.lock_file.exists() and stored() == set()


def test_a_manifest_s_own_lock_is_not_another_s(local: Project) -> None:
    adapterdock.lock(local.manifest)
    other = local.folder / "other.yaml"
    other.write_text(local.manifest.read_text())
    assert lock_of(read_manifest(other)) is None
    assert adapterdock.lock(other) == local.lock
