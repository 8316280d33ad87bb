"""A set-up moved by other people's tools: ``skopeo``, and the reference registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import adapterdock
import pytest
from adapterdock.registry.bundling import bundle
from adapterdock.registry.oci.layout import OciLayout
from adapterdock.registry.publishing import publish
from adapterdock.registry.pushing import push
from adapterdock.registry.store.store import Store
from adapterdock.registry.unbundling import unpack
from support.docker_registry import USER, DockerRegistry
from support.project import Project, files_of
from support.published import registry

pytestmark = pytest.mark.registries

MISSING = "skopeo is missing (apt-get install skopeo, or ADAPTERDOCK_SKOPEO=PROGRAM)"


@pytest.fixture
def team(
    project: Project,
    docker_registry: DockerRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> Project:
    """A set-up with an adapter of a registry and a local one; docker's login is there."""
    project.base()
    registry(project.folder / "registry")
    project.write({}, registries={"team": "./registry"})
    publish(project.adapter("made"), "team/refunds@2.1.0", manifest=project.manifest)
    project.adapter("legal", seed=3)
    adapters = {"r": "registry://team/refunds@^2", "l": "./legal"}
    project.write(adapters, registries={"team": "./registry"})
    adapterdock.lock(project.manifest)
    login = {"username": USER[0], "password": USER[1]}
    (project.folder.parent / "config.json").write_text(
        json.dumps({"auths": {docker_registry.host: login}})
    )
    monkeypatch.setenv("DOCKER_CONFIG", str(project.folder.parent))
    return project


def skopeo(*arguments: str) -> None:
    program = os.environ.get("ADAPTERDOCK_SKOPEO") or shutil.which("skopeo")
    if program is None:
        pytest.fail(MISSING)
    command = [program, "--insecure-policy", "copy", "--quiet"]
    user = ":".join(USER)
    flags = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    logins = [f"--src-creds={user}", f"--dest-creds={user}"]
    done = subprocess.run(
        [*command, *flags, *logins, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_adapter_is_pushed_and_used_from_the_reference_registry(
    team: Project, docker_registry: DockerRegistry
) -> None:
    target = f"oci://{docker_registry.host}/team/refunds:2.1.0"
    first = push("team/refunds@2.1.0", target, manifest=team.manifest)
    again = push("team/refunds@2.1.0", target, manifest=team.manifest)
    assert (first.new, again.new, again.pinned) == (True, False, first.pinned)
    before = adapterdock.lock(team.manifest).adapters["r"]
    team.write({"r": target})
    store = Store(team.folder.parent / "fresh")
    after = adapterdock.lock(team.manifest, store=store).adapters["r"]
    assert after.digest == before.digest
    assert f"{target}@{first.digest}" == after.source


def test_skopeo_copies_each_artifact_of_a_bundle_unchanged(
    team: Project, docker_registry: DockerRegistry, tmp_path: Path
) -> None:
    archive, back = tmp_path / "out.oci.tar", tmp_path / "back.oci.tar"
    bundle(team.manifest, archive, with_base=True)
    with OciLayout(archive) as layout:
        names = {name: one.digest for name, one in layout.names.items()}
    assert {*names} == {"setup", "registries/team", "team/refunds:2.1.0", "adapters/l"}
    for name, digest in names.items():
        there = f"docker://{docker_registry.host}/{name.replace(':', '-')}:1"
        skopeo(f"oci-archive:{archive}:{name}", there)
        back.unlink(missing_ok=True)
        skopeo(there, f"oci-archive:{back}:{name}")
        with OciLayout(back) as layout:
            assert layout.find(name).digest == digest
            layout.verify()
        if name == "setup":
            shutil.copy(back, tmp_path / "setup.oci.tar")
    setup = tmp_path / "setup.oci.tar"
    there = unpack(setup, tmp_path / "there")
    assert files_of(there.folder) == files_of(unpack(archive, tmp_path / "expected").folder)
    store = Store(tmp_path / "fresh")
    pulled = adapterdock.pull(there.manifest, archive=setup, frozen=True, store=store)
    assert set(pulled.adapters) == {"r", "l"}
