"""Sources `oci://` and `oci-archive:`: locked by digest, every byte verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import adapterdock
import pytest
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    FitError,
    IntegrityError,
    OfflineError,
    PolicyError,
    SourceError,
)
from adapterdock.manifests.language.source import Source
from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.oci.artifact import Artifact
from adapterdock.registry.oci.client import OciClient, reference_of
from adapterdock.registry.oci.folder import ArchiveFolder, OciFolder, RegistryFolder
from adapterdock.registry.oci.layout import write_layout
from adapterdock.registry.oci.manifest import (
    ADAPTER_TYPE,
    ENTRY_TYPE,
    Descriptor,
    make_manifest,
)
from adapterdock.registry.oci.setup_artifact import Content, pack_files
from adapterdock.registry.records.series import canonical
from adapterdock.registry.sources.request import SourceRequest
from support.oci_server import OciServer
from support.project import Project, files_of
from support.published import entry

Road = Callable[[Artifact, str], str]
"""Puts an artifact somewhere under a name, and returns its source."""


@pytest.fixture(params=["oci", "oci-archive"])
def road(request: pytest.FixtureRequest, oci: OciServer, project: Project) -> Road:
    def push(artifact: Artifact, name: str) -> str:
        reference = reference_of(f"oci://{oci.host}/team/refunds")
        OciClient(reference).push(artifact, name)
        return f"oci://{oci.host}/team/refunds:{name}"

    def write(artifact: Artifact, name: str) -> str:
        write_layout(project.folder / "out.oci.tar", {name: artifact})
        return f"oci-archive:./out.oci.tar:{name}"

    return push if request.param == "oci" else write


def adapter_artifact(folder: Path) -> Artifact:
    """That of a published adapter with these files."""
    files = files_of(folder)
    rows = [
        {
            "path": path,
            "size": len(raw),
            "sha256": sha256_bytes(raw),
            "role": "weights" if path.endswith(".safetensors") else "config",
        }
        for path, raw in files.items()
    ]
    data = {**entry("2.1.0").model_dump(mode="json", exclude_none=True), "files": rows}
    raw = canonical(data)
    manifest = make_manifest(
        ADAPTER_TYPE,
        Descriptor.of(ENTRY_TYPE, raw),
        [Descriptor.of("x/y", content, path) for path, content in files.items()],
    )
    contents = {sha256_bytes(content): content for content in files.values()}
    return Artifact(manifest, {**contents, sha256_bytes(raw): raw})


def untyped(folder: Path) -> Artifact:
    return pack_files({path: Content.of(raw) for path, raw in files_of(folder).items()})


@pytest.mark.parametrize("make", [adapter_artifact, untyped])
def test_an_artifact_is_locked_by_digest_and_pulled(
    project: Project, road: Road, make: Callable[[Path], Artifact]
) -> None:
    project.base()
    artifact = make(project.adapter("tone"))
    source = road(artifact, "2.1.0")
    project.write({"tone": source})
    lock = adapterdock.lock(project.manifest)
    locked = lock.adapters["tone"]
    assert locked.revision == artifact.manifest.digest
    assert locked.source == f"{source}@{artifact.manifest.digest}"
    assert locked.files["adapter_model.safetensors"].sha256 is not None
    pulled = adapterdock.pull(project.manifest, frozen=True)
    for path, fetched in pulled.adapters["tone"].items():
        assert fetched.path.read_bytes() == (project.folder / "tone" / path).read_bytes()
    assert adapterdock.validate(project.manifest, frozen=True, offline=True).exit_status == 0


def test_a_tag_that_moves_does_not_move_the_lock(
    project: Project, oci: OciServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.base()
    client = OciClient(reference_of(f"oci://{oci.host}/team/refunds"))
    first = untyped(project.adapter("tone"))
    client.push(first, "prod")
    project.write({"tone": f"oci://{oci.host}/team/refunds:prod"})
    adapterdock.lock(project.manifest)
    second = untyped(project.adapter("tone", seed=5))
    client.push(second, "prod")
    monkeypatch.setenv("ADAPTERDOCK_CACHE", str(project.folder.parent / "fresh"))
    pulled = adapterdock.pull(project.manifest, frozen=True)
    assert pulled.lock.adapters["tone"].revision == first.manifest.digest
    found = pulled.adapters["tone"]["adapter_model.safetensors"].fact.sha256
    assert found in first.contents
    assert adapterdock.lock(project.manifest).adapters["tone"].revision == first.manifest.digest
    moved = adapterdock.lock(project.manifest, upgrade=["tone"])
    assert moved.adapters["tone"].revision == second.manifest.digest


def test_a_digest_in_the_source_is_what_is_read(project: Project, oci: OciServer) -> None:
    project.base()
    client = OciClient(reference_of(f"oci://{oci.host}/team/refunds"))
    first = untyped(project.adapter("tone"))
    client.push(first, "prod")
    project.write({"tone": f"oci://{oci.host}/team/refunds@{first.manifest.digest}"})
    assert adapterdock.lock(project.manifest).adapters["tone"].revision == first.manifest.digest
    project.write({"tone": f"oci://{oci.host}/team/refunds@sha256:{'0' * 64}"})
    with pytest.raises(AdapterdockError):
        adapterdock.lock(project.manifest)


def test_a_part_of_a_file_is_read_by_a_range(project: Project, road: Road, oci: OciServer) -> None:
    artifact = untyped(project.adapter("tone"))
    weights = files_of(project.folder / "tone")["adapter_model.safetensors"]
    source = Source.parse(road(artifact, "prod"))
    folder = opened(source, project)
    before = folder.bytes_read
    assert folder.read("adapter_model.safetensors", 8, 16) == weights[8:24]
    assert folder.bytes_read - before == 16
    assert folder.read("adapter_model.safetensors") == weights
    assert folder.local("adapter_model.safetensors") is None
    oci.ranges = False
    assert folder.read("adapter_model.safetensors", 100) == weights[100:]


def test_a_file_that_is_read_completely_is_verified(project: Project, oci: OciServer) -> None:
    artifact = untyped(project.adapter("tone"))
    OciClient(reference_of(f"oci://{oci.host}/team/refunds")).push(artifact, "prod")
    source = Source.parse(f"oci://{oci.host}/team/refunds:prod")
    folder = opened(source, project)
    config = folder.files()["adapter_config.json"]
    oci.blobs[config.sha256 or ""] = bytes(config.size)
    with pytest.raises(IntegrityError):
        folder.read("adapter_config.json")


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_dockers_login_is_used_by_all_threads_at_once(
    project: Project, oci: OciServer, auth: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.base()
    client = OciClient(reference_of(f"oci://{oci.host}/team/refunds"))
    for number in range(6):
        client.push(untyped(project.adapter("tone", seed=number)), f"v{number}")
    oci.auth = auth
    docker = project.folder / "docker"
    docker.mkdir()
    user, password = oci.user
    (docker / "config.json").write_text(
        json.dumps({"auths": {oci.host: {"username": user, "password": password}}})
    )
    monkeypatch.setenv("DOCKER_CONFIG", str(docker))
    project.write({f"a{n}": f"oci://{oci.host}/team/refunds:v{n}" for n in range(6)})
    adapterdock.lock(project.manifest)
    adapterdock.pull(project.manifest, frozen=True)
    monkeypatch.setenv("ADAPTERDOCK_CACHE", str(project.folder / "fresh"))
    monkeypatch.setenv("DOCKER_CONFIG", str(project.folder))
    with pytest.raises(AdapterdockError) as caught:
        adapterdock.pull(project.manifest, frozen=True)
    assert "No credentials" in str(caught.value)


def opened(source: Source, project: Project) -> OciFolder:
    request = SourceRequest(source, project.folder)
    return ArchiveFolder(request) if source.is_archive else RegistryFolder(request)


def codes_of(error: AdapterdockError) -> set[str]:
    return {finding.code for finding in error.findings}


def image(titles: list[str | None]) -> Artifact:
    made = make_manifest(
        "application/vnd.oci.image.config.v1+json",
        Descriptor.of("application/vnd.oci.image.config.v1+json", b"{}"),
        [Descriptor.of("x/y", b"x", title) for title in titles],
    )
    return Artifact(made, {sha256_bytes(b"{}"): b"{}", sha256_bytes(b"x"): b"x"})


@pytest.mark.parametrize(
    "artifact", [image([None]), image([]), image(["../out"]), image(["/etc/passwd"])]
)
def test_what_is_no_adapter_is_refused_before_a_transfer(
    project: Project, road: Road, artifact: Artifact
) -> None:
    project.base()
    project.write({"tone": road(artifact, "prod")})
    with pytest.raises(AdapterdockError) as caught:
        adapterdock.lock(project.manifest)
    assert codes_of(caught.value) == {"AD889"}


def test_layers_that_are_not_those_of_the_entry_are_refused(project: Project, road: Road) -> None:
    project.base()
    good = adapter_artifact(project.adapter("tone"))
    made = make_manifest(ADAPTER_TYPE, good.manifest.config, good.manifest.layers[:1])
    project.write({"tone": road(Artifact(made, good.contents), "prod")})
    with pytest.raises(AdapterdockError) as caught:
        adapterdock.lock(project.manifest)
    assert codes_of(caught.value) == {"AD889"}


def test_other_bytes_than_a_digest_says_are_refused(project: Project, oci: OciServer) -> None:
    project.base()
    artifact = untyped(project.adapter("tone"))
    client = OciClient(reference_of(f"oci://{oci.host}/team/refunds"))
    client.push(artifact, "prod")
    project.write({"tone": f"oci://{oci.host}/team/refunds:prod"})
    for layer in artifact.manifest.layers:
        raw = oci.blobs[layer.digest]
        oci.blobs[layer.digest] = raw[:-2] + b"\x00" + raw[-1:]
        with pytest.raises(AdapterdockError) as caught:
            adapterdock.lock(project.manifest)
        assert isinstance(caught.value, IntegrityError | FitError | SourceError)
        assert not project.lock_file.exists()
        oci.blobs[layer.digest] = raw
    adapterdock.lock(project.manifest)


def test_a_manifest_with_other_bytes_than_its_digest_is_refused(
    project: Project, oci: OciServer
) -> None:
    project.base()
    artifact = untyped(project.adapter("tone"))
    client = OciClient(reference_of(f"oci://{oci.host}/team/refunds"))
    client.push(artifact, "prod")
    project.write({"tone": f"oci://{oci.host}/team/refunds@{artifact.manifest.digest}"})
    oci.manifests["team/refunds", artifact.manifest.digest] += b" "
    with pytest.raises(AdapterdockError):
        adapterdock.lock(project.manifest)


def test_an_archive_that_was_exchanged_does_not_match_its_lock(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.base()
    out = project.folder / "out.oci.tar"
    write_layout(out, {"tone": untyped(project.adapter("tone"))})
    project.write({"tone": "oci-archive:./out.oci.tar"})
    adapterdock.lock(project.manifest)
    write_layout(out, {"tone": untyped(project.adapter("tone", seed=7))})
    monkeypatch.setenv("ADAPTERDOCK_CACHE", str(project.folder / "fresh"))
    with pytest.raises(AdapterdockError):
        adapterdock.pull(project.manifest)
    out.unlink()
    with pytest.raises(AdapterdockError):
        adapterdock.pull(project.manifest)


def test_an_archive_needs_no_network_and_an_oci_registry_does(project: Project, road: Road) -> None:
    project.base()
    source = road(untyped(project.adapter("tone")), "prod")
    project.write({"tone": source})
    if source.startswith("oci-archive"):
        adapterdock.lock(project.manifest, offline=True)
    else:
        with pytest.raises(OfflineError):
            adapterdock.lock(project.manifest, offline=True)


def test_a_policy_allows_or_forbids_it_like_any_source(
    project: Project, road: Road, tmp_path: Path
) -> None:
    project.base()
    project.write({"tone": road(untyped(project.adapter("tone")), "prod")})
    (tmp_path / "no.yaml").write_text("allow_sources: ['hf://**']\n")
    with pytest.raises(PolicyError):
        adapterdock.lock(project.manifest, policy=tmp_path / "no.yaml")
    (tmp_path / "yes.yaml").write_text("allow_sources: ['oci://127.0.0.1:*', 'oci-archive:*']\n")
    adapterdock.lock(project.manifest, policy=tmp_path / "yes.yaml")


def test_storage_options_are_refused(project: Project, road: Road) -> None:
    project.base()
    source = road(untyped(project.adapter("tone")), "prod")
    project.write({"tone": {"source": source, "storage_options": {"anon": True}}})
    with pytest.raises(AdapterdockError):
        adapterdock.lock(project.manifest)
