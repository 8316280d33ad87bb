"""A set-up moved by a bundle: in an empty home without a network, the same bytes, the same
fingerprint and the same logits."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import adapterdock
import pytest
from adapterdock.registry.bundling import bundle
from adapterdock.registry.publishing import publish
from adapterdock.registry.pushing import push
from adapterdock.registry.unbundling import unpack
from support import terminal
from support.hub_server import HubServer
from support.oci_server import OciServer
from support.peft_adapters import ids, logits
from support.published import registry
from support.shelf import Shelf, files_of, write_manifest

THERE = """
import hashlib, json, sys
import adapterdock, torch
manifest, archive = sys.argv[1:]
pulled = adapterdock.pull(manifest, archive=archive or None, frozen=True, offline=True)
model = adapterdock.load(manifest, frozen=True, offline=True)
ids = torch.tensor(json.loads(sys.stdin.read()))
answers = {}
for name in ("one", "two", "headed"):
    with torch.no_grad(), model.using(name):
        answers[name] = hashlib.sha256(model(input_ids=ids).logits.numpy().tobytes()).hexdigest()
files = {n: {p: f.fact.sha256 for p, f in fs.items()} for n, fs in pulled.adapters.items()}
files["base"] = {p: f.fact.sha256 for p, f in pulled.base.items()}
found = adapterdock.validate(manifest, frozen=True, offline=True)
print(json.dumps({"answers": answers, "files": files, "lock": pulled.lock.model_dump(mode="json"),
                  "status": found.exit_status}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("road", ["store", "registry in the archive"])
def test_the_same_answers_after_a_move(
    shelf: Shelf, tmp_path: Path, hub: HubServer, oci: OciServer, road: str
) -> None:
    """Base on the Hub, adapters in a registry, in an OCI registry and in a folder."""
    hub.commit("org/base", files_of(shelf.base))
    here = tmp_path / "here"
    registry(here / "registry")
    keys: dict[str, Any] = {
        "base": {"model": "hf://org/base"},
        "registries": {"team": "./registry"},
    }
    manifest = write_manifest(here, **keys)
    publish(shelf.one.folder, "team/one@1.0.0", manifest=manifest, base=str(shelf.base))
    pushed = push(
        shelf.two.folder, f"oci://{oci.host}/two:1.0.0", manifest=manifest, base=str(shelf.base)
    )
    shutil.copytree(shelf.headed.folder, here / "headed")
    write_manifest(
        here,
        adapters={
            "one": {"source": "registry://team/one@^1"},
            "two": {"source": pushed.pinned},
            "headed": {"source": "./headed"},
        },
        **keys,
    )
    lock = adapterdock.lock(manifest)
    model = adapterdock.load(manifest, frozen=True)
    expected: dict[str, str] = {}
    for name in ("one", "two", "headed"):
        with model.using(name):
            found = logits(model, {"input_ids": ids()})
        expected[name] = hashlib.sha256(found.numpy().tobytes()).hexdigest()
    assert len({*expected.values()}) == 3
    archive = tmp_path / "out.oci.tar"
    bundle(manifest, archive, with_base=True)
    there = unpack(archive, tmp_path / "there").manifest
    shutil.rmtree(here)
    if road != "store":
        text = there.read_text().replace("./registry", f"oci-archive:{archive}")
        there.write_text(text)
    asked = len(hub.requests) + len(oci.requests)
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", THERE, str(there), str(archive)],
        input=json.dumps(ids().tolist()),
        env=terminal.environment(
            {
                "HOME": str(home),
                "ADAPTERDOCK_CACHE": str(home / "cache"),
                "HF_HOME": str(home / "hf"),
            }
        ),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(hub.requests) + len(oci.requests) == asked
    assert found["answers"] == expected
    assert found["status"] == 0
    assert found["lock"] == lock.model_dump(mode="json")
    assert {
        name: {path: file["sha256"] for path, file in entry["files"].items()}
        for name, entry in {**found["lock"]["adapters"], "base": found["lock"]["base"]}.items()
    } == found["files"]
