"""``load_adapter`` from a registry: that of the manifest, the user's, or the one that is passed."""

from __future__ import annotations

import shutil
from pathlib import Path

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.load import attach
from adapterdock.manifests.findings.errors import (
    IntegrityError,
    PolicyError,
    SourceError,
    UsageError,
)
from adapterdock.manifests.language.selector import parse_selector
from adapterdock.registry.catalogue.catalogue import Catalogue, open_catalogue
from adapterdock.registry.catalogue.promote import mark, promote
from adapterdock.registry.catalogue.sign import sign_selected
from adapterdock.registry.publishing import publish
from adapterdock.registry.storages.local_storage import LocalStorage
from support.near import close
from support.peft_adapters import logits
from support.published import registry
from support.shelf import Shelf, manifest_of
from support.signing import make_signer, model_signature


@pytest.fixture
def team(shelf: Shelf, tmp_path: Path) -> Catalogue:
    """``tone`` 1.0.0 is ``one``, 1.1.0 is ``two``."""
    made = registry(tmp_path / "registry")
    for version, saved in (("1.0.0", shelf.one), ("1.1.0", shelf.two)):
        publish(
            saved.folder,
            f"team/tone@{version}",
            registry=str(tmp_path / "registry"),
            base=str(shelf.base),
        )
    promote(made, "tone", "1.0.0", "prod")
    return made


def test_an_alias_in_a_registry_of_the_manifest_is_loaded(
    shelf: Shelf, tmp_path: Path, team: Catalogue
) -> None:
    manifest = manifest_of(
        shelf,
        tmp_path,
        adapters={"one": {"source": shelf.one}},
        registries={"team": "./registry"},
    )
    model = attach(shelf.model(), manifest)
    model.load_adapter("registry://team/tone@prod", "tone")
    assert close(logits(model, adapter="tone"), shelf.one.answer)
    promote(team, "tone", "1.1.0", "prod")
    model.load_adapter("registry://team/tone@prod", "tone", hotswap=True)
    assert close(logits(model, adapter="tone"), shelf.two.answer)
    with pytest.raises(UsageError) as caught:
        model.load_adapter("registry://platform/tone@prod", "other")
    assert caught.value.code == "AD177"


def test_a_model_without_a_manifest_uses_the_registry_that_is_passed_or_the_users(
    shelf: Shelf, tmp_path: Path, team: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = AdaptedModel(shelf.model())
    source, place = "registry://team/tone@^1", tmp_path / "registry"
    with pytest.raises(UsageError):
        model.load_adapter(source, "tone")
    model.load_adapter(source, "tone", registry=str(place))
    assert close(logits(model, adapter="tone"), shelf.two.answer)
    config = tmp_path / "config.toml"
    config.write_text(f'[registries]\nteam = "{place}"\n')
    monkeypatch.setenv("ADAPTERDOCK_CONFIG", str(config))
    model.load_adapter("registry://team/tone@1.0.0", "mine")
    assert close(logits(model, adapter="mine"), shelf.one.answer)
    with pytest.raises(SourceError, match="AD861"):
        model.load_adapter("registry://team/tone@9.0.0", "none")
    with pytest.raises(UsageError, match="AD872"):
        model.load_adapter(source, "none", registry="nowhere")


def test_a_yanked_version_is_loaded_with_a_warning(
    shelf: Shelf, tmp_path: Path, team: Catalogue, caplog: pytest.LogCaptureFixture
) -> None:
    mark(team, "tone", "1.0.0", "yank", why="wrong data")
    model = AdaptedModel(shelf.model())
    place = str(tmp_path / "registry")
    model.load_adapter("registry://team/tone@1.0.0", "tone", registry=place)
    assert any("tone@1.0.0 is yanked: wrong data" in message for message in caplog.messages)


def test_changed_contents_of_a_registry_are_refused(
    shelf: Shelf, tmp_path: Path, team: Catalogue
) -> None:
    weights = next(
        file for file in team.entry("tone", "1.0.0").entry.files if file.role == "weights"
    )
    path = tmp_path / "registry/blobs/sha256" / weights.sha256.removeprefix("sha256:")
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    model = AdaptedModel(shelf.model())
    with pytest.raises(IntegrityError):
        model.load_adapter(
            "registry://team/tone@1.0.0", "tone", registry=str(tmp_path / "registry")
        )
    assert model.adapters == {}


def test_signatures_that_a_policy_demands_are_verified(
    shelf: Shelf, tmp_path: Path, team: Catalogue
) -> None:
    anna, selector = make_signer(), parse_selector("1.0.0")
    assert selector is not None
    manifest = manifest_of(
        shelf,
        tmp_path,
        adapters={"one": {"source": shelf.one}},
        registries={"team": "./registry"},
        policy={"require_signature": {"keys": [anna.key.pem]}},
    )
    model = attach(shelf.model(), manifest)
    with pytest.raises(PolicyError) as refused:
        model.load_adapter("registry://team/tone@1.0.0", "tone")
    assert refused.value.code == "AD885"
    sign_selected(team, "tone", selector, anna)
    model.load_adapter("registry://team/tone@1.0.0", "tone")
    assert close(logits(model, adapter="tone"), shelf.one.answer)


def test_a_registry_that_a_policy_does_not_list_is_not_opened(
    shelf: Shelf, tmp_path: Path, team: Catalogue
) -> None:
    manifest = manifest_of(
        shelf,
        tmp_path,
        adapters={"one": {"source": shelf.one}},
        registries={"team": "./registry"},
        policy={"registries": [{"url": "./other"}]},
    )
    model = attach(shelf.model(), manifest)
    for place in (None, str(tmp_path / "registry")):
        with pytest.raises(PolicyError) as refused:
            model.load_adapter("registry://team/tone@1.0.0", "tone", registry=place)
        assert refused.value.code == "AD856"


def test_manifest_and_lock_give_the_same_answers_from_a_mirror_in_an_empty_home(
    shelf: Shelf, tmp_path: Path, team: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = tmp_path / "desk"
    registries = {"team": str(tmp_path / "registry")}
    sources = {"tone": {"source": "registry://team/tone@prod"}}
    manifest = manifest_of(
        shelf, desk, base={"model": shelf.base}, adapters=sources, registries=registries
    )
    locked = adapterdock.lock(manifest)
    answer = logits(adapterdock.load(manifest), adapter="tone")
    assert close(answer, shelf.one.answer)

    home = tmp_path / "home"
    shutil.copytree(desk, home / "desk")
    shutil.move(tmp_path / "registry", home / "mirror")
    promote(open_catalogue(LocalStorage(home / "mirror")), "tone", "1.1.0", "prod")
    text = manifest.read_text().replace(registries["team"], str(home / "mirror"))
    (home / "desk" / manifest.name).write_text(text)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("ADAPTERDOCK_CACHE", str(home / "cache"))
    moved = home / "desk" / manifest.name
    again = adapterdock.load(moved, offline=True, frozen=True)
    assert torch.equal(logits(again, adapter="tone"), answer)
    assert adapterdock.lock(moved) == locked  # with the fingerprint of the base


def test_a_policy_that_requires_a_model_signature_is_obeyed(shelf: Shelf, tmp_path: Path) -> None:
    anna = make_signer("p256")
    manifest = manifest_of(
        shelf,
        tmp_path,
        adapters={},
        policy={"require_model_signature": {"keys": [anna.key.pem]}},
    )
    folder = tmp_path / "signed"
    shutil.copytree(shelf.one.folder, folder)
    model = attach(shelf.model(), manifest)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for signed in ({}, {**files, "adapter_config.json": b""}):
        with pytest.raises(PolicyError) as refused:
            model.load_adapter(str(folder), "tone")
        assert refused.value.code == "AD850"
        (folder / "model.sig").write_bytes(model_signature(signed, anna))
    (folder / "model.sig").write_bytes(model_signature(files, anna))
    model.load_adapter(str(folder), "tone")
    assert close(logits(model, adapter="tone"), shelf.one.answer)
