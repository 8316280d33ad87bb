"""``load_adapter`` from an OCI registry or an archive, without a manifest that names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AdapterdockError, IntegrityError, SourceError
from adapterdock.registry.oci.artifact import Artifact
from adapterdock.registry.oci.client import OciClient, reference_of
from adapterdock.registry.oci.layout import write_layout
from adapterdock.registry.oci.setup_artifact import Content, pack_files
from support.near import close
from support.oci_server import OciServer
from support.peft_adapters import Saved, logits
from support.project import swap_bytes
from support.shelf import Shelf, files_of


def artifact(saved: Saved) -> Artifact:
    return pack_files({path: Content.of(raw) for path, raw in files_of(saved.folder).items()})


def test_a_tag_of_an_oci_registry_is_loaded(shelf: Shelf, oci: OciServer) -> None:
    made = artifact(shelf.one)
    client = OciClient(reference_of(f"oci://{oci.host}/team/tone"))
    client.push(made, "prod")
    model = AdaptedModel(shelf.model())
    model.load_adapter(f"oci://{oci.host}/team/tone:prod", "tone")
    assert close(logits(model, adapter="tone"), shelf.one.answer)
    client.push(artifact(shelf.two), "prod")
    model.load_adapter(f"oci://{oci.host}/team/tone@{made.manifest.digest}", "again")
    assert close(logits(model, adapter="again"), shelf.one.answer)
    with pytest.raises(SourceError) as caught:
        model.load_adapter(f"oci://{oci.host}/team/tone:nothing", "other")
    assert caught.value.code == "AD201"
    for layer in made.manifest.layers:
        oci.blobs[layer.digest] = bytes(layer.size)
    with pytest.raises(AdapterdockError):
        model.load_adapter(f"oci://{oci.host}/team/tone@{made.manifest.digest}", "third")
    assert {*model.adapters} == {"tone", "again"}


def test_an_archive_in_the_current_folder_is_loaded(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_layout(tmp_path / "two.tar", {"a": artifact(shelf.one), "b": artifact(shelf.two)})
    monkeypatch.chdir(tmp_path)
    model = AdaptedModel(shelf.model())
    model.load_adapter("oci-archive:two.tar:b", "tone", offline=True)
    assert close(logits(model, adapter="tone"), shelf.two.answer)
    with pytest.raises(SourceError) as caught:
        model.load_adapter("oci-archive:./two.tar", "other")
    assert caught.value.code == "AD888"
    weights = (shelf.one.folder / "adapter_model.safetensors").read_bytes()
    at = (tmp_path / "two.tar").read_bytes().index(weights)
    swap_bytes(tmp_path / "two.tar", at + len(weights) - 4)
    monkeypatch.setenv("ADAPTERDOCK_CACHE", str(tmp_path / "fresh"))
    with pytest.raises(IntegrityError):
        AdaptedModel(shelf.model()).load_adapter("oci-archive:two.tar:a", "tone")
