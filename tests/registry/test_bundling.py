"""Bundles: a locked set-up in one file, and back into an empty home without a network."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import adapterdock
import pytest
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    IntegrityError,
    LockError,
    OfflineError,
    PolicyError,
    SourceError,
    UsageError,
)
from adapterdock.manifests.findings.finding import Report
from adapterdock.registry import bundling, unbundling
from adapterdock.registry.bundling import Bundled, bundle
from adapterdock.registry.oci import content as oci_content
from adapterdock.registry.oci import layout as oci_layout
from adapterdock.registry.oci.layout import OciLayout, write_layout
from adapterdock.registry.oci.setup_artifact import Content, pack_setup
from adapterdock.registry.store.store import Store
from adapterdock.registry.unbundling import unpack
from support.hub_server import HubServer
from support.killed import killed_at_every_line
from support.project import Project, files_of, put_folder, stored, swap_bytes
from support.s3_server import S3Server
from support.web import WebServer

Move = Callable[[], Path]


@pytest.fixture
def everywhere(project: Project, s3: S3Server, hub: HubServer, web: WebServer) -> Project:
    """A base on the Hub; adapters in a bucket, on the Hub, on a web server and in a folder."""
    hub.commit("org/base", files_of(project.base("elsewhere/base", tokenizer=True)))
    hub.commit("org/hubbed", files_of(project.adapter("elsewhere/hubbed", seed=1)))
    bucket = put_folder(s3, s3.bucket(), "tone", project.adapter("elsewhere/tone", seed=2))
    project.adapter("adapters/legal", seed=3)
    shutil.move(project.folder / "elsewhere", project.folder.parent / "elsewhere")
    project.write(
        {"tone": bucket, "hubbed": "hf://org/hubbed", "legal": "./adapters/legal"},
        model="hf://org/base",
    )
    adapterdock.lock(project.manifest)
    return project


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """An empty home from here on, without a network."""

    def empty() -> None:
        home = tmp_path / "another home"
        home.mkdir()
        for name, value in (("HOME", ""), ("ADAPTERDOCK_CACHE", "cache"), ("HF_HOME", "hf")):
            monkeypatch.setenv(name, str(home / value))
        monkeypatch.setenv("ADAPTERDOCK_OFFLINE", "1")
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    return empty


def out_of(project: Project) -> Path:
    return project.folder.parent / "out.oci.tar"


def test_a_set_up_moves_into_an_empty_home_without_a_network(
    everywhere: Project, cold: Callable[[], None], tmp_path: Path
) -> None:
    before = adapterdock.pull(everywhere.manifest)
    done = bundle(everywhere.manifest, out_of(everywhere), with_base=True)
    assert done.has_base
    shutil.move(everywhere.folder, tmp_path / "gone")
    cold()
    there = unpack(out_of(everywhere), tmp_path / "there")
    assert there.manifest == tmp_path / "there/adapters.yaml"
    for name in ("adapters.yaml", "adapters.lock", "adapters.lock.samples"):
        original = tmp_path / "gone" / name
        assert (there.folder / name).read_bytes() == original.read_bytes()
    pulled = adapterdock.pull(there.manifest, archive=out_of(everywhere), frozen=True)
    assert pulled.lock == before.lock
    for name, files in {"base": pulled.base, **pulled.adapters}.items():
        known = {"base": before.base, **before.adapters}[name]
        assert {p: f.fact.sha256 for p, f in files.items()} == {
            p: f.fact.sha256 for p, f in known.items()
        }
        for path, fetched in files.items():
            found = hashlib.sha256(fetched.path.read_bytes()).hexdigest()
            assert fetched.fact.sha256 == f"sha256:{found}", path
    report = adapterdock.validate(there.manifest, frozen=True, offline=True)
    assert isinstance(report, Report)
    assert report.exit_status == 0, report
    assert adapterdock.pull(there.manifest, frozen=True, offline=True).lock == before.lock


def test_equal_set_ups_give_equal_bytes_from_whatever_store(
    everywhere: Project, tmp_path: Path
) -> None:
    one = bundle(everywhere.manifest, tmp_path / "one.tar", with_base=True)
    other = Store(tmp_path / "other store")
    two = bundle(everywhere.manifest, tmp_path / "two.tar", with_base=True, store=other)
    assert one == two
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    digest = hashlib.sha256((tmp_path / "one.tar").read_bytes()).hexdigest()
    assert one.digest == f"sha256:{digest}"


def test_without_the_base_its_files_are_not_packed(
    everywhere: Project, cold: Callable[[], None], tmp_path: Path
) -> None:
    done = bundle(everywhere.manifest, out_of(everywhere))
    assert not done.has_base
    lock = everywhere.lock
    assert lock.base is not None
    with OciLayout(out_of(everywhere)) as layout:
        assert not [f for f in lock.base.files.values() if layout.size(f.sha256 or "")]
    there = unpack(out_of(everywhere), tmp_path / "there")
    cold()
    with pytest.raises(OfflineError):
        adapterdock.pull(there.manifest, archive=out_of(everywhere))
    pulled = adapterdock.pull(there.manifest, archive=out_of(everywhere), with_base=False)
    assert set(pulled.adapters) == {"tone", "hubbed", "legal"}


def test_a_dry_run_says_what_would_be_packed_and_transfers_nothing(
    everywhere: Project, tmp_path: Path
) -> None:
    store = Store(tmp_path / "empty")
    planned = bundle(
        everywhere.manifest, out_of(everywhere), with_base=True, dry_run=True, store=store
    )
    assert not out_of(everywhere).exists()
    assert not stored(store)
    done = bundle(everywhere.manifest, out_of(everywhere), with_base=True)
    assert planned == Bundled(done.files, done.size, has_base=True)


def test_files_of_the_store_only_come_from_the_bundle_once(
    everywhere: Project, cold: Callable[[], None], tmp_path: Path
) -> None:
    bundle(everywhere.manifest, out_of(everywhere), with_base=True)
    lock = everywhere.lock
    cold()
    store = Store(tmp_path / "new")
    wanted = unbundling.stored_contents(lock)
    assert unbundling.fill_store(out_of(everywhere), lock, store) == len(wanted)
    assert stored(store) == {*wanted}
    assert unbundling.fill_store(out_of(everywhere), lock, store) == 0


@pytest.mark.parametrize("change", [b"?", b""])
def test_a_changed_content_never_gets_into_the_store(
    everywhere: Project, cold: Callable[[], None], tmp_path: Path, change: bytes
) -> None:
    bundle(everywhere.manifest, out_of(everywhere), with_base=True)
    digest = next(iter(unbundling.stored_contents(everywhere.lock)))
    name = f"blobs/sha256/{digest.removeprefix('sha256:')}"
    rewritten(out_of(everywhere), name, lambda raw: raw[:-1] + change)
    store = Store(tmp_path / "new")
    with pytest.raises(IntegrityError):
        unbundling.fill_store(out_of(everywhere), everywhere.lock, store)
    assert digest not in stored(store)


def test_another_set_ups_bundle_is_no_help(
    everywhere: Project, cold: Callable[[], None], tmp_path: Path
) -> None:
    packed = pack_setup("a.yaml", {"a.yaml": Content.of(b"version: 1\n")})
    write_layout(out_of(everywhere), {"setup": packed})
    cold()
    with pytest.raises(OfflineError):
        adapterdock.pull(everywhere.manifest, archive=out_of(everywhere))


def rewritten(path: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """The archive with other bytes of one member."""
    new = path.with_name("rewritten")
    with tarfile.open(path) as tar, tarfile.open(new, "w") as into:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            raw = file.read()
            raw = change(raw) if member.name == name else raw
            member.size = len(raw)
            new_file = tmp_file(path, raw)
            with new_file.open("rb") as stream:
                into.addfile(member, stream)
    new.replace(path)


def tmp_file(path: Path, raw: bytes) -> Path:
    found = path.with_name("member")
    found.write_bytes(raw)
    return found


# -- what a bundle cannot have ------------------------------------------------------------------


@pytest.fixture
def local(project: Project) -> Project:
    project.base()
    project.adapter("adapters/tone")
    project.write({"tone": "./adapters/tone"})
    adapterdock.lock(project.manifest)
    return project


def test_local_adapters_and_a_local_base_go_along(local: Project, tmp_path: Path) -> None:
    bundle(local.manifest, tmp_path / "out.tar", with_base=True)
    there = unpack(tmp_path / "out.tar", tmp_path / "there")
    shutil.move(local.folder, tmp_path / "gone")
    adapterdock.pull(there.manifest, archive=tmp_path / "out.tar", frozen=True)
    assert stored() == set()
    assert adapterdock.validate(there.manifest, frozen=True).exit_status == 0


def test_extended_files_and_adapters_beside_the_folder_keep_their_places(
    local: Project, tmp_path: Path
) -> None:
    team = tmp_path / "project/team"
    (team / "deep").mkdir(parents=True)
    local.manifest.rename(team / "common.yaml")
    text = (team / "common.yaml").read_text().replace("./", "../")
    (team / "common.yaml").write_text(text)
    (team / "deep/adapters.yaml").write_text("extends: ../common.yaml\nversion: 1\n")
    adapterdock.lock(team / "deep/adapters.yaml")
    bundle(team / "deep/adapters.yaml", tmp_path / "out.tar", with_base=True)
    there = unpack(tmp_path / "out.tar", tmp_path / "there")
    assert there.manifest == tmp_path / "there/team/deep/adapters.yaml"
    shutil.move(local.folder, tmp_path / "gone")
    assert adapterdock.validate(there.manifest, frozen=True).exit_status == 0


@pytest.mark.parametrize("part", ["adapter", "base", "extends"])
def test_a_path_of_this_machine_is_refused(local: Project, tmp_path: Path, part: str) -> None:
    absolute = str(local.folder)
    if part == "adapter":
        local.change("./adapters/tone", f"{absolute}/adapters/tone")
    elif part == "base":
        local.change("./base", f"{absolute}/base")
    else:
        (local.folder / "over.yaml").write_text(f"extends: {local.manifest}\nversion: 1\n")
        local.manifest = local.folder / "over.yaml"
    adapterdock.lock(local.manifest)
    with pytest.raises(UsageError) as caught:
        bundle(local.manifest, tmp_path / "out.tar", with_base=True)
    assert caught.value.code == "AD897"
    assert not (tmp_path / "out.tar").exists()
    if part == "base":
        assert bundle(local.manifest, tmp_path / "out.tar").files == 2


def test_only_what_is_locked_is_packed(local: Project, tmp_path: Path) -> None:
    out = tmp_path / "out.tar"
    with pytest.raises(LockError):
        local.change("./adapters/tone", "./adapters/other")
        bundle(local.manifest, out)
    local.change("./adapters/other", "./adapters/tone")
    swap_bytes(local.folder / "adapters/tone/adapter_model.safetensors")
    with pytest.raises(IntegrityError):
        bundle(local.manifest, out)
    local.lock_file.unlink()
    with pytest.raises(LockError):
        bundle(local.manifest, out)
    assert not out.exists()


def test_a_mutable_adapter_is_refused(local: Project, tmp_path: Path) -> None:
    local.write({"tone": {"source": "./adapters/tone", "mutable": True}})
    adapterdock.lock(local.manifest)
    with pytest.raises(LockError):
        bundle(local.manifest, tmp_path / "out.tar")


def test_a_policy_holds_for_bundles_too(local: Project, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("allow_sources: ['hf://**']\n")
    for dry_run in (True, False):
        with pytest.raises(PolicyError):
            bundle(
                local.manifest,
                tmp_path / "out.tar",
                policy=tmp_path / "policy.yaml",
                dry_run=dry_run,
            )


@pytest.mark.parametrize("name", ["adapters.yaml", "adapters.lock", "adapters.lock.samples"])
def test_a_bundle_replaces_no_file_of_its_set_up(local: Project, name: str) -> None:
    before = (local.folder / name).read_bytes()
    with pytest.raises(UsageError) as caught:
        bundle(local.manifest, local.folder / name)
    assert caught.value.code == "AD899"
    assert (local.folder / name).read_bytes() == before


def test_a_bundle_replaces_only_an_archive(local: Project, tmp_path: Path) -> None:
    out = tmp_path / "out.tar"
    out.write_text("my notes")
    with pytest.raises(UsageError):
        bundle(local.manifest, out)
    assert out.read_text() == "my notes"
    out.unlink()
    one = bundle(local.manifest, out)
    assert bundle(local.manifest, out) == one
    with pytest.raises(UsageError):
        bundle(local.manifest, tmp_path)


def test_what_a_killed_process_left_is_removed(local: Project, tmp_path: Path) -> None:
    left = [
        tmp_path / f".{name}000000000000.1.1.{'0' * 12}"
        for name in ("out.tar.", "there.unpacking-")
    ]
    left[0].write_bytes(b"half")
    left[1].mkdir()
    for path in left:
        os.utime(path, (0, 0))
    bundle(local.manifest, tmp_path / "out.tar")
    unpack(tmp_path / "out.tar", tmp_path / "there")
    assert not any(path.exists() for path in left)


# -- unpacking ----------------------------------------------------------------------------------


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    files = {"adapters.yaml": Content.of(b"version: 1\n"), "a/b.json": Content.of(b"{}")}
    write_layout(tmp_path / "out.tar", {"setup": pack_setup("adapters.yaml", files)})
    return tmp_path / "out.tar"


def test_unpacking_again_changes_nothing(packed: Path, tmp_path: Path) -> None:
    assert unpack(packed, tmp_path / "there").new
    assert not unpack(packed, tmp_path / "there").new
    (tmp_path / "empty").mkdir()
    assert unpack(packed, tmp_path / "empty").new
    assert unpack(packed, tmp_path / "far/away").new


@pytest.mark.parametrize("what", ["other file", "other bytes", "file missing", "link", "file"])
def test_a_folder_with_something_else_is_left_as_it_is(
    packed: Path, tmp_path: Path, what: str
) -> None:
    there = tmp_path / "there"
    unpack(packed, there)
    if what == "other file":
        (there / "notes").write_text("mine")
    elif what == "other bytes":
        (there / "a/b.json").write_text("[]")
    elif what == "file missing":
        (there / "a/b.json").unlink()
    elif what == "link":
        (tmp_path / "real").mkdir()
        shutil.rmtree(there)
        there.symlink_to(tmp_path / "real")
    else:
        shutil.rmtree(there)
        there.write_text("mine")
    before = files_of(there)
    with pytest.raises(UsageError) as caught:
        unpack(packed, there)
    assert caught.value.code == "AD899"
    assert files_of(there) == before


def test_a_damaged_bundle_leaves_nothing(packed: Path, tmp_path: Path) -> None:
    name = f"blobs/sha256/{hashlib.sha256(b'{}').hexdigest()}"
    rewritten(packed, name, lambda _: b"[]")
    before = {*tmp_path.iterdir()}
    with pytest.raises(IntegrityError) as caught:
        unpack(packed, tmp_path / "there")
    assert {*tmp_path.iterdir()} == before
    hint = caught.value.findings[0].hint or ""
    assert hint.startswith("Get the archive again")
    assert "ull again" not in hint


def test_a_folder_that_cannot_be_made_is_wrong_usage(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError) as caught:
        unpack(packed, tmp_path / "file" / "there")
    assert caught.value.code == "AD909"
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("place", ["missing/out.tar", "file/out.tar"])
def test_an_archive_that_cannot_be_written_is_wrong_usage_before_anything_is_fetched(
    project: Project, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.base()
    project.adapter("tone")
    adapterdock.lock(project.write({"tone": "./tone"}))
    (project.folder / "file").write_text("mine")
    monkeypatch.setattr(bundling, "pull_file", Mock(side_effect=AssertionError))
    with pytest.raises(UsageError) as caught:
        bundle(project.manifest, project.folder / place)
    (finding,) = caught.value.findings
    assert (finding.code, finding.where.file) == ("AD909", str(project.folder / place))
    assert "cache" not in (finding.hint or "")


@pytest.mark.parametrize("title", ["../out", "/tmp/out", "a/../../out", ".git/config"])
def test_a_path_that_leads_out_is_refused(packed: Path, tmp_path: Path, title: str) -> None:
    with OciLayout(packed) as layout:
        manifest = layout.manifest(layout.find(None))
    data = json.loads(manifest.raw)
    data["layers"][0]["annotations"]["org.opencontainers.image.title"] = title
    index_with(packed, json.dumps(data).encode())
    before = {*tmp_path.rglob("*")}
    with pytest.raises(SourceError) as caught:
        unpack(packed, tmp_path / "there")
    assert caught.value.code == "AD898"
    assert {*tmp_path.rglob("*")} == before


def index_with(path: Path, manifest: bytes) -> None:
    """The archive with another manifest, which its index names correctly."""
    digest = hashlib.sha256(manifest).hexdigest()
    with tarfile.open(path) as tar:
        found = {m.name: f.read() for m in tar if (f := tar.extractfile(m)) is not None}
    index = json.loads(found["index.json"])
    index["manifests"][0] |= {"digest": f"sha256:{digest}", "size": len(manifest)}
    found["index.json"] = json.dumps(index).encode()
    found[f"blobs/sha256/{digest}"] = manifest
    with tarfile.open(path, "w") as tar:
        for name, raw in found.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            with tmp_file(path, raw).open("rb") as stream:
                tar.addfile(info, stream)
    path.with_name("member").unlink()


def test_a_small_archive_cannot_fill_the_disk(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Content.of(b"x" * 10_000)
    files = {"adapters.yaml": one, **{f"{n:05}": one for n in range(400)}}
    write_layout(packed, {"setup": pack_setup("adapters.yaml", files)})
    monkeypatch.setattr(unbundling, "MOST_TIMES", 10)
    with pytest.raises(SourceError) as caught:
        unpack(packed, tmp_path / "there")
    assert caught.value.code == "AD898"
    monkeypatch.setattr(unbundling, "MOST_TIMES", 1000)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", Mock(return_value=usage))
    with pytest.raises(UsageError) as full:
        unpack(packed, tmp_path / "there")
    assert full.value.code == "AD909", "the place is the user's, and not the cache"
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("at", ["write", "sync", "folder"])
def test_a_disk_that_fills_up_while_it_unpacks_is_about_that_place_and_not_the_cache(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    transfer = OciLayout._transfer

    def to_disk(self: OciLayout, one: Any, into: Any, on_bytes: Any) -> None:
        (transfer if isinstance(into, io.BytesIO) else full)(self, one, into, on_bytes)

    monkeypatch.setattr(
        *{
            "write": (OciLayout, "_transfer", to_disk),
            "sync": (unbundling, "sync_file", full),
            "folder": (Path, "mkdir", full),
        }[at]
    )
    with pytest.raises(UsageError) as caught:
        unpack(packed, tmp_path / "there")
    finding = caught.value.findings[0]
    assert (finding.code, finding.where.file) == ("AD909", str(tmp_path / "there"))
    assert "No space left" in str(finding.found) and "CACHE" not in str(finding.hint)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir() if "there" in p.name] == []


@pytest.mark.parametrize("count", [0, 2])
def test_an_archive_needs_exactly_one_set_up(tmp_path: Path, count: int) -> None:
    packed = [pack_setup("a", {"a": Content.of(bytes([n]))}) for n in range(count)]
    write_layout(tmp_path / "out.tar", {f"n{n}": one for n, one in enumerate(packed)})
    with pytest.raises(SourceError) as caught:
        unpack(tmp_path / "out.tar", tmp_path / "there")
    assert caught.value.code == "AD898"


def test_what_is_no_archive_is_a_finding(local: Project, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive")
    for path in (tmp_path / "text", tmp_path / "nothing", tmp_path):
        with pytest.raises(AdapterdockError):
            unpack(path, tmp_path / "there")
        with pytest.raises(AdapterdockError):
            adapterdock.pull(local.manifest, archive=path)


def test_killed_at_any_line_a_bundle_is_the_old_or_the_new_one(
    local: Project, tmp_path: Path
) -> None:
    out = tmp_path / "archives" / "out.tar"
    out.parent.mkdir()
    one = bundle(local.manifest, out)
    old = out.read_bytes()
    two = bundle(local.manifest, out, with_base=True)
    new = out.read_bytes()
    assert one != two

    def before() -> None:
        out.write_bytes(old)

    def act() -> None:
        bundle(local.manifest, out, with_base=True)

    seen: set[bytes] = set()
    for _ in killed_at_every_line(act, (oci_layout, oci_content), before, step=13):
        seen.add(out.read_bytes())
        with OciLayout(out) as layout:
            layout.verify()
    assert seen <= {old, new}
    assert old in seen
    act()
    assert [path.name for path in out.parent.iterdir()] == ["out.tar"]


def test_killed_at_any_line_an_unpacked_folder_is_absent_or_complete(
    packed: Path, tmp_path: Path
) -> None:
    there = tmp_path / "away/there"
    there.parent.mkdir()
    act = partial(unpack, packed, there)
    whole = files_of(unpack(packed, tmp_path / "expected").folder)
    states: set[bool] = set()
    before = partial(shutil.rmtree, there, ignore_errors=True)
    for _ in killed_at_every_line(act, (unbundling,), before, step=3):
        states.add(there.exists())
        assert not there.exists() or files_of(there) == whole
    assert False in states
    act()
    assert [path.name for path in there.parent.iterdir()] == ["there"]


def test_killed_at_any_line_the_store_holds_only_what_is_verified(
    everywhere: Project, tmp_path: Path
) -> None:
    bundle(everywhere.manifest, out_of(everywhere), with_base=True)
    lock = everywhere.lock
    store = Store(tmp_path / "killed")
    wanted = unbundling.stored_contents(lock)
    act = partial(unbundling.fill_store, out_of(everywhere), lock, store)
    for _ in killed_at_every_line(act, (unbundling,), lambda: None, step=5):
        for digest in stored(store):
            assert store.find(digest) is not None
    assert stored(store) == {*wanted}
