"""What docs/serving/ offers to copy: each file is parsed, its parts agree, and each command of ours
in it is one that the command line has."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import typer
import yaml
from adapterdock.cli.main import app
from adapterdock.manifests.manifest import read_manifest
from adapterdock.serving.fleet.address import parse_address
from adapterdock.serving.fleet.answers import STATUS_PATH
from packaging.requirements import Requirement
from support.replicas import ReplicaServer

ROOT = Path(adapterdock.__path__[0])
FOLDER = ROOT / "docs" / "serving" / "kubernetes"
MANIFEST = FOLDER / "adapters.yaml"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path != MANIFEST)
DOCKERFILE = ROOT / "docs" / "serving" / "Dockerfile"
NAMED = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?\Z")


def resources(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def pods(value: Any) -> Iterator[dict[str, Any]]:
    """Every specification of a pod in a resource."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for inner in value.values():
            yield from pods(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pods(inner)


def containers(path: Path) -> Iterator[dict[str, Any]]:
    for resource in resources(path):
        for pod in pods(resource):
            yield from (*pod.get("initContainers", ()), *pod["containers"])


def test_there_is_a_file_for_each_engine() -> None:
    names = {path.stem for path in FILES}
    assert names == {"vllm", "canary", "kserve", "kserve-pvc", "ray", "fleet-status"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_resource_has_a_kind_and_a_name(path: Path) -> None:
    found = resources(path)
    assert found
    for resource in found:
        assert resource["apiVersion"] and resource["kind"]
        assert NAMED.match(resource["metadata"]["name"])
    assert len({(r["kind"], r["metadata"]["name"]) for r in found}) == len(found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_mount_is_of_a_volume_of_its_pod(path: Path) -> None:
    for resource in resources(path):
        for pod in pods(resource):
            volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
            for container in (*pod.get("initContainers", ()), *pod["containers"]):
                for mount in container.get("volumeMounts", ()):
                    assert mount["name"] in volumes
                    assert "subPath" not in mount  # such a file is never updated
            for volume in volumes.values():
                assert volume.get("configMap", {"name": "adapters"}) == {"name": "adapters"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_command_of_ours_is_one(path: Path) -> None:
    for container in containers(path):
        if "/adapterdock:" not in container["image"]:
            continue
        command: Any = typer.main.get_command(app)
        arguments = list(container["args"])
        while hasattr(command, "commands"):
            name = arguments.pop(0)
            command = command.commands[name]
        parsed = command.make_context("x", arguments)
        assert str(parsed.params["manifest"]) == "/manifest/adapters.yaml"
        for address in parsed.params.get("on") or ():
            parse_address(address)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_server_lets_others_load_adapters(path: Path) -> None:
    for container in containers(path):
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in {
            variable["name"] for variable in container.get("env", ())
        }


def test_every_server_of_vllm_has_the_plugin_and_its_manifest() -> None:
    servers = [c for path in FILES for c in containers(path) if "vllm-adapterdock" in c["image"]]
    assert len(servers) == 2
    for server in servers:
        variables = {variable["name"]: variable.get("value") for variable in server["env"]}
        assert variables["VLLM_PLUGINS"] == "adapterdock"
        assert variables["ADAPTERDOCK_MANIFEST"] == "/manifest/adapters.yaml"
        mounted = {mount["mountPath"] for mount in server["volumeMounts"]}
        assert {"/manifest", "/cache"} <= mounted
        text = json.dumps(server)
        assert "--enable-lora" in text and "--max-lora-rank" in text


@pytest.mark.parametrize("stem", ["vllm", "kserve"])
def test_adapters_are_pulled_into_the_servers_cache_before_it_starts(stem: str) -> None:
    found = [pod for one in resources(FOLDER / f"{stem}.yaml") for pod in pods(one)]
    (pod,) = [pod for pod in found if "initContainers" in pod]
    (pull,), (server,) = pod["initContainers"], pod["containers"]
    assert pull["args"][:2] == ["pull", "--frozen"]
    caches = []
    for container in (pull, server):
        places = {one["name"]: one.get("value") for one in container["env"]}
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        caches.append((places["ADAPTERDOCK_CACHE"], mounts["/cache"], mounts["/manifest"]))
    assert caches[0] == caches[1]
    assert caches[0][0].startswith("/cache/")


def test_the_model_that_vllm_serves_is_the_base_of_the_manifest() -> None:
    model = str(read_manifest(MANIFEST).manifest.base.model)
    deployment = resources(FOLDER / "vllm.yaml")[0]
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    options = dict(text.removeprefix("--").split("=", 1) for text in server["args"] if "=" in text)
    assert model == f"hf://{options['model']}@{options['revision']}"


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe"])
@pytest.mark.parametrize(
    ("answer", "key", "ready"),
    [({}, "k-1", True), ({}, "k-2", False), (503, "k-1", False), (404, "k-1", False)],
)
def test_a_pod_is_ready_when_our_route_answers(
    probe: str, answer: Any, key: str, ready: bool, replica: Callable[..., ReplicaServer]
) -> None:
    server = replica()
    server.answers[STATUS_PATH] = answer
    server.key = "k-1"
    deployment = resources(FOLDER / "vllm.yaml")[0]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    python, *arguments = container[probe]["exec"]["command"]
    assert python == "python3"
    arguments[-1] = arguments[-1].replace("http://127.0.0.1:8000", server.url)
    environment = {**os.environ, "VLLM_API_KEY": key, "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True)
    assert (done.returncode == 0) is ready
    assert server.requests[0][1] == STATUS_PATH


def test_services_select_the_pods_and_the_job_asks_all_of_them() -> None:
    deployment, *services = resources(FOLDER / "vllm.yaml")
    template = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    for service in services:
        assert service["spec"]["selector"] == template["metadata"]["labels"]
    named = {service["metadata"]["name"]: service["spec"] for service in services}
    (status,) = containers(FOLDER / "fleet-status.yaml")
    (address,) = [parse_address(a[5:]) for a in status["args"] if a.startswith("--on=")]
    assert address.every
    headless = named[address.host]
    assert (headless["clusterIP"], headless["ports"][0]["port"]) == ("None", address.port)
    assert headless["publishNotReadyAddresses"] is True


def test_the_canary_splits_between_names_of_the_manifest() -> None:
    adapters = read_manifest(MANIFEST).manifest.adapters
    pool, rewrite = resources(FOLDER / "canary.yaml")
    assert rewrite["spec"]["poolRef"]["name"] == pool["metadata"]["name"]
    assert rewrite["spec"]["poolRef"]["kind"] == pool["kind"]
    (rule,) = rewrite["spec"]["rules"]
    assert {match["model"]["value"] for match in rule["matches"]} <= set(adapters)
    assert {target["modelRewrite"] for target in rule["targets"]} <= set(adapters)
    assert sum(target["weight"] for target in rule["targets"]) == 100
    deployment = resources(FOLDER / "vllm.yaml")[0]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert pool["spec"]["selector"]["matchLabels"] == labels


def test_the_application_of_ray_is_a_configuration_of_ray_serve() -> None:
    (service,) = resources(FOLDER / "ray.yaml")
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    assert application["import_path"] == "adapterdock.serving.ray:app"
    assert application["args"] == {"manifest": "/manifest/adapters.yaml"}
    version = service["spec"]["rayClusterConfig"]["rayVersion"]
    images = {container["image"] for container in containers(FOLDER / "ray.yaml")}
    assert images == {f"registry.example.com/ray-adapterdock:{version}"}
    assert f"rayproject/ray:{version}-" in DOCKERFILE.read_text(encoding="utf-8")


def test_kserve_loads_what_was_exported() -> None:
    claim, job, service = resources(FOLDER / "kserve-pvc.yaml")
    (export,) = job["spec"]["template"]["spec"]["containers"]
    out = Path(export["args"][export["args"].index("--out") + 1])
    for adapter in service["spec"]["model"]["lora"]["adapters"]:
        folder = f"{out.relative_to('/adapters')}/{adapter['name']}"
        assert adapter["uri"] == f"pvc://{claim['metadata']['name']}/{folder}"
        assert adapter["name"] in read_manifest(MANIFEST).manifest.adapters


# -- the images --------------------------------------------------------------------------------

ADDED = 60_000_000
"""Bytes that the validate image may add to its Python base."""
COMPILED = 8_000_000
"""Of them, for the compiled modules of what the commands import."""


def needed(name: str, found: dict[str, int]) -> None:
    """Add the size of a distribution, and of all that it needs, to ``found``."""
    key = name.lower().replace("_", "-")
    if key in found:
        return
    made = distribution(name)
    files = [f for f in made.files or () if "__pycache__" not in f.parts]
    sizes = (path.stat().st_size for f in files if (path := Path(str(f.locate()))).is_file())
    found[key] = sum(-(-size // 4096) * 4096 for size in sizes)  # as a disk counts
    for text in made.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed(requirement.name, found)


def test_the_validate_image_adds_at_most_60_mb_to_its_base() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = re.findall(
        r'^    "([^"]+)"', text.split("dependencies = [")[1].split("]\n")[0], re.M
    )
    sizes: dict[str, int] = {}
    for line in declared:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed(requirement.name, sizes)
    rooms = ("cli", "loader", "manifests", "registry", "serving")
    own = sum(
        -(-path.stat().st_size // 4096) * 4096
        for room in rooms
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".py", ".json", ".md") and "quickstart" not in path.parts
    )
    assert {"pydantic", "huggingface-hub", "typer"} <= set(sizes)
    assert not {"torch", "numpy", "transformers"} & set(sizes)
    total = sum(sizes.values()) + own + COMPILED
    assert total < ADDED, sorted(sizes.items(), key=lambda item: -item[1])[:8]


def test_the_dockerfile_has_the_images_that_the_files_name() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", text, re.M))
    assert {"validate", "vllm", "ray"} <= stages
    images = {c["image"].rpartition("/")[2].partition(":")[0] for f in FILES for c in containers(f)}
    built = set(re.findall(r"docker build .* -t (\S+) \.", text))
    assert images == built
    copied = set(re.findall(r"--from=(\w+)", text))
    assert copied <= stages


def test_the_build_context_has_what_the_package_is_built_of() -> None:
    ignore = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    kept = {line[1:] for line in ignore.splitlines() if line.startswith("!")}
    assert all((ROOT / name).exists() for name in kept)
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = re.findall(r'^    "adapterdock\.(\w+)"', text, re.M)
    assert {*packages, "pyproject.toml", "README.md", "LICENSE", "constraints.txt"} <= kept
