"""Pushing adapters to an OCI registry, and using them from there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapterdock
import pytest
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    FitError,
    IntegrityError,
    OfflineError,
    SourceError,
    UsageError,
)
from adapterdock.registry.catalogue.catalogue import Catalogue
from adapterdock.registry.catalogue.promote import promote
from adapterdock.registry.oci.artifact import read_adapter, read_signatures
from adapterdock.registry.oci.client import OciClient, reference_of
from adapterdock.registry.publishing import publish
from adapterdock.registry.pushing import Pushed, push
from adapterdock.registry.signatures.envelope import Envelope, Kind, SignedFile, sign
from adapterdock.registry.signatures.signatures import add_signature
from adapterdock.registry.storages.layout import blob_file, entry_file, signatures_folder
from adapterdock.registry.store.store import Store
from support.oci_server import OciServer
from support.project import Project, swap_bytes
from support.published import registry
from support.signing import make_signer

Push = Callable[..., Pushed]


@pytest.fixture
def team(project: Project) -> Catalogue:
    project.base()
    project.adapter("tone")
    project.write({"tone": "./tone"}, registries={"team": "./registry"})
    made = registry(project.folder / "registry")
    publish(project.folder / "tone", "team/refunds@2.1.0", manifest=project.manifest)
    return made


@pytest.fixture
def send(project: Project, team: Catalogue, oci: OciServer) -> Push:
    def call(subject: Any = "team/refunds@2.1.0", tag: str = ":2.1.0", **options: Any) -> Pushed:
        target = f"oci://{oci.host}/team/refunds{tag}"
        return push(subject, target, manifest=project.manifest, **options)

    return call


def client_of(oci: OciServer) -> OciClient:
    return OciClient(reference_of(f"oci://{oci.host}/team/refunds"))


def test_a_version_is_pushed_with_its_entrys_bytes_and_used_from_there(
    project: Project, team: Catalogue, send: Push, oci: OciServer
) -> None:
    done = send()
    client = client_of(oci)
    manifest = client.manifest("2.1.0")
    assert done.pinned == f"oci://{oci.host}/team/refunds@{manifest.digest}"
    entry, raw = read_adapter(manifest, client)
    assert raw == team.entry("refunds", "2.1.0").raw
    assert (entry.name, done.new, done.signatures) == ("refunds", True, 0)
    before = adapterdock.lock(project.manifest).adapters["tone"]
    project.write({"tone": done.pinned})
    assert adapterdock.lock(project.manifest).adapters["tone"].digest == before.digest


def test_pushing_again_sends_no_content(send: Push, oci: OciServer) -> None:
    first = send()
    oci.requests.clear()
    again = send()
    assert (again.pinned, again.new) == (first.pinned, False)
    assert oci.count("POST", "blobs/uploads") == 0


def test_a_push_that_broke_off_is_continued(send: Push, oci: OciServer) -> None:
    oci.status["PUT manifests"] = [400]
    with pytest.raises(SourceError) as caught:
        send()
    assert caught.value.code == "AD892"
    assert not oci.manifests
    oci.requests.clear()
    assert send().new
    assert oci.count("POST", "blobs/uploads") == 0


def test_every_selector_names_what_is_pushed(team: Catalogue, send: Push) -> None:
    assert promote(team, "refunds", "2.1.0", "prod") is not None
    digest = team.entry("refunds", "2.1.0").digest
    pinned = {send(f"team/refunds@{text}", ":x").pinned for text in ("^2", "prod", digest)}
    assert pinned == {send().pinned}


def test_an_artifact_without_a_tag_is_found_by_its_digest(send: Push, oci: OciServer) -> None:
    done = send(tag="")
    assert client_of(oci).manifest(done.digest).digest == done.digest
    assert {tag for _, tag in oci.manifests} == {done.digest}


def test_a_tag_of_a_version_never_moves_and_another_one_does(
    project: Project, send: Push, oci: OciServer
) -> None:
    project.adapter("tone", seed=4)
    publish(project.folder / "tone", "team/refunds@2.2.0", manifest=project.manifest)
    first, _ = send(tag=":prod"), send()
    with pytest.raises(IntegrityError) as caught:
        send("team/refunds@2.2.0", ":2.1.0")
    assert caught.value.code == "AD864"
    assert client_of(oci).manifest("2.1.0").digest == first.digest
    moved = send("team/refunds@2.2.0", ":prod")
    assert client_of(oci).manifest("prod").digest == moved.digest != first.digest


def test_a_dry_run_checks_and_sends_nothing(send: Push, oci: OciServer, tmp_path: Path) -> None:
    planned = send(dry_run=True, store=Store(tmp_path / "store"))
    assert not oci.blobs
    assert not oci.manifests
    assert not (tmp_path / "store").exists()
    assert send() == planned


def signature(team: Catalogue) -> Envelope:
    """One by a new key."""
    path = entry_file("refunds", "2.1.0")
    digest = team.entry("refunds", "2.1.0").digest
    return sign(SignedFile(Kind.ENTRY, team.id, path, digest), make_signer())


def test_signatures_go_along_and_others_stay(team: Catalogue, send: Push, oci: OciServer) -> None:
    folder = signatures_folder("refunds", "2.1.0")
    one = signature(team)
    add_signature(team.storage, folder, one)
    done = send()
    assert done.signatures == 1
    client = client_of(oci)

    def pushed() -> set[bytes]:
        found = client.signatures(done.digest)
        assert found is not None
        return {*read_signatures(found, done.digest, client)}

    assert pushed() == {one.raw}
    (path,) = team.storage.find(folder)
    team.storage.remove(path)
    two = signature(team)
    add_signature(team.storage, folder, two)
    assert send().digest == done.digest
    assert pushed() == {one.raw, two.raw}


def test_a_changed_content_of_the_registry_is_not_pushed(
    project: Project, team: Catalogue, send: Push, oci: OciServer, tmp_path: Path
) -> None:
    entry = team.entry("refunds", "2.1.0").entry
    weights = next(file for file in entry.files if file.role == "weights")
    swap_bytes(project.folder / "registry" / blob_file(weights.sha256))
    with pytest.raises(IntegrityError):
        send(store=Store(tmp_path / "store"))
    assert not oci.manifests


def test_a_folder_is_validated_and_pushed_once(
    project: Project, send: Push, oci: OciServer
) -> None:
    first = send(project.folder / "tone")
    again = send(str(project.folder / "tone"))
    assert (first.new, again.new, again.pinned) == (True, False, first.pinned)
    client = client_of(oci)
    entry, raw = read_adapter(client.manifest("2.1.0"), client)
    assert (entry.name, entry.version) == ("team/refunds", "2.1.0")
    assert str(project.folder).encode() not in raw
    project.adapter("tone", seed=9)
    with pytest.raises(IntegrityError):
        send(project.folder / "tone")
    project.adapter("tone", modules={"model.layers.0.self_attn.q_proj": (7, 9)})
    with pytest.raises(FitError):
        send(project.folder / "tone", ":2.2.0")
    assert ("team/refunds", "2.2.0") not in oci.manifests


@pytest.mark.parametrize(
    ("subject", "tag", "kind"),
    [
        ("team/refunds", ":1", UsageError),
        ("refunds@2.1.0", ":1", UsageError),
        ("other/refunds@2.1.0", ":1", UsageError),
        ("team/refunds@9.9.9", ":1", SourceError),
        ("team/refunds@2.1.0", "@sha256:" + "0" * 64, SourceError),
        ("team/refunds@2.1.0", ":a+b", SourceError),
        ("./tone", ":prod", UsageError),
        ("./tone", "", UsageError),
    ],
)
def test_what_cannot_be_pushed_is_a_finding(
    project: Project,
    send: Push,
    oci: OciServer,
    monkeypatch: pytest.MonkeyPatch,
    subject: str,
    tag: str,
    kind: type[AdapterdockError],
) -> None:
    monkeypatch.chdir(project.folder)
    with pytest.raises(kind):
        send(subject, tag)
    assert not oci.blobs


def test_offline_nothing_is_pushed(send: Push, oci: OciServer) -> None:
    with pytest.raises(OfflineError):
        send(offline=True)
    assert not oci.requests


def test_a_login_is_needed_where_the_registry_asks(
    send: Push, oci: OciServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    oci.auth = "bearer"
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(SourceError) as caught:
        send()
    assert "No credentials" in str(caught.value)
    login = {"username": oci.user[0], "password": oci.user[1]}
    (tmp_path / "config.json").write_text(json.dumps({"auths": {oci.host: login}}))
    assert send().new
