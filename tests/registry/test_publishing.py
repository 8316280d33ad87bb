"""Publishing a folder: what is refused, and what an entry says."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import (
    FitError,
    IntegrityError,
    SourceError,
    UsageError,
)
from adapterdock.registry.catalogue.catalogue import Catalogue
from adapterdock.registry.catalogue.publish import entry_bytes
from adapterdock.registry.publishing import publish
from support.builders import LLAMA_QV, lora_config, lora_tensors, write_adapter
from support.hub_server import HubServer
from support.project import NAME, Project, files_of
from support.published import registry


@pytest.fixture
def team(project: Project) -> Catalogue:
    project.base()
    project.adapter("tone")
    project.write({"tone": "./tone"}, registries={"team": "./registry"})
    return registry(project.folder / "registry")


def run(project: Project, reference: str = "team/refunds@1.0.0", **fields: Any) -> Any:
    options: dict[str, Any] = {
        "folder": project.folder / "tone",
        "manifest": project.manifest,
        **fields,
    }
    return publish(options.pop("folder"), reference, **options)


def test_an_adapter_is_published_with_its_base_and_both_digests(
    project: Project, team: Catalogue
) -> None:
    (project.folder / "tone/README.md").write_text("# Tone")
    (project.folder / "tone/optimizer.pt").write_bytes(b"state")
    done = run(project, licence="MIT", metrics={"accuracy": 0.9})
    entry = done.resolved.entry
    assert done.new
    assert len(done.uploaded) == 3
    assert [file.path for file in entry.files] == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert entry.digest != entry.folder
    assert entry.base.aliases == (NAME,)
    assert entry.base.fingerprints[0].weights is not None
    assert (entry.licence, entry.metrics) == ("MIT", {"accuracy": 0.9})
    assert str(project.folder).encode() not in entry_bytes(entry)
    assert team.listing("refunds").versions
    assert not run(project, licence="MIT", metrics={"accuracy": 0.9}).new
    with pytest.raises(IntegrityError):
        run(project)


def test_the_entry_says_the_licence_of_the_base_and_whether_it_is_gated(
    project: Project, team: Catalogue, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    base = files_of(project.folder / "base")
    hub.commit("org/base", {**base, "README.md": b"---\nlicense: llama3\n---\n"})
    hub.gated.add("org/base")
    hub.tokens.add("hf_good")
    told = run(project, base="hf://org/base").resolved.entry.base
    assert (told.source, told.licence, told.gated) == ("hf://org/base", "llama3", True)
    hub.gated.clear()  # the base's owner may change that; the adapter is the same
    assert not run(project, base="hf://org/base").new
    there = run(project, "team/refunds@2.0.0").resolved.entry.base
    assert (there.licence, there.gated) == (None, None)


def test_its_digest_is_the_one_that_a_lock_has(project: Project, team: Catalogue) -> None:
    from adapterdock.registry.lock import lock

    assert run(project).resolved.entry.digest == lock(project.manifest).adapters["tone"].digest


def test_the_base_may_be_named_without_a_manifest(project: Project, team: Catalogue) -> None:
    write_adapter(
        project.folder / "tone", lora_config(base_model_name_or_path=str(project.folder / "base"))
    )
    options: dict[str, Any] = {"manifest": None, "registry": str(project.folder / "registry")}
    done = run(project, **options)
    assert done.resolved.entry.base.source is None
    assert str(project.folder).encode() not in entry_bytes(done.resolved.entry)
    assert not run(project, base=str(project.folder / "base"), **options).new


def test_a_dry_run_checks_everything_and_writes_nothing(project: Project, team: Catalogue) -> None:
    assert run(project, dry_run=True) is None
    assert not team.storage.find("adapters")
    assert not team.storage.find("blobs")
    run(project)
    assert run(project, dry_run=True).new is False


def refused(project: Project, team: Catalogue, kind: type[Exception], **fields: Any) -> str:
    with pytest.raises(kind) as caught:
        run(project, **fields)
    assert not team.storage.find("adapters")
    assert not team.storage.find("blobs")
    return str(caught.value)


def test_an_adapter_that_does_not_fit_is_not_published(project: Project, team: Catalogue) -> None:
    project.adapter("tone", modules={"model.layers.0.self_attn.q_proj": (7, 9)})
    refused(project, team, FitError)


def test_what_is_wrong_with_an_adapter_is_reported_in_its_folder(
    project: Project, team: Catalogue
) -> None:
    folder = project.adapter("wide", modules={"model.layers.0.self_attn.q_proj": (7, 9)})
    with pytest.raises(FitError) as caught:
        run(project, folder=folder)
    where = caught.value.findings[0].where
    assert (where.file, where.path[:2], where.line) == (str(folder), ("adapters", "wide"), None)
    assert "'adapter'" not in str(caught.value)


def test_an_adapter_whose_fit_is_unchecked_is_not_published(
    project: Project, team: Catalogue
) -> None:
    write_adapter(project.folder / "tone", lora_config(base_model_name_or_path="other/base"))
    refused(project, team, FitError)


def test_weights_that_are_not_finite_are_not_published(project: Project, team: Catalogue) -> None:
    path = project.folder / "tone/adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + struct.pack("<f", float("nan")))
    assert "AD866" in refused(project, team, FitError)


def test_an_adapter_that_was_never_trained_is_not_published(
    project: Project, team: Catalogue
) -> None:
    tensors = lora_tensors(LLAMA_QV)
    zeros = {
        name: bytes(4 * shape[0] * shape[1])
        for name, (_, shape) in tensors.items()
        if "lora_B" in name
    }
    config = lora_config(base_model_name_or_path=NAME)
    write_adapter(project.folder / "tone", config, tensors, overrides=zeros)
    assert "AD866" in refused(project, team, FitError)


@pytest.mark.parametrize(
    "text",
    ["refunds@1.0.0", "team/refunds", "team/refunds@^1", "team/Refunds@1.0.0", "team/r@1.0.0+a"],
)
def test_a_reference_that_names_no_version_is_refused(
    project: Project, team: Catalogue, text: str
) -> None:
    with pytest.raises(UsageError) as caught:
        run(project, text)
    assert caught.value.code == "AD865"


def test_an_unknown_registry_and_a_folder_without_one_are_refused(
    project: Project, team: Catalogue, tmp_path: Path
) -> None:
    with pytest.raises(UsageError):
        run(project, "other/refunds@1.0.0")
    with pytest.raises(SourceError) as caught:
        run(project, registry=str(tmp_path / "nothing"))
    assert caught.value.code == "AD860"
