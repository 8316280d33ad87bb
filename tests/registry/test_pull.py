"""Pulling what a lock pins: verified, all or nothing, from wherever it lies."""

from __future__ import annotations

import json
import os
from pathlib import Path

import adapterdock
import fsspec
import pytest
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    IntegrityError,
    LockError,
    OfflineError,
    SourceError,
)
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.language.source import Source
from adapterdock.manifests.lockfile import write_lock
from adapterdock.manifests.manifest import read_manifest
from adapterdock.registry.access.session import Session, session_for
from adapterdock.registry.files import digests
from adapterdock.registry.lock import make_lock
from adapterdock.registry.pull import Pulled, pull_file
from adapterdock.registry.sources.in_memory import InMemoryFolder
from adapterdock.registry.store import verified
from adapterdock.registry.store.store import Store
from support.cache import files, run
from support.hub_server import HubServer
from support.project import Project, codes, files_of, put_folder, stored, swap_bytes
from support.s3_server import S3Server
from support.web import WebServer

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def on_s3(project: Project, s3: S3Server) -> Project:
    """A local base, and two adapters in a bucket that keeps no versions."""
    project.base()
    bucket = s3.bucket()
    tone = put_folder(s3, bucket, "tone", project.adapter("tone"))
    legal = put_folder(s3, bucket, "legal", project.adapter("legal", seed=2))
    project.write({"tone": tone, "legal": legal})
    return project


def bucket_of(project: Project) -> str:
    return project.manifest.read_text().partition("s3://")[2].partition("/")[0]


def cold(monkeypatch: pytest.MonkeyPatch, place: Path) -> Path:
    """An empty cache from here on."""
    monkeypatch.setenv("ADAPTERDOCK_CACHE", str(place))
    monkeypatch.setenv("HF_HOME", str(place / "hf"))
    return place


def test_what_is_pulled_is_what_was_locked(on_s3: Project, tmp_path: Path) -> None:
    lock = adapterdock.lock(on_s3.manifest)
    pulled = adapterdock.pull(on_s3.manifest, frozen=True, store=Store(tmp_path / "fresh"))
    for name in ("tone", "legal"):
        for path, fetched in pulled.adapters[name].items():
            assert fetched.path.read_bytes() == (on_s3.folder / name / path).read_bytes()
            assert fetched.fact.sha256 == lock.adapters[name].files[path].sha256
            assert str(fetched.path).startswith(str(tmp_path / "fresh"))
    base = on_s3.folder / "base"
    assert {f.path for f in pulled.base.values()} == {
        base / "config.json",
        base / "model.safetensors",
    }
    assert pulled.notes == ()


def test_without_a_lock_it_resolves_as_lock_would_and_says_so(on_s3: Project) -> None:
    pulled = adapterdock.pull(on_s3.manifest)
    assert codes(pulled.notes) == ["AD512"]
    assert not on_s3.lock_file.exists()
    assert adapterdock.lock(on_s3.manifest) == pulled.lock
    assert adapterdock.pull(on_s3.manifest).notes == ()


def test_a_stale_lock_is_refused_and_a_missing_one_when_frozen(on_s3: Project) -> None:
    with pytest.raises(LockError) as caught:
        adapterdock.pull(on_s3.manifest, frozen=True)
    assert caught.value.code == "AD504"
    adapterdock.lock(on_s3.manifest)
    on_s3.change("/tone", "/legal")
    for frozen in (False, True):
        with pytest.raises(LockError) as caught:
            adapterdock.pull(on_s3.manifest, frozen=frozen)
        assert caught.value.code == "AD505"


def test_an_object_overwritten_under_its_lock_stops_everything(
    on_s3: Project, s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    adapterdock.lock(on_s3.manifest)
    on_s3.adapter("tone", seed=77)
    s3.put(bucket_of(on_s3), f"tone/{WEIGHTS}", (on_s3.folder / "tone" / WEIGHTS).read_bytes())
    cache = cold(monkeypatch, tmp_path / "cold")
    with pytest.raises(AdapterdockError) as caught:
        adapterdock.pull(on_s3.manifest)
    assert caught.value.findings[0].where.dotted == "adapters.tone.source"
    assert "lock" in str(caught.value.findings[0].hint)
    assert stored() == set() and files(cache) == set()
    assert adapterdock.validate(on_s3.manifest).exit_status == 1


def test_an_old_version_still_loads_after_it_was_overwritten(
    project: Project, s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bucket = s3.bucket(versioned=True)
    project.base()
    source = put_folder(s3, bucket, "tone", project.adapter("tone"))
    lock = adapterdock.lock(project.write({"tone": source}))
    first = files_of(project.folder / "tone")
    put_folder(s3, bucket, "tone", project.adapter("tone", seed=77, lora_alpha=16))
    cold(monkeypatch, tmp_path / "cold")
    pulled = adapterdock.pull(project.manifest, frozen=True)
    assert {p: f.path.read_bytes() for p, f in pulled.adapters["tone"].items()} == first
    assert adapterdock.lock(project.manifest) == lock
    moved = adapterdock.lock(project.manifest, upgrade=["tone"])
    assert moved.adapters["tone"].digest != lock.adapters["tone"].digest


def test_a_base_overwritten_before_its_first_pull_is_refused(
    project: Project, s3: S3Server
) -> None:
    bucket = s3.bucket()
    manifest = project.write(model=put_folder(s3, bucket, "base", project.base()))
    lock, _ = make_lock(read_manifest(manifest), None, Session(), hash_up_to=1000)
    write_lock(lock, project.lock_file)
    swap_bytes(project.folder / "base" / "model.safetensors")
    put_folder(s3, bucket, "base", project.folder / "base")
    before = stored()
    with pytest.raises(AdapterdockError):
        adapterdock.pull(manifest)
    assert stored() == before and project.lock == lock


def test_a_config_that_changed_at_the_hub_is_of_no_concern_to_its_lock(
    project: Project, hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project.base()
    hub.commit("acme/tone", files_of(project.adapter("tone")))
    adapterdock.lock(project.write({"tone": "hf://acme/tone"}))
    hub.commit("acme/tone", files_of(project.adapter("tone", lora_alpha=99)))
    cold(monkeypatch, tmp_path / "cold")
    config = adapterdock.pull(project.manifest).adapters["tone"]["adapter_config.json"]
    assert json.loads(config.path.read_bytes())["lora_alpha"] == 8


def test_a_hub_that_serves_other_bytes_for_the_commit_is_refused(
    project: Project, hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project.base()
    commit = hub.commit("acme/tone", files_of(project.adapter("tone")))
    adapterdock.lock(project.write({"tone": "hf://acme/tone"}))
    content = dict(hub.repos["acme/tone"].commits[commit])
    content["adapter_config.json"] = content["adapter_config.json"].replace(
        b'"lora_alpha": 8', b'"lora_alpha": 9'
    )
    hub.repos["acme/tone"].commits[commit] = content
    cold(monkeypatch, tmp_path / "cold")
    with pytest.raises(AdapterdockError) as caught:
        adapterdock.pull(project.manifest)
    assert isinstance(caught.value, IntegrityError | SourceError)
    assert adapterdock.validate(project.manifest).exit_status == 1


@pytest.mark.parametrize("frozen", [True, False])
def test_wrong_bytes_in_the_hubs_cache_block_neither_pull_nor_lock_nor_validate(
    project: Project, hub: HubServer, frozen: bool
) -> None:
    from huggingface_hub import constants

    base = hub.commit("acme/base", files_of(project.base()))
    hub.commit("acme/tone", files_of(project.adapter("tone")))
    manifest = project.write({"tone": "hf://acme/tone"}, model=f"hf://acme/base@{base}")
    adapterdock.lock(manifest)
    first = adapterdock.pull(manifest)
    lock = project.lock
    for blob in Path(constants.HF_HUB_CACHE).glob("models--*/blobs/*"):
        content = blob.read_bytes()
        blob.write_bytes(bytes(reversed(content)))
    if not frozen:
        assert adapterdock.validate(manifest).exit_status == 0
        adapterdock.lock(manifest)
        assert project.lock == lock
    again = adapterdock.pull(manifest, frozen=frozen)
    for name, file in first.adapters["tone"].items():
        assert again.adapters["tone"][name].fact == file.fact
        assert digests.sha256_file(again.adapters["tone"][name].path) == file.fact.sha256


@pytest.mark.parametrize("mode", ["truncate", "drop"])
def test_a_body_that_never_comes_whole_leaves_nothing_and_a_later_pull_works(
    mode: str,
    project: Project,
    hub: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    project.base()
    hub.commit("acme/tone", files_of(project.adapter("tone", r=64)))
    adapterdock.lock(project.write({"tone": "hf://acme/tone"}))
    cold(monkeypatch, tmp_path / "cold")
    hub.fail(mode, path=WEIGHTS)
    with pytest.raises(AdapterdockError):
        adapterdock.pull(project.manifest)
    assert stored() == set()
    hub.heal()
    assert adapterdock.pull(project.manifest, frozen=True).adapters["tone"]


def test_one_wrong_adapter_fails_the_pull_of_all(
    project: Project, web: WebServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project.base()
    for name, seed in (("tone", 0), ("legal", 2)):
        for path, content in files_of(project.adapter(name, seed=seed)).items():
            web.files[f"/{name}/{path}"] = content
    web.etags = False  # so that only the digest can tell
    sources = {name: f"{web.url}/{name}" for name in ("tone", "legal")}
    adapterdock.lock(project.write(sources))
    swapped = bytearray(web.files[f"/legal/{WEIGHTS}"])
    swapped[-1] ^= 1
    web.files[f"/legal/{WEIGHTS}"] = bytes(swapped)
    cache = cold(monkeypatch, tmp_path / "cold")
    with pytest.raises(IntegrityError) as caught:
        adapterdock.pull(project.manifest)
    assert codes(caught.value.findings) == ["AD610"]
    assert caught.value.findings[0].where.dotted == "adapters.legal.source"
    digest = digests.sha256_bytes(swapped)
    assert digest not in stored()
    assert not list((cache / "tmp").iterdir())


def test_warm_everything_is_read_without_the_network(
    on_s3: Project, hub: HubServer, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = put_folder(s3, bucket_of(on_s3), "base", on_s3.folder / "base")
    hub.commit("acme/third", files_of(on_s3.adapter("third", seed=4)))
    on_s3.write({"tone": f"s3://{bucket_of(on_s3)}/tone", "third": "hf://acme/third"}, model=base)
    lock = adapterdock.lock(on_s3.manifest)
    adapterdock.pull(on_s3.manifest)
    hub.requests.clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody there
    for offline in (True, False):
        assert adapterdock.pull(on_s3.manifest, offline=offline, frozen=True).lock == lock
        report = adapterdock.validate(on_s3.manifest, offline=offline)
        assert (report.exit_status, report.findings) == (0, ())
    assert hub.requests == []


def test_offline_with_a_cold_cache_fails_clearly(
    on_s3: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    adapterdock.lock(on_s3.manifest)
    cold(monkeypatch, tmp_path / "cold")
    with pytest.raises(OfflineError) as caught:
        adapterdock.pull(on_s3.manifest, offline=True)
    assert {f.where.dotted for f in caught.value.findings} == {
        "adapters.tone.source",
        "adapters.legal.source",
    }


def test_a_damaged_object_in_the_store_is_fetched_again(on_s3: Project) -> None:
    adapterdock.lock(on_s3.manifest)
    pulled = adapterdock.pull(on_s3.manifest)
    place = pulled.adapters["tone"][WEIGHTS].path
    good = place.read_bytes()
    place.chmod(0o644)
    swap_bytes(place)
    again = adapterdock.pull(on_s3.manifest, frozen=True)
    assert again.adapters["tone"][WEIGHTS].path.read_bytes() == good


def test_what_fsspec_keeps_in_memory_is_locked_and_pulled_too(project: Project) -> None:
    project.base()
    fs = fsspec.filesystem("memory")
    for path, content in files_of(project.adapter("tone")).items():
        fs.pipe_file(f"/pull/tone/{path}", content)
    adapterdock.lock(project.write({"tone": "memory://pull/tone"}))
    pulled = adapterdock.pull(project.manifest, frozen=True)
    fs.rm("/pull", recursive=True)
    assert adapterdock.pull(project.manifest, frozen=True).adapters == pulled.adapters


def test_two_manifests_share_the_store(on_s3: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    adapterdock.lock(on_s3.manifest)
    one = adapterdock.pull(on_s3.manifest)
    other = on_s3.folder / "other.yaml"
    other.write_text(on_s3.manifest.read_text().replace("legal:", "law:"))
    before = stored()
    two = adapterdock.pull(other)
    assert two.adapters["law"][WEIGHTS].path == one.adapters["legal"][WEIGHTS].path
    assert stored() == before


def test_two_processes_that_pull_at_once_both_succeed(
    on_s3: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    adapterdock.lock(on_s3.manifest)
    cold(monkeypatch, tmp_path / "cold")
    code = """
        import sys, adapterdock
        pulled = adapterdock.pull(sys.argv[1], frozen=True)
        print(sorted(str(f.path) for a in pulled.adapters.values() for f in a.values()))
    """
    processes = [run(code, on_s3.manifest) for _ in range(3)]
    answers = [process.communicate(timeout=120) for process in processes]
    assert [p.returncode for p in processes] == [0, 0, 0], answers
    assert len({out for out, _ in answers}) == 1
    assert len(stored()) == 3  # two weights and one config
    assert not list((tmp_path / "cold" / "tmp").iterdir())


def test_nothing_is_hashed_twice_while_it_is_unchanged(
    on_s3: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (on_s3.folder / "base").iterdir():
        os.utime(path, (1_600_000_000, 1_600_000_000))
    adapterdock.lock(on_s3.manifest)
    adapterdock.pull(on_s3.manifest)
    hashed: list[int] = []
    original = digests.sha256_stream

    def counting(stream: object, *rest: object) -> str:
        hashed.append(1)
        return original(stream, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(verified, "sha256_stream", counting)
    monkeypatch.setattr(verified, "GRANULARITY_NS", 0)
    adapterdock.pull(on_s3.manifest)  # the base changed just now, and may be hashed once more
    hashed.clear()
    adapterdock.pull(on_s3.manifest)
    assert hashed == []
    swap_bytes(on_s3.folder / "base" / "model.safetensors")
    with pytest.raises(IntegrityError) as caught:
        adapterdock.pull(on_s3.manifest)
    assert hashed and codes(caught.value.findings) == ["AD614"]


def pulled_with(manifest: Path, tone: InMemoryFolder) -> Pulled:
    """What is pulled where ``tone`` is handed over in memory."""
    file = read_manifest(manifest)
    return pull_file(file, session_for(file, in_memory={"tone": tone}))


def test_an_adapter_in_memory_must_be_the_locked_one(on_s3: Project) -> None:
    adapterdock.lock(on_s3.manifest)
    source = Source.parse("s3://bucket/tone")
    content = files_of(on_s3.folder / "tone")
    given = InMemoryFolder(source, content, Where())
    pulled = pulled_with(on_s3.manifest, given)
    assert pulled.adapters["tone"][WEIGHTS].path.read_bytes() == content[WEIGHTS]
    other = InMemoryFolder(source, files_of(on_s3.adapter("other", seed=5)), Where())
    with pytest.raises(IntegrityError):
        pulled_with(on_s3.manifest, other)
    on_s3.lock_file.unlink()
    assert pulled_with(on_s3.manifest, other).lock.adapters["tone"].digest


def test_a_model_named_for_one_run_replaces_the_locked_base_and_not_the_adapters(
    on_s3: Project, s3: S3Server
) -> None:
    lock = adapterdock.lock(on_s3.manifest)
    other = on_s3.base("other", seed=9)
    pulled = adapterdock.pull(on_s3.manifest, model=str(other))
    assert pulled.lock.adapters == lock.adapters
    assert {f.path.parent for f in pulled.base.values()} == {other}
    assert "AD515" in codes(pulled.notes)
    assert on_s3.lock == lock
    with pytest.raises(LockError):
        adapterdock.pull(on_s3.manifest, model=str(other), frozen=True)
    adapterdock.pull(on_s3.manifest, dtype="float16", frozen=True)  # pins nothing else
    on_s3.change("/legal", "/tone")
    with pytest.raises(LockError):
        adapterdock.pull(on_s3.manifest, model=str(other))


def test_a_model_named_for_one_run_must_fit(on_s3: Project) -> None:
    adapterdock.lock(on_s3.manifest)
    gpt2 = on_s3.base("gpt2", kind="gpt2")
    with pytest.raises(adapterdock.FitError):
        adapterdock.pull(on_s3.manifest, model=str(gpt2))


def test_a_manifest_without_a_base_or_adapters_pulls_nothing(project: Project) -> None:
    pulled = adapterdock.pull(project.write({}, model=None))
    assert (pulled.adapters, pulled.base) == ({}, {})
