"""The client of OCI registries against the reference implementation (Debian's docker-registry)."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import AdapterdockError, IntegrityError, SourceError
from adapterdock.manifests.language.oci_reference import OciReference
from adapterdock.registry.oci import http as oci_http
from adapterdock.registry.oci.artifact import (
    pack_adapter,
    pack_signatures,
    read_adapter,
    read_signatures,
    unpack_files,
)
from adapterdock.registry.oci.client import OciClient
from adapterdock.registry.oci.login import Login
from support.docker_registry import USER, DockerRegistry
from support.oci_adapters import CONTENTS, artifact, entry_bytes

pytestmark = pytest.mark.registries

REPOSITORY = "team/refunds"
ME = Login(*USER)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci_http, "FIRST_WAIT", 0.01)


def client(registry: DockerRegistry, login: Login | None = ME) -> OciClient:
    return OciClient(OciReference(registry.host, REPOSITORY), login)


def test_an_adapter_is_pushed_and_pulled_unchanged(
    docker_registry: DockerRegistry, tmp_path: Path
) -> None:
    files: dict[str, bytes | Path] = {**CONTENTS, "adapter_model.safetensors": tmp_path / "weights"}
    (tmp_path / "weights").write_bytes(CONTENTS["adapter_model.safetensors"])
    packed = pack_adapter(entry_bytes(), files)
    digest = client(docker_registry).push(packed, "2.1.0")
    assert digest == packed.manifest.digest
    for name in ("2.1.0", digest):
        reader = client(docker_registry)
        manifest = reader.manifest(name)
        assert manifest == packed.manifest
        entry, raw = read_adapter(manifest, reader)
        written = unpack_files(entry, reader, tmp_path / name.replace(":", "-"))
        assert raw == entry_bytes()
        assert {path: file.read_bytes() for path, file in written.items()} == CONTENTS


def test_what_is_pushed_again_is_the_same_artifact(docker_registry: DockerRegistry) -> None:
    first = client(docker_registry).push(artifact(), "2.1.0")
    assert client(docker_registry).push(artifact(), "2.1.0") == first
    other = client(docker_registry).push(artifact(description="other"), "2.1.0")
    assert client(docker_registry).manifest("2.1.0").digest == other  # tags move
    assert client(docker_registry).manifest(first).digest == first


def test_a_prerelease_is_a_tag_and_a_push_without_a_tag_has_only_a_digest(
    docker_registry: DockerRegistry,
) -> None:
    digest = client(docker_registry).push(artifact(), "2.1.0-rc.1")
    assert client(docker_registry).manifest("2.1.0-rc.1").digest == digest
    untagged = client(docker_registry).push(artifact(description="untagged"), None)
    assert client(docker_registry).manifest(untagged).digest == untagged


def test_signatures_are_found_by_the_digest_that_they_sign(docker_registry: DockerRegistry) -> None:
    packed = artifact()
    writer = client(docker_registry)
    digest = writer.push(packed, "2.1.0")
    assert writer.signatures(digest) is None
    writer.push(pack_signatures(packed.manifest, [b"one", b"two"]), digest.replace(":", "-"))
    found = client(docker_registry).signatures(digest)
    assert found is not None
    reader = client(docker_registry)
    assert sorted(read_signatures(found, digest, reader)) == [b"one", b"two"]


def test_a_content_that_was_changed_on_the_server_is_refused(
    docker_registry: DockerRegistry, tmp_path: Path
) -> None:
    packed = artifact()
    client(docker_registry).push(packed, "2.1.0")
    layer = next(one for one in packed.manifest.layers if one.size == 1000)
    docker_registry.blob_file(layer.digest).write_bytes(b"x" + b"w" * 999)
    with pytest.raises(IntegrityError):
        client(docker_registry).copy(layer, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_what_is_missing_is_named(docker_registry: DockerRegistry, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        client(docker_registry).manifest("9.9.9")
    assert caught.value.code == "AD201"
    packed = artifact()
    client(docker_registry).push(packed, "2.1.0")
    layer = next(one for one in packed.manifest.layers if one.size == 1000)
    docker_registry.blob_file(layer.digest).unlink()
    with pytest.raises(AdapterdockError):
        client(docker_registry).copy(layer, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize("docker_registry", ["with a password"], indirect=True)
@pytest.mark.parametrize("login", [None, Login("me", "wrong")])
def test_a_wrong_login_is_refused_and_not_shown(
    docker_registry: DockerRegistry, login: Login | None
) -> None:
    for act in (
        lambda: client(docker_registry, login).manifest("2.1.0"),
        lambda: client(docker_registry, login).push(artifact(), "2.1.0"),
    ):
        with pytest.raises(SourceError) as caught:
            act()
        assert caught.value.code in ("AD220", "AD221")
        assert "wrong" not in str(caught.value)
