"""``model.publish``: what is on the model is published, against its base and with its refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import (
    AttachError,
    FitError,
    IntegrityError,
    PolicyError,
    RoutingError,
    SourceError,
    UsageError,
)
from adapterdock.registry.catalogue.catalogue import Catalogue
from adapterdock.registry.catalogue.publish import entry_bytes
from adapterdock.registry.storages.layout import blob_file
from safetensors.torch import load
from support.near import close
from support.peft_adapters import logits
from support.published import registry
from support.shelf import Shelf, write_manifest


@pytest.fixture
def team(tmp_path: Path) -> Catalogue:
    return registry(tmp_path / "registry")


@pytest.fixture
def model(shelf: Shelf, tmp_path: Path, team: Catalogue) -> AdaptedModel:
    manifest = write_manifest(
        tmp_path,
        base={"model": shelf.base, "aliases": ["org/base"]},
        adapters={
            "one": {"source": shelf.one, "licence": "MIT", "owner": "support", "tags": ["tone"]},
            "two": {"source": shelf.two, "trainable": True},
        },
        registries={"team": "./registry"},
    )
    return adapterdock.load(manifest)


def weights(team: Catalogue, name: str, version: str) -> dict[str, torch.Tensor]:
    entry = team.entry(name, version).entry
    (file,) = [file for file in entry.files if file.role == "weights"]
    return load(team.storage.read(blob_file(file.sha256), file.size))


def test_an_adapter_of_the_model_is_published(model: AdaptedModel, team: Catalogue) -> None:
    done = model.publish("one", "team/refunds@1.0.0", metrics={"accuracy": 0.9})
    assert done is not None and done.new
    entry = done.resolved.entry
    assert (entry.licence, entry.owner, entry.tags) == ("MIT", "support", ("tone",))
    assert entry.metrics == {"accuracy": 0.9}
    assert entry.base.aliases == ("org/base",)
    assert entry.base.source is None, "a local base has no name elsewhere"
    assert entry.base.fingerprints[0].weights is not None
    assert {file.path for file in entry.files} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert b"/tmp" not in entry_bytes(entry)
    again = model.publish("one", "team/refunds@1.0.0", metrics={"accuracy": 0.9})
    assert again is not None and not again.new
    with pytest.raises(IntegrityError, match="AD864"):
        model.publish("one", "team/refunds@1.0.0")


def test_what_is_said_in_the_call_replaces_what_the_manifest_says(
    model: AdaptedModel, team: Catalogue
) -> None:
    done = model.publish("one", "team/refunds@1.0.0", licence="Apache-2.0", tags=[])
    assert done is not None
    assert (done.resolved.entry.licence, done.resolved.entry.tags) == ("Apache-2.0", ())


def test_trained_values_are_published_and_give_the_same_answer(
    model: AdaptedModel, team: Catalogue, shelf: Shelf, tmp_path: Path
) -> None:
    model.set_adapter("two")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
    answer = logits(model)
    done = model.publish("two", "team/refunds@1.0.0")
    assert done is not None
    folder = tmp_path / "again"
    folder.mkdir()
    for file in done.resolved.entry.files:
        (folder / file.path).write_bytes(team.storage.read(blob_file(file.sha256), file.size))
    model.load_adapter(folder, "again")
    model.set_adapter("again")
    assert close(logits(model), answer)


def test_a_disabled_model_publishes_the_same_content(model: AdaptedModel, team: Catalogue) -> None:
    first = model.publish("one", "team/refunds@1.0.0")
    model.disable_adapters()
    again = model.publish("one", "team/refunds@1.0.0")
    assert first is not None and again is not None and not again.new
    assert again.resolved.digest == first.resolved.digest


def test_a_dry_run_writes_nothing(model: AdaptedModel, team: Catalogue) -> None:
    assert model.publish("one", "team/refunds@1.0.0", dry_run=True) is None
    assert not team.storage.find("adapters")


def test_a_version_is_signed_as_it_is_published(
    model: AdaptedModel, team: Catalogue, tmp_path: Path
) -> None:
    from adapterdock.registry.signatures.signer import new_pair

    new_pair(tmp_path / "team.key")
    model.publish("one", "team/refunds@1.0.0", sign=tmp_path / "team.key")
    assert len(team.listing("refunds").signatures("1.0.0")) == 1


def refused(
    model: AdaptedModel, team: Catalogue, kind: type[Exception], name: str = "one", **fields: Any
) -> str:
    with pytest.raises(kind) as caught:
        model.publish(name, fields.pop("reference", "team/refunds@1.0.0"), **fields)
    assert not team.storage.find("adapters")
    assert not team.storage.find("blobs")
    return str(caught.value)


def test_while_adapters_are_merged_nothing_is_published(
    model: AdaptedModel, team: Catalogue
) -> None:
    model.merge_adapter("one")
    assert "Cannot publish 'two'" in refused(model, team, RoutingError, "two")
    model.unmerge_adapter()
    assert model.publish("two", "team/refunds@1.0.0") is not None


def test_an_unknown_adapter_and_a_wrong_reference_are_refused(
    model: AdaptedModel, team: Catalogue
) -> None:
    refused(model, team, RoutingError, "three")
    refused(model, team, UsageError, reference="team/refunds")
    refused(model, team, UsageError, reference="other/refunds@1.0.0")
    refused(model, team, UsageError, metrics={"accuracy": float("nan")})
    refused(model, team, UsageError, sign="nothing.key")


def test_weights_that_are_not_finite_are_not_published(
    model: AdaptedModel, team: Catalogue
) -> None:
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).fill_(float("inf"))
    assert "AD866" in refused(model, team, FitError, "two")


def test_policies_of_the_set_up_count_but_not_for_the_folder_that_is_written(
    shelf: Shelf, team: Catalogue, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(f"allow_sources: ['{shelf.one.folder}']\nmax_adapter_bytes: 20KiB\n")
    manifest = write_manifest(
        tmp_path,
        base={"model": shelf.base, "aliases": ["org/base"]},
        adapters={"one": {"source": shelf.one}},
        registries={"team": "./registry"},
    )
    model = adapterdock.load(manifest, policy=policy)
    policy.write_text("allow_sources: []")
    config = {"r": 64, "target_modules": "all-linear"}
    model.add_adapter("large", {"peft_type": "LORA", "init_lora_weights": False, **config})
    refused(model, team, PolicyError, "large")
    assert model.publish("one", "team/refunds@1.0.0") is not None


def test_a_base_that_was_changed_since_is_not_the_one_that_is_named(
    model: AdaptedModel, team: Catalogue
) -> None:
    with torch.no_grad():
        for parameter in model.base_model.parameters():
            parameter.mul_(1.25)
    refused(model, team, FitError)


def test_a_model_without_a_manifest_needs_a_registry_and_finds_its_base(
    shelf: Shelf, team: Catalogue, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model = AdaptedModel(AutoModelForCausalLM.from_pretrained(shelf.base))
    model.load_adapter(shelf.one.folder, "one")
    refused(model, team, UsageError)
    done = model.publish("one", "team/refunds@1.0.0", registry=str(tmp_path / "registry"))
    assert done is not None and done.new


def test_a_model_that_was_created_in_memory_needs_the_name_of_its_base(
    shelf: Shelf, team: Catalogue, tmp_path: Path
) -> None:
    model = AdaptedModel(shelf.model())
    model.load_adapter(shelf.one.folder, "one", accept=["AD364"])
    url = str(tmp_path / "registry")
    with pytest.raises((UsageError, SourceError, FitError)):
        model.publish("one", "team/refunds@1.0.0", registry=url, offline=True)
    assert not team.storage.find("adapters")


def test_an_adapter_that_cannot_be_saved_is_not_published(
    model: AdaptedModel, team: Catalogue
) -> None:
    from adapterdock.loader.model.stand_in import host_of

    host_of(model).adapters.by_name["one"].config.clear()  # type: ignore[attr-defined]
    refused(model, team, AttachError)
