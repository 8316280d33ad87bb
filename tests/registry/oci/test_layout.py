"""OCI archives: the same bytes each time, and no harm from another's."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import (
    IntegrityError,
    SourceError,
    StoreError,
    UsageError,
)
from adapterdock.registry.files.digests import sha256_bytes, sha256_file
from adapterdock.registry.oci import layout as oci_layout
from adapterdock.registry.oci.artifact import (
    Artifact,
    pack_adapter,
    pack_signatures,
    read_adapter,
    unpack_files,
)
from adapterdock.registry.oci.layout import OciLayout, write_layout
from hypothesis import given, settings
from hypothesis import strategies as some
from support.oci_adapters import CONTENTS, artifact, entry_bytes

NAME = "team/refunds:2.1.0"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "out.oci.tar"
    write_layout(path, {NAME: artifact()})
    return path


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {m.name: file.read() for m in tar if (file := tar.extractfile(m)) is not None}


def write_tar(path: Path, files: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_an_adapter_moves_through_an_archive_unchanged(archive: Path, tmp_path: Path) -> None:
    with OciLayout(archive) as layout:
        manifest = layout.manifest(layout.find(NAME))
        entry, raw = read_adapter(manifest, layout)
        assert raw == entry_bytes()
        written = unpack_files(entry, layout, tmp_path / "new")
        assert {path: file.read_bytes() for path, file in written.items()} == CONTENTS
        assert layout.verify() == len({*CONTENTS.values()}) + 2


def test_equal_adapters_give_equal_archives_without_times_and_owners(tmp_path: Path) -> None:
    for name, order in (("a", list(CONTENTS)), ("b", list(reversed(CONTENTS)))):
        (tmp_path / name).mkdir()
        files: dict[str, bytes | Path] = {}
        for number, path in enumerate(order):
            files[path] = tmp_path / name / str(number)
            (tmp_path / name / str(number)).write_bytes(CONTENTS[path])
        packed = pack_adapter(entry_bytes(), files)
        signed = pack_signatures(packed.manifest, [b"signature"])
        both = {NAME: packed, "signatures": signed}
        ordered = dict(sorted(both.items(), reverse=name == "b"))
        digest = write_layout(tmp_path / f"{name}.tar", ordered)
        assert digest == sha256_file(tmp_path / f"{name}.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        infos = tar.getmembers()
    assert [info.name for info in infos[:2]] == ["oci-layout", "index.json"]
    assert {(i.mtime, i.uid, i.gid, i.uname, i.gname, i.mode) for i in infos} == {
        (0, 0, 0, "", "", 0o644)
    }


def test_the_archive_is_an_oci_layout(archive: Path) -> None:
    found = members(archive)
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads(found["index.json"])
    assert index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] == NAME
    for name, content in found.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{sha256_bytes(content).removeprefix('sha256:')}"


def test_an_artifact_is_found_by_name_by_digest_or_as_the_only_one(tmp_path: Path) -> None:
    one, two = artifact(), artifact(version="2.2.0")
    write_layout(tmp_path / "two.tar", {"one": one, "two": two})
    with OciLayout(tmp_path / "two.tar") as layout:
        assert layout.find("two").digest == two.manifest.digest
        assert layout.find(one.manifest.digest).digest == one.manifest.digest
        for wrong in (None, "three"):
            with pytest.raises(SourceError) as caught:
                layout.find(wrong)
            assert caught.value.code == "AD888"
    write_layout(tmp_path / "one.tar", {"one": one})
    with OciLayout(tmp_path / "one.tar") as layout:
        assert layout.find(None).digest == one.manifest.digest


def test_a_file_that_changed_since_its_entry_is_not_packed(tmp_path: Path) -> None:
    for content in (b"v" * 1000, b"w" * 999, b"w" * 1001):
        (tmp_path / "weights").write_bytes(content)
        files = {**CONTENTS, "adapter_model.safetensors": tmp_path / "weights"}
        with pytest.raises(IntegrityError):
            write_layout(tmp_path / "out.tar", {NAME: pack_adapter(entry_bytes(), files)})
        assert [file.name for file in tmp_path.iterdir()] == ["weights"]


def test_a_missing_content_or_file_leaves_the_old_archive(archive: Path, tmp_path: Path) -> None:
    before = archive.read_bytes()
    with pytest.raises(IntegrityError):
        write_layout(archive, {NAME: Artifact(artifact().manifest, {})})
    files = {**CONTENTS, "empty": tmp_path / "nothing"}
    with pytest.raises(StoreError):
        write_layout(archive, {NAME: pack_adapter(entry_bytes(), files)})
    assert archive.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [archive.name]


def test_a_folder_that_is_missing_is_wrong_usage(
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError) as caught:
        write_layout(tmp_path / "none" / "out.tar", {NAME: artifact()})
    assert caught.value.code == "AD909"


def test_each_changed_blob_is_noticed_when_it_is_read(archive: Path, tmp_path: Path) -> None:
    found = members(archive)
    for name in [name for name in found if name.startswith("blobs/")]:
        for content in (found[name] + b"x", found[name][:-1] + b"?", b""):
            if content == found[name]:
                continue
            write_tar(tmp_path / "bad.tar", {**found, name: content})
            with OciLayout(tmp_path / "bad.tar") as layout, pytest.raises(IntegrityError):
                layout.verify()


def test_a_damaged_file_is_not_left_behind(archive: Path, tmp_path: Path) -> None:
    found = members(archive)
    weights = f"blobs/sha256/{sha256_bytes(b'w' * 1000).removeprefix('sha256:')}"
    write_tar(tmp_path / "bad.tar", {**found, weights: b"v" * 1000})
    with OciLayout(tmp_path / "bad.tar") as layout:
        entry, _ = read_adapter(layout.manifest(layout.find(None)), layout)
        with pytest.raises(IntegrityError) as caught:
            unpack_files(entry, layout, tmp_path / "new")
    assert caught.value.code == "AD610"
    assert not (tmp_path / "new" / "adapter_model.safetensors").exists()


def test_a_file_that_exists_is_never_replaced(archive: Path, tmp_path: Path) -> None:
    with OciLayout(archive) as layout:
        manifest = layout.manifest(layout.find(None))
        (tmp_path / "mine").write_bytes(b"mine")
        with pytest.raises(StoreError):
            layout.copy(manifest.config, tmp_path / "mine")
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_folder_that_cannot_be_made_is_an_error_of_the_disk(
    archive: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with OciLayout(archive) as layout:
        entry, _ = read_adapter(layout.manifest(layout.find(None)), layout)
        with pytest.raises(StoreError):
            unpack_files(entry, layout, tmp_path / "file")


def refused(path: Path) -> str:
    with pytest.raises(SourceError) as caught, OciLayout(path) as layout:
        layout.verify()
    assert caught.value.code == "AD888"
    return str(caught.value)


@pytest.mark.parametrize("missing", ["oci-layout", "index.json", "blobs"])
def test_an_archive_without_a_part_is_refused(archive: Path, missing: str) -> None:
    found = {n: c for n, c in members(archive).items() if not n.startswith(missing)}
    write_tar(archive, found)
    assert "missing" in refused(archive)


def test_a_compressed_or_cut_archive_is_refused(archive: Path) -> None:
    whole = archive.read_bytes()
    with tarfile.open(archive, "w:gz"):
        pass
    assert "tar" in refused(archive)
    for length in (0, 100, 512, 600, 1536, 3000, len(whole) // 2):
        archive.write_bytes(whole[:length])
        refused(archive)


def hostile(change: Callable[[tarfile.TarFile], None], path: Path) -> None:
    found = members(path)
    with tarfile.open(path, "w") as tar:
        for name, content in found.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        change(tar)


def test_a_second_member_of_a_name_is_refused(archive: Path) -> None:
    hostile(lambda tar: tar.addfile(tarfile.TarInfo("index.json")), archive)
    assert "duplicate" in refused(archive)
    hostile(lambda tar: tar.addfile(tarfile.TarInfo("./index.json")), archive)
    refused(archive)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_in_the_place_of_a_blob_is_refused(archive: Path, kind: bytes) -> None:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(f"blobs/sha256/{'0' * 64}")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)

    hostile(add, archive)
    assert "plain file" in refused(archive)


def test_members_of_other_names_are_never_written(archive: Path, tmp_path: Path) -> None:
    def add(tar: tarfile.TarFile) -> None:
        for name in ("../out", "/tmp/out-of-the-archive", "blobs/sha256/../../out", "other"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
        folder = tarfile.TarInfo("blobs/sha256/")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)

    hostile(add, archive)
    with OciLayout(archive) as layout:
        entry, _ = read_adapter(layout.manifest(layout.find(NAME)), layout)
        unpack_files(entry, layout, tmp_path / "a" / "b")
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()} == {
        archive.name,
        *(f"a/b/{path}" for path in CONTENTS),
    }


def test_a_header_that_would_fill_the_memory_or_turn_in_circles_is_refused(
    archive: Path,
) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, 1 << 40
        archive.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4 << 20))
        assert "large" in refused(archive)
    for size in (-512, -1024, -(1 << 40), 1 << 60):
        info = tarfile.TarInfo("x")
        info.size = size
        archive.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
        refused(archive)


def test_too_many_members_are_refused(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci_layout, "MEMBERS", 100)
    one = tarfile.TarInfo("x").tobuf()
    archive.write_bytes(one * 101 + bytes(1024))
    assert "members" in refused(archive)


def test_a_folder_is_an_error_of_the_disk_and_a_missing_file_one_of_the_source(
    tmp_path: Path,
) -> None:
    with pytest.raises(StoreError):
        OciLayout(tmp_path)
    with pytest.raises(SourceError) as caught:
        OciLayout(tmp_path / "nothing")
    assert caught.value.code == "AD201"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("archive") / "out.oci.tar"
    write_layout(path, {NAME: artifact()})
    return path.with_name("changed.tar"), path.read_bytes()


@settings(max_examples=100, deadline=None)
@given(some.data())
def test_any_changed_archive_is_read_correctly_or_refused(
    good: tuple[Path, bytes], data: some.DataObject
) -> None:
    path, whole = good
    changed = bytearray(whole)
    for _ in range(data.draw(some.integers(1, 4))):
        at = data.draw(some.integers(0, len(changed) - 1))
        piece = data.draw(some.binary(min_size=1, max_size=12))
        if data.draw(some.booleans()):
            changed[at : at + len(piece)] = piece
        else:
            block = at // 512 * 512  # a size, a type or a check sum of a header
            field = data.draw(some.sampled_from([0, 124, 148, 156, 257]))
            changed[block + field : block + field + len(piece)] = piece
            if data.draw(some.booleans()):
                header = bytes(changed[block : block + 148]) + b" " * 8
                total = sum(header + bytes(changed[block + 156 : block + 512]))
                changed[block + 148 : block + 156] = b"%06o\0 " % total
    path.write_bytes(changed)
    try:
        with OciLayout(path) as layout:
            descriptor = layout.find(NAME)
            manifest = layout.manifest(descriptor)
            layout.verify()
            contents = [layout.read(one) for one in manifest.contents]
    except (SourceError, IntegrityError):
        return
    assert manifest.digest == descriptor.digest
    assert [*map(sha256_bytes, contents)] == [one.digest for one in manifest.contents]
