"""Adapters of a registry in a bundle: entries and signatures as they are, and the registry itself
read from the archive."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import adapterdock
import pytest
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    IntegrityError,
    PolicyError,
    SourceError,
    UsageError,
)
from adapterdock.registry.bundling import bundle
from adapterdock.registry.catalogue import registry_part
from adapterdock.registry.catalogue.catalogue import Catalogue, open_catalogue
from adapterdock.registry.catalogue.mirror import mirror
from adapterdock.registry.catalogue.open_storage import open_storage
from adapterdock.registry.catalogue.promote import mark, promote
from adapterdock.registry.catalogue.verify import verify_registry
from adapterdock.registry.oci.archive_storage import REGISTRY_TYPE, pack_registry
from adapterdock.registry.oci.artifact import (
    read_adapter,
    read_signatures,
    signatures_tag,
)
from adapterdock.registry.oci.layout import OciLayout, write_layout
from adapterdock.registry.oci.manifest import Descriptor, make_manifest
from adapterdock.registry.oci.setup_artifact import Content
from adapterdock.registry.publishing import publish
from adapterdock.registry.signatures.envelope import Kind, SignedFile, sign
from adapterdock.registry.signatures.signatures import add_signature
from adapterdock.registry.signatures.signer import Signer
from adapterdock.registry.storages.layout import (
    alias_folder,
    blob_file,
    entry_file,
    signatures_folder,
    value_signatures_folder,
)
from adapterdock.registry.storages.local_storage import LocalStorage
from adapterdock.registry.storages.storage import Storage
from adapterdock.registry.store.store import Store
from adapterdock.registry.unbundling import unpack
from support.project import Project, codes, stored
from support.published import registry
from support.signing import make_signer

PUBLISHED = (
    *(("refunds", version) for version in ("1.0.0", "2.0.0", "3.0.0")),
    ("deep/tone", "1.2.0"),
)


class Team:
    """A project with `team/refunds` at @prod and `team/deep/tone` at ^1, in a registry."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.out = project.folder.parent / "out.oci.tar"
        self.catalogue: Catalogue = registry(project.folder / "registry")
        project.base()
        for number, (name, version) in enumerate(
            (
                ("refunds", "1.0.0"),
                ("refunds", "2.0.0"),
                ("refunds", "3.0.0"),
                ("deep/tone", "1.2.0"),
            )
        ):
            folder = project.adapter("made", seed=number)
            (folder / "README.md").write_text(f"# {name} {version}")
            self.write({}, "publish.yaml")
            publish(folder, f"team/{name}@{version}", manifest=project.folder / "publish.yaml")
        shutil.rmtree(project.folder / "made")
        for version in ("1.0.0", "2.0.0"):
            promote(self.catalogue, "refunds", version, "prod")
        self.sources = {"r": "registry://team/refunds@prod", "t": "registry://team/deep/tone@^1"}
        self.write(self.sources)
        adapterdock.lock(project.manifest)

    def write(self, adapters: Any, name: str = "adapters.yaml", team: str = "./registry") -> Path:
        made = self.project.write(adapters, registries={"team": team})
        return made.replace(self.project.folder / name)

    def sign(self, kind: Kind, path: str, folder: str, signer: Signer | None = None) -> bytes:
        digest = Content.of(self.catalogue.storage.read(path, 1 << 20)).digest
        made = sign(SignedFile(kind, self.catalogue.id, path, digest), signer or make_signer())
        add_signature(self.catalogue.storage, folder, made)
        return made.raw

    def bundle(self, **options: Any) -> None:
        bundle(self.project.manifest, self.out, **options)

    @property
    def storage(self) -> Storage:
        return open_storage(f"oci-archive:{self.out}", directory=self.project.folder)


@pytest.fixture
def team(project: Project) -> Team:
    return Team(project)


def test_entries_and_signatures_are_packed_as_they_are(team: Team) -> None:
    path = entry_file("refunds", "2.0.0")
    signature = team.sign(Kind.ENTRY, path, signatures_folder("refunds", "2.0.0"))
    team.bundle()
    with OciLayout(team.out) as layout:
        manifest = layout.manifest(layout.find("team/refunds:2.0.0"))
        entry, raw = read_adapter(manifest, layout)
        assert raw == team.catalogue.entry("refunds", "2.0.0").raw
        assert "README.md" in {file.path for file in entry.files}
        signed = layout.manifest(layout.find(signatures_tag(manifest.digest)))
        assert read_signatures(signed, manifest.digest, layout) == [signature]
        assert {name for name in layout.names if not name.startswith("sha256")} == {
            *("setup", "registries/team"),
            *("team/refunds:2.0.0", "team/deep/tone:1.2.0"),
        }
        layout.verify()


def test_the_same_registry_gives_the_same_bundle(team: Team, tmp_path: Path) -> None:
    team.bundle()
    before = team.out.read_bytes()
    team.bundle(store=Store(tmp_path / "another"))
    assert team.out.read_bytes() == before


def test_a_set_up_moves_without_its_registry(team: Team, tmp_path: Path) -> None:
    team.bundle(with_base=True)
    before = adapterdock.pull(team.project.manifest).lock
    there = unpack(team.out, tmp_path / "there")
    shutil.move(team.project.folder, tmp_path / "gone")
    store = Store(tmp_path / "fresh")
    pulled = adapterdock.pull(there.manifest, archive=team.out, frozen=True, store=store)
    assert pulled.lock == before
    assert {f.fact.sha256 for files in pulled.adapters.values() for f in files.values()} == (
        stored(store)
    )
    again = adapterdock.pull(there.manifest, frozen=True, offline=True, store=store)
    assert again.lock == before


def test_a_manifest_may_use_the_registry_in_the_archive(team: Team, tmp_path: Path) -> None:
    team.bundle()
    text = team.project.lock_file.read_text()
    shutil.move(team.project.folder / "registry", tmp_path / "gone")
    team.write(team.sources, team="oci-archive:../out.oci.tar")
    store = Store(tmp_path / "fresh")
    pulled = adapterdock.pull(team.project.manifest, frozen=True, offline=True, store=store)
    assert set(pulled.adapters) == {"r", "t"}
    assert adapterdock.validate(team.project.manifest, frozen=True, offline=True).exit_status == 0
    adapterdock.lock(team.project.manifest, offline=True, store=store)
    assert team.project.lock_file.read_text() == text
    team.project.lock_file.unlink()
    made = adapterdock.lock(team.project.manifest, offline=True, store=store).adapters
    assert (made["r"].revision, made["t"].revision) == ("2.0.0", "1.2.0")


@pytest.mark.parametrize(
    ("selector", "version"),
    [("2.0.0", "2.0.0"), ("^2", "2.0.0"), (">=1", "2.0.0"), ("prod", "2.0.0")],
)
def test_every_selector_finds_what_is_there(team: Team, selector: str, version: str) -> None:
    team.bundle()
    team.write({"r": f"registry://team/refunds@{selector}"}, team="oci-archive:../out.oci.tar")
    assert adapterdock.lock(team.project.manifest).adapters["r"].revision == version
    digest = team.catalogue.entry("refunds", "2.0.0").digest
    team.write({"r": f"registry://team/refunds@{digest}"}, team="oci-archive:../out.oci.tar")
    assert adapterdock.lock(team.project.manifest).adapters["r"].revision == version


def test_what_was_not_packed_is_not_published_there(team: Team) -> None:
    team.bundle()
    for selector in ("3.0.0", "1.0.0", "^3", "beta"):
        team.write({"r": f"registry://team/refunds@{selector}"}, team="oci-archive:../out.oci.tar")
        assert "AD861" in codes(adapterdock.validate(team.project.manifest).findings)


def test_an_alias_is_packed_up_to_the_last_value_that_it_can_select(team: Team) -> None:
    promote(team.catalogue, "refunds", "3.0.0", "prod")
    promote(team.catalogue, "refunds", "3.0.0", "next")
    team.bundle()
    assert [*team.storage.find(alias_folder("refunds", "prod"))] == [
        "adapters/refunds/aliases/prod/00000001.json",
        "adapters/refunds/aliases/prod/00000002.json",
    ]
    assert not team.storage.find(alias_folder("refunds", "next"))


def test_marks_and_the_signatures_of_values_go_along(team: Team) -> None:
    mark(team.catalogue, "refunds", "2.0.0", "yank", why="wrong")
    mark(team.catalogue, "refunds", "3.0.0", "yank", why="also")
    folder = alias_folder("refunds", "prod")
    signed = value_signatures_folder("refunds", folder, 2)
    signature = team.sign(Kind.ALIAS, f"{folder}/00000002.json", signed)
    team.bundle()
    (path,) = team.storage.find(signed)
    assert team.storage.read(path, 1 << 20) == signature
    assert [*team.storage.find("adapters/refunds/marks")] == [
        "adapters/refunds/marks/2.0.0/00000001.json"
    ]
    shutil.rmtree(team.project.folder / "registry")
    team.write(team.sources, team="oci-archive:../out.oci.tar")
    assert codes(adapterdock.validate(team.project.manifest).findings) == ["AD869"]


def test_it_is_the_same_registry_and_read_only(team: Team) -> None:
    team.bundle()
    archived = open_catalogue(team.storage)
    assert archived.id == team.catalogue.id
    with pytest.raises(PolicyError):
        promote(archived, "refunds", "2.0.0", "next")
    for act in (lambda: team.storage.create("x", b""), lambda: team.storage.remove("x")):
        with pytest.raises(SourceError):
            act()
    with pytest.raises(FileNotFoundError):
        team.storage.read("nothing", 10)
    raw = team.catalogue.entry("refunds", "2.0.0").raw
    assert team.storage.read(entry_file("refunds", "2.0.0"), 10) == raw[:10]


def test_a_damaged_content_of_the_registry_is_not_used(team: Team, tmp_path: Path) -> None:
    team.bundle()
    raw = team.catalogue.entry("refunds", "2.0.0").raw
    bad = team.out.read_bytes().replace(raw, raw.replace(b"refunds", b"rEfunds"))
    team.out.write_bytes(bad)
    with pytest.raises(IntegrityError):
        team.storage.read(entry_file("refunds", "2.0.0"), 1 << 20)
    team.write(team.sources, team="oci-archive:../out.oci.tar")
    with pytest.raises(AdapterdockError):
        adapterdock.pull(team.project.manifest, store=Store(tmp_path / "fresh"))


def test_other_bytes_in_the_registry_are_not_packed(team: Team, tmp_path: Path) -> None:
    entry = team.catalogue.entry("refunds", "2.0.0").entry
    card = next(file for file in entry.files if file.path == "README.md")
    path = team.project.folder / "registry" / blob_file(card.sha256)
    path.chmod(0o644)
    path.write_bytes(b"#" * card.size)
    with pytest.raises(IntegrityError):
        team.bundle()
    path.unlink()
    with pytest.raises(SourceError):
        team.bundle(store=Store(tmp_path / "fresh"))
    assert not team.out.exists()


@pytest.mark.parametrize("wrong", ["none", "two", "blob", "identity", "path", "text", "missing"])
def test_an_archive_that_holds_no_registry_is_a_finding(team: Team, wrong: str) -> None:
    identity = {"registry.json": team.catalogue.storage.read("registry.json", 1 << 20)}
    packed = {"a": pack_registry(identity, {})}
    if wrong == "none":
        packed = {}
    elif wrong == "two":
        packed["b"] = pack_registry({**identity, "x": b"1"}, {})
    elif wrong == "identity":
        packed = {"a": pack_registry({"x": b"1"}, {})}
    elif wrong in ("blob", "path"):
        title = f"blobs/sha256/{'0' * 64}" if wrong == "blob" else "../registry.json"
        made = make_manifest(
            REGISTRY_TYPE,
            packed["a"].manifest.config,
            [*packed["a"].manifest.layers, Descriptor.of("x/y", identity["registry.json"], title)],
        )
        packed = {"a": type(packed["a"])(made, packed["a"].contents)}
    write_layout(team.out, packed)
    if wrong == "text":
        team.out.write_text("no archive")
    if wrong == "missing":
        team.out.unlink()
    with pytest.raises(AdapterdockError):
        team.storage.read("registry.json", 10)
    team.write({"r": "registry://team/refunds@1.0.0"}, team="oci-archive:../out.oci.tar")
    assert adapterdock.validate(team.project.manifest).exit_status == 1


def test_an_archive_with_two_registries_needs_a_name(team: Team) -> None:
    identity = {"registry.json": team.catalogue.storage.read("registry.json", 1 << 20)}
    write_layout(
        team.out,
        {"a": pack_registry(identity, {}), "b": pack_registry({**identity, "x": b"1"}, {})},
    )
    for name, expected in (("a", False), ("b", True)):
        storage = open_storage(f"oci-archive:{team.out}:{name}", directory=team.project.folder)
        assert ("x" in storage.find("")) == expected


@pytest.mark.parametrize("road", ["store", "archive"])
@pytest.mark.parametrize("signed", [True, False])
def test_signatures_that_a_policy_demands_move_along(
    team: Team, tmp_path: Path, road: str, signed: bool
) -> None:
    anna, folder = make_signer(), team.project.folder
    (folder / "keys").mkdir()
    (folder / "keys/anna.pub").write_text(anna.key.pem)
    for name, version in (("refunds", "2.0.0"), ("deep/tone", "1.2.0")):
        path = entry_file(name, version)
        team.sign(Kind.ENTRY, path, signatures_folder(name, version), anna)
    registries = {"team": "./registry"}
    team.project.write(
        team.sources,
        registries=registries,
        policy={"require_signature": {"of": ["entries"], "keys": ["keys/anna.pub"]}},
    )
    adapterdock.lock(team.project.manifest)
    if not signed:
        (path,) = team.catalogue.storage.find(signatures_folder("refunds", "2.0.0"))
        team.catalogue.storage.remove(path)
        with pytest.raises(PolicyError):
            team.bundle(with_base=True, store=Store(tmp_path / "new"))
        return
    team.bundle(with_base=True)
    there = unpack(team.out, tmp_path / "there")
    assert (there.folder / "keys/anna.pub").read_text() == anna.key.pem
    shutil.move(folder, tmp_path / "gone")
    if road == "archive":
        text = there.manifest.read_text().replace("./registry", f"oci-archive:{team.out}")
        there.manifest.write_text(text)
    store = Store(tmp_path / "fresh")
    pulled = adapterdock.pull(there.manifest, archive=team.out, frozen=True, store=store)
    assert set(pulled.adapters) == {"r", "t"}
    assert adapterdock.pull(there.manifest, frozen=True, offline=True, store=store).adapters
    (there.folder / "keys/anna.pub").write_text(make_signer().key.pem)
    with pytest.raises(AdapterdockError) as caught:
        adapterdock.pull(there.manifest, archive=team.out, frozen=True, store=store)
    assert codes(caught.value.findings)


@pytest.mark.parametrize("where", ["absolute", "home"])
def test_a_key_on_this_machine_only_is_refused(team: Team, where: str) -> None:
    anna = make_signer()
    home = Path.home() if where == "home" else team.project.folder
    (home / "anna.pub").write_text(anna.key.pem)
    named = "~/anna.pub" if where == "home" else str(home / "anna.pub")
    for name, version in (("refunds", "2.0.0"), ("deep/tone", "1.2.0")):
        team.sign(Kind.ENTRY, entry_file(name, version), signatures_folder(name, version), anna)
    team.project.write(
        team.sources,
        registries={"team": "./registry"},
        policy={"require_signature": {"keys": [named]}},
    )
    adapterdock.lock(team.project.manifest)
    with pytest.raises(UsageError) as caught:
        team.bundle()
    assert caught.value.code == "AD897"


def test_the_archive_is_a_mirror_that_can_be_mirrored(team: Team, tmp_path: Path) -> None:
    signature = team.sign(
        Kind.ENTRY, entry_file("refunds", "2.0.0"), signatures_folder("refunds", "2.0.0")
    )
    mark(team.catalogue, "refunds", "2.0.0", "deprecate")
    adapterdock.lock(team.project.manifest, upgrade_all=True)
    team.bundle()
    archived = open_catalogue(team.storage)
    verified = verify_registry(archived)
    assert verified.findings == ()
    copied = mirror(archived, LocalStorage(tmp_path / "copy"), local=True)
    assert (copied.id, copied.names) == (team.catalogue.id, ("deep/tone", "refunds"))
    shutil.move(team.project.folder / "registry", tmp_path / "gone")
    team.write(team.sources, team=str(tmp_path / "copy"))
    store = Store(tmp_path / "fresh")
    assert adapterdock.pull(team.project.manifest, frozen=True, store=store).adapters
    found = LocalStorage(tmp_path / "copy").find(signatures_folder("refunds", "2.0.0"))
    assert [LocalStorage(tmp_path / "copy").read(path, 1 << 20) for path in found] == [signature]


def test_a_long_journal_stays_behind_but_for_the_line_that_was_seen(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_part, "MOST_LINES", 3)
    team.bundle()
    assert [*team.storage.find("journal")] == ["journal/00000006.json"]
    shutil.rmtree(team.project.folder / "registry")
    team.write(team.sources, team="oci-archive:../out.oci.tar")
    assert adapterdock.lock(team.project.manifest).adapters["r"].revision == "2.0.0"
