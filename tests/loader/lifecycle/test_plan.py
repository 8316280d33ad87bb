"""Planning: what another manifest would change on a running model."""

from __future__ import annotations

import shutil
from pathlib import Path

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.lifecycle.change import apply_plan, plan_change
from adapterdock.loader.model.stand_in import host_of
from adapterdock.manifests.findings.errors import AdapterdockError, AttachError, FingerprintError
from support.near import close
from support.peft_adapters import logits, peft_saves
from support.shelf import Shelf, manifest_of, write_manifest


@pytest.fixture
def manifest(shelf: Shelf, tmp_path: Path) -> Path:
    return manifest_of(
        shelf,
        tmp_path,
        compositions={"both": {"of": {"one": 1.0, "two": 0.5}}},
        active="one",
    )


@pytest.fixture
def model(manifest: Path) -> AdaptedModel:
    return adapterdock.load(manifest)


def test_the_same_manifest_changes_nothing(model: AdaptedModel, manifest: Path) -> None:
    plan = model.plan(manifest)
    assert not plan
    assert str(plan) == f"No changes: the model matches {manifest}."
    assert set(plan.kept) == {"one", "two"}


def test_a_plan_lists_all_differences_and_changes_nothing(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path
) -> None:
    before, objects = logits(model), dict(model._host.adapters.by_name)
    other = tmp_path / "other"
    shutil.copytree(shelf.headed.folder, other / "one")
    plan = model.plan(
        manifest_of(
            shelf,
            other,
            adapters={"one": {"source": other / "one"}, "three": {"source": shelf.two}},
            compositions={"both": {"of": {"one": 0.25}}, "new": {"of": {"three": 1.0}}},
            rules={"max_active": 2},
            active="three",
        )
    )
    assert plan
    assert (list(plan.added), list(plan.removed), list(plan.replaced)) == (
        ["three"],
        ["two"],
        ["one"],
    )
    assert sorted(plan.compositions) == ["both", "new"]
    assert plan.kept == ()
    text = str(plan)
    for line in (
        "+ adapter three  sha256:",
        "~ adapter one  sha256:",
        "- adapter two  sha256:",
        "~ composition both  sum of one + 0.5 two -> sum of 0.25 one",
        "+ composition new  sum of three",
        "~ rules  none -> max_active 2",
        "~ active  one -> three",
        "Plan: 2 to add, 4 to change, 1 to remove.",
    ):
        assert line in text
    assert torch.equal(logits(model), before)
    assert dict(model._host.adapters.by_name) == objects


@pytest.mark.parametrize(
    ("declared", "line"),
    [
        ({"dtype": "bfloat16"}, "dtype auto -> bfloat16"),
        ({"trainable": True}, "trainable"),
    ],
)
def test_another_declaration_of_the_same_bytes_is_a_replacement(
    model: AdaptedModel,
    shelf: Shelf,
    tmp_path: Path,
    declared: dict[str, object],
    line: str,
) -> None:
    adapters = {"one": {"source": shelf.one, **declared}, "two": {"source": shelf.two}}
    plan = model.plan(manifest_of(shelf, tmp_path / "new", adapters=adapters, active="one"))
    assert list(plan.replaced) == ["one"]
    assert f"~ adapter one  {line}" in str(plan)


def test_the_same_bytes_in_another_place_are_not_a_change(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path
) -> None:
    shutil.copytree(shelf.one.folder, tmp_path / "copied")
    adapters = {"one": {"source": tmp_path / "copied"}, "two": {"source": shelf.two}}
    compositions = {"both": {"of": {"one": 1.0, "two": 0.5}}}
    plan = model.plan(
        manifest_of(
            shelf, tmp_path / "n", adapters=adapters, compositions=compositions, active="one"
        )
    )
    assert not plan


def test_a_plan_removes_adapters_added_by_code(
    model: AdaptedModel, manifest: Path, shelf: Shelf
) -> None:
    model.load_adapter(str(shelf.headed.folder), "extra")
    model.define_composition("mine", {"extra": 1.0})
    model.set_adapter("two")
    model.rules = lambda active: []
    plan = model.plan(manifest)
    assert list(plan.removed) == ["extra"]
    text = str(plan)
    assert "- adapter extra  " in text
    assert "- composition mine  sum of extra" in text
    assert "~ rules  rules of your code -> none" in text
    assert "~ active  two -> one" in text
    model.apply(plan)
    assert not model.plan(manifest)


def test_a_changed_mutable_adapter_is_noticed(shelf: Shelf, tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    shutil.copytree(shelf.one.folder, draft)
    manifest = manifest_of(
        shelf, tmp_path / "m", adapters={"it": {"source": draft, "mutable": True}}
    )
    model = adapterdock.load(manifest)
    assert not model.plan(manifest)
    shutil.rmtree(draft)
    shutil.copytree(shelf.two.folder, draft)
    plan = model.plan(manifest)
    assert list(plan.replaced) == ["it"]
    shutil.rmtree(draft)
    shutil.copytree(shelf.one.folder, draft)
    with pytest.raises(AttachError) as caught:
        model.apply(plan)
    assert caught.value.code == "AD752"


@pytest.mark.parametrize(
    "base",
    [
        {"model": "ELSE"},
        {"model": "SAME", "dtype": "bfloat16"},
        {"model": "SAME", "float32_modules": ["*norm*"]},
        {"fingerprint": {"structure": "v1:sha256:" + "0" * 64}},
    ],
    ids=["source", "dtype", "float32", "fingerprint"],
)
def test_another_base_is_refused(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path, base: dict[str, object]
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(shelf.base, folder)
    places = {"ELSE": folder, "SAME": shelf.base}
    declared = {key: places.get(str(value), value) for key, value in base.items()}
    with pytest.raises(FingerprintError) as caught:
        model.plan(manifest_of(shelf, tmp_path / "new", base=declared))
    assert caught.value.code in ("AD751", "AD401", "AD402", "AD403", "AD404")
    assert "base" in str(caught.value)


def test_a_base_of_other_content_in_the_same_place_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(shelf.base, folder)
    manifest = manifest_of(shelf, tmp_path, base={"model": folder})
    model = adapterdock.load(manifest)
    adapterdock.lock(manifest)
    assert not model.plan(manifest)
    other = shelf.model()
    with torch.no_grad():
        other.lm_head.weight.add_(1.0)
    other.save_pretrained(folder)
    adapterdock.lock(manifest, upgrade_all=True)
    with pytest.raises(FingerprintError) as caught:
        model.plan(manifest)
    assert caught.value.code == "AD751"


def test_a_manifest_without_a_base_can_be_applied(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path
) -> None:
    small = write_manifest(tmp_path / "new", base={}, adapters={"one": {"source": shelf.one}})
    plan = model.plan(small)
    assert list(plan.removed) == ["two"]
    model.apply(plan)
    assert list(model.adapters) == ["one"]
    # and the next one that names its base is compared with the live model
    assert model.plan(manifest_of(shelf, tmp_path / "third"))


def test_a_model_without_a_manifest_can_be_planned_for(shelf: Shelf, tmp_path: Path) -> None:
    model = AdaptedModel(shelf.model())
    model.apply(model.plan(manifest_of(shelf, tmp_path, active="two")))
    assert close(logits(model), shelf.two.answer)
    other = shelf.model()
    with torch.no_grad():
        other.model.embed_tokens.weight.add_(1.0)
    with pytest.raises(FingerprintError):
        AdaptedModel(other).plan(manifest_of(shelf, tmp_path, active="two"))


def test_stale_and_frozen_locks_apply_to_plans(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path
) -> None:
    manifest = manifest_of(shelf, tmp_path / "new")
    with pytest.raises(AdapterdockError):
        model.plan(manifest, frozen=True)
    adapterdock.lock(manifest)
    assert model.plan(manifest, frozen=True)
    manifest_of(shelf, tmp_path / "new", adapters={"one": {"source": shelf.one}})
    with pytest.raises(AdapterdockError):
        model.plan(manifest)


def test_a_plan_from_a_lock_fetches_nothing(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path, hub: object
) -> None:
    from support.shelf import files_of

    saved = peft_saves(shelf.model(), tmp_path / "more", seed=9, target_modules=["q_proj"])
    hub.commit("acme/more", files_of(saved.folder))
    manifest = manifest_of(
        shelf, tmp_path / "new", adapters={"more": {"source": "hf://acme/more"}}, active="more"
    )
    adapterdock.lock(manifest)
    plan = model.plan(manifest, offline=True)
    assert list(plan.added) == ["more"]
    model.apply(model.plan(manifest))
    assert close(logits(model), saved.answer)


def test_the_base_stays_known_after_a_manifest_without_a_base(
    model: AdaptedModel, shelf: Shelf, manifest: Path, tmp_path: Path
) -> None:
    small = write_manifest(tmp_path / "small", base={}, adapters={"one": {"source": shelf.one}})
    for _ in range(2):
        model.apply(model.plan(small))
        model.load_adapter(shelf.two.folder, "two")
    other = manifest_of(shelf, tmp_path / "new", base={"model": shelf.base, "dtype": "bfloat16"})
    with pytest.raises(FingerprintError) as caught:
        model.plan(other)
    assert caught.value.code == "AD751"
    assert model.plan(manifest)
    model.save_pretrained(tmp_path / "saved")
    assert f"model: {shelf.base}" in (tmp_path / "saved" / "adapterdock.yaml").read_text()


def test_a_newer_lock_of_the_caller_is_not_called_a_missing_lock(
    model: AdaptedModel, manifest: Path
) -> None:
    newer = adapterdock.lock(manifest).model_copy(update={"generator": "with a promotion"})
    for is_beside in (True, False):
        model.set_adapter("two")  # so that there is something to apply
        host = host_of(model)
        apply_plan(host, plan_change(host, manifest, lock=newer))
        assert ("AD512" in [finding.code for finding in model.findings]) is not is_beside
        for path in manifest.parent.glob("*.lock*"):
            path.unlink()
