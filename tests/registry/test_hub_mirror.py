"""A mirror of the Hub has what a lock pins, where `mirrors` of a manifest looks for it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import adapterdock
import fsspec
import pytest
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    IntegrityError,
    LockError,
    UsageError,
)
from adapterdock.manifests.lockfile import read_lock, write_lock
from adapterdock.registry.hub_mirror import mirror_hub
from adapterdock.registry.lock import lock
from adapterdock.registry.pull import pull
from adapterdock.registry.storages import copy_target
from adapterdock.registry.store.store import Store
from adapterdock.registry.validate import check_lock
from support.builders import write_adapter, write_base
from support.hub_server import HubServer
from support.project import files_of
from support.s3_server import S3Server

TEXT = """\
version: 1
base: {model: hf://acme/base}
adapters:
  tone: {source: hf://acme/tone}
  inner: {source: hf://acme/many@v1/runs/7}
  mine: {source: ./mine}
"""


@pytest.fixture
def manifest(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A locked manifest in the current folder; the Hub has more than the lock pins."""
    made = tmp_path / "made"
    hub.commit("acme/base", {**files_of(write_base(made / "b", tokenizer=True)), "note.md": b"x"})
    hub.commit("acme/tone", {**files_of(write_adapter(made / "t")), "optimizer.pt": b"x"})
    inner = files_of(write_adapter(made / "i", seed=3))
    commit = hub.commit("acme/many", {f"runs/7/{name}": data for name, data in inner.items()})
    hub.tag("acme/many", "v1", commit)
    monkeypatch.chdir(tmp_path)
    write_adapter(tmp_path / "mine")
    path = tmp_path / "adapters.yaml"
    path.write_text(TEXT)
    lock(path)
    return path


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Calling it makes this another machine: empty caches, and no network at all."""

    def arrive() -> None:
        def refuse(*args: object) -> None:
            raise AssertionError("the network was used")

        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no-hub-cache"))
        monkeypatch.setenv("ADAPTERDOCK_CACHE", str(tmp_path / "no-cache"))
        monkeypatch.setattr(socket.socket, "connect", refuse)

    return arrive


def there(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*") if p.is_file()
    }


def use(manifest: Path, target: str) -> None:
    manifest.write_text(f'{TEXT}mirrors: {{"hf://": "{target}"}}\n')


def test_only_locked_files_are_in_the_layout_that_mirrors_read(manifest: Path) -> None:
    done = mirror_hub(manifest, "./m")
    tone, inner = (done.entries[n].folder for n in (1, 2))
    assert [entry.name for entry in done.entries] == [None, "tone", "inner"]
    assert tone.startswith("acme/tone/") and len(tone.rpartition("/")[2]) == 40
    assert inner.startswith("acme/many/") and inner.endswith("/runs/7")
    found = there(Path("m"))
    assert sorted(found) == sorted(done.copied)
    assert sum(map(len, found.values())) == done.size
    assert not any("note.md" in path or "optimizer" in path for path in found)
    assert found[f"{tone}/adapter_config.json"] == Path("made/t/adapter_config.json").read_bytes()


def test_a_machine_without_a_network_loads_through_the_mirror(
    manifest: Path, elsewhere: Callable[[], None]
) -> None:
    mirror_hub(manifest, "./m")
    use(manifest, "./m/")
    elsewhere()
    assert check_lock(manifest, offline=True).errors == ()
    pulled = pull(manifest, frozen=True, offline=True)
    assert set(pulled.adapters) == {"tone", "inner", "mine"}
    assert all(Path("m").resolve() in one.path.parents for one in pulled.base.values())
    model = adapterdock.load(manifest, frozen=True, offline=True)
    assert {"tone", "inner", "mine"} <= set(model.adapters)


def test_locking_through_the_mirror_changes_nothing(
    manifest: Path, elsewhere: Callable[[], None]
) -> None:
    mirror_hub(manifest, "./m")
    use(manifest, "./m/")
    elsewhere()
    lock = manifest.with_suffix(".lock")
    before = lock.read_bytes()
    adapterdock.lock(manifest)
    assert lock.read_bytes() == before


def test_a_changed_file_of_the_mirror_is_refused_by_its_digest_and_mended_by_the_next_run(
    manifest: Path, hub: HubServer
) -> None:
    done = mirror_hub(manifest, "./m")
    wrong = next(path for path in done.copied if path.endswith("adapter_model.safetensors"))
    content = Path("m", wrong).read_bytes()
    Path("m", wrong).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    use(manifest, "./m/")
    with pytest.raises(IntegrityError):
        pull(manifest, frozen=True, store=Store(Path("other").absolute()))
    again = mirror_hub(manifest, "./m")
    assert again.copied == (wrong,), "from the Hub, although the manifest names the mirror"
    assert Path("m", wrong).read_bytes() == content
    pull(manifest, frozen=True, store=Store(Path("other").absolute()))


def test_a_run_that_was_stopped_is_continued_and_a_complete_mirror_needs_no_request(
    manifest: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, left = copy_target.LocalTarget.put, [3]

    def fails(self: object, *args: object) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        put(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(copy_target.LocalTarget, "put", fails)
        patch.setattr("adapterdock.registry.hub_mirror.WORKERS", 1)
        mirror_hub(manifest, "./m")
    assert len(there(Path("m"))) == 3
    assert len(mirror_hub(manifest, "./m").copied) == 5
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_CACHE", str(manifest.parent / "empty"))
    assert mirror_hub(manifest, "./m", store=Store(manifest.parent / "other")).copied == ()
    assert hub.requests == []
    assert not list(Path("m").rglob(".*"))


def test_a_dry_run_says_what_is_lacking_and_writes_nothing(manifest: Path, hub: HubServer) -> None:
    hub.requests.clear()
    planned = mirror_hub(manifest, "./m", dry_run=True)
    assert len(planned.copied) == 8 and not Path("m").exists() and hub.requests == []
    done = mirror_hub(manifest, "./m")
    assert (done.copied, done.size) == (tuple(sorted(planned.copied)), planned.size)


def test_a_mirror_can_be_on_a_filesystem_of_fsspec(
    manifest: Path, elsewhere: Callable[[], None]
) -> None:
    done = mirror_hub(manifest, "memory://hf-mirror/deep")
    names = fsspec.filesystem("memory").find("/hf-mirror/deep")
    assert sorted(names) == [f"/hf-mirror/deep/{path}" for path in done.copied]
    assert mirror_hub(manifest, "memory://hf-mirror/deep").copied == ()
    use(manifest, "memory://hf-mirror/deep/")
    elsewhere()
    assert set(pull(manifest, frozen=True).adapters) == {"tone", "inner", "mine"}


def test_a_mirror_can_be_in_s3(manifest: Path, s3: S3Server, hub: HubServer) -> None:
    bucket = s3.bucket()
    assert len(mirror_hub(manifest, f"s3://{bucket}/hf").copied) == 8
    assert mirror_hub(manifest, f"s3://{bucket}/hf").copied == ()
    use(manifest, f"s3://{bucket}/hf/")
    hub.requests.clear()
    pulled = pull(manifest, frozen=True, store=Store(Path("other").absolute()))
    assert set(pulled.adapters) == {"tone", "inner", "mine"} and hub.requests == []


def test_a_base_that_is_locked_without_digests_gets_them(manifest: Path) -> None:
    beside = manifest.with_suffix(".lock")
    held = read_lock(beside)
    assert held is not None and held.base is not None
    files = {p: f.model_copy(update={"sha256": None}) for p, f in held.base.files.items()}
    bare = held.base.model_copy(update={"files": files})
    write_lock(held.model_copy(update={"base": bare}), beside)
    mirror_hub(manifest, "./m")
    assert read_lock(beside) == held


@pytest.mark.parametrize(
    ("target", "code"),
    [
        *(("hf://a/b", "AD909"), ("https://host/m", "AD909"), ("registry://r/x@1", "AD909")),
        *(("m", "AD909"), ("", "AD909"), ("./made/t/adapter_config.json", "AD909")),
        *(("nonsense://host/m", "AD231"), ("s3://key:secret@bucket/m", "AD909")),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(manifest: Path, target: str, code: str) -> None:
    with pytest.raises(AdapterdockError) as caught:
        mirror_hub(manifest, target)
    assert caught.value.code == code
    assert "secret" not in str(caught.value)


def test_a_manifest_without_a_lock_or_without_the_hub_is_refused(manifest: Path) -> None:
    local = Path("local.yaml")
    text = "version: 1\nbase: {model: ./made/b}\nadapters: {mine: {source: ./mine}}\n"
    local.write_text(text)
    with pytest.raises(LockError):
        mirror_hub(local, "./m")
    lock(local)
    with pytest.raises(UsageError) as caught:
        mirror_hub(local, "./m")
    assert caught.value.code == "AD917"
    assert not Path("m").exists()


def test_a_source_that_is_not_on_the_hub_is_named(manifest: Path) -> None:
    assert mirror_hub(manifest, "./m", dry_run=True).others == {}, "a folder here needs no mirror"
    for name, data in files_of(Path("mine")).items():
        fsspec.filesystem("memory").pipe_file(f"/shelf/mine/{name}", data)
    manifest.write_text(f"{TEXT}  far: {{source: 'memory://shelf/mine'}}\n")
    lock(manifest)
    done = mirror_hub(manifest, "./m")
    assert done.others == {"far": "memory://shelf/mine"}
    assert not any("shelf" in path for path in there(Path("m")))
