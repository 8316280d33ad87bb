"""A base that its manifest distributes over devices and disk gives the same logits, and its
offloaded parts do not stay in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.manifests.findings.errors import AttachError
from support.near import close
from support.peft_adapters import Saved, ids, logits, peft_saves
from support.shelf import Shelf, manifest_of

MAPS: dict[str, Any] = {
    "auto": "auto",
    "balanced": "balanced",
    "cpu": "cpu",
    "all on the cpu": {"": "cpu"},
    "by module": {
        "model.embed_tokens": "cpu",
        "model.layers.0": "cpu",
        "model.layers.1": "cpu",
        "model.norm": "cpu",
        "model.rotary_emb": "cpu",
        "lm_head": "cpu",
    },
    "all on disk": {"": "disk"},
    "layers on disk": {
        "model.embed_tokens": "cpu",
        "model.layers": "disk",
        "model.norm": "cpu",
        "model.rotary_emb": "cpu",
        "lm_head": "cpu",
    },
    "cpu and disk": {
        "model.embed_tokens": "disk",
        "model.layers.0": "cpu",
        "model.layers.1": "disk",
        "model.norm": "disk",
        "model.rotary_emb": "cpu",
        "lm_head": "cpu",
    },
}
ON_DISK = [name for name in MAPS if "disk" in name]


@pytest.fixture(scope="module")
def dora(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return peft_saves(
        shelf.model(),
        tmp_path_factory.mktemp("dora") / "dora",
        seed=4,
        target_modules=["q_proj", "up_proj", "embed_tokens"],
        use_dora=True,
    )


def loaded(shelf: Shelf, dora: Saved, folder: Path, **base: Any) -> Any:
    adapters = {"one": shelf.one, "two": shelf.two, "headed": shelf.headed, "dora": dora}
    manifest = manifest_of(
        shelf,
        folder,
        base={"model": shelf.base, **base},
        adapters={name: {"source": saved} for name, saved in adapters.items()},
    )
    return adapterdock.load(manifest)


def offloaded(base: Any) -> dict[str, bool]:
    return {name: parameter.is_meta for name, parameter in base.named_parameters()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MAPS)
def test_an_offloaded_base_works_like_a_resident_one(
    name: str, dtype: str, shelf: Shelf, dora: Saved, tmp_path: Path
) -> None:
    resident = loaded(shelf, dora, tmp_path / "resident", dtype=dtype)
    model = loaded(shelf, dora, tmp_path / "spread", dtype=dtype, device_map=MAPS[name])
    base = model.base_model
    away = offloaded(base)
    assert any(away.values()) is (name in ON_DISK)
    devices = {device for adapter in model.adapters.values() for device in adapter.devices}
    assert devices == {torch.device("cpu")}
    plain = logits(base)
    assert plain.dtype is getattr(torch, dtype)
    assert torch.equal(plain, logits(resident.base_model))

    for adapter in ("one", "two", "dora", "headed", {"one": 0.5, "dora": -1.0}):
        for each in (resident, model):
            each.set_adapter(adapter)
        assert torch.equal(logits(model), logits(resident)), adapter
        assert torch.equal(logits(base), plain)
    if dtype == "float32":
        for adapter, saved in (("one", shelf.one), ("dora", dora), ("headed", shelf.headed)):
            assert close(logits(model, adapter=adapter), saved.answer)
    how = {"max_new_tokens": 4, "do_sample": False, "adapter": "dora"}
    assert torch.equal(model.generate(ids(), **how), resident.generate(ids(), **how))
    rows = ["one", "dora"]
    mixed = logits(model, adapter_names=rows)
    assert torch.equal(mixed, logits(resident, adapter_names=rows))

    model.delete_adapter("dora")
    model.load_adapter(dora.folder, "dora")
    assert torch.equal(logits(model, adapter="dora"), logits(resident, adapter="dora"))
    assert offloaded(base) == away
    assert model.detach() is base
    assert torch.equal(logits(base), plain)
    assert offloaded(base) == away


@pytest.mark.parametrize("name", MAPS)
def test_a_merge_into_offloaded_weights_is_refused_and_changes_nothing(
    name: str, shelf: Shelf, dora: Saved, tmp_path: Path
) -> None:
    model = loaded(shelf, dora, tmp_path, device_map=MAPS[name])
    plain, answer = logits(model.base_model), logits(model, adapter="one")
    if name not in ON_DISK:
        model.merge_adapter(["one"])
        assert close(logits(model), answer)
        model.unmerge_adapter()
    else:
        with pytest.raises(AttachError) as caught:
            model.merge_adapter(["one"])
        assert {finding.code for finding in caught.value.findings} == {"AD758"}
        assert "offloaded" in str(caught.value)
        assert model.merged_adapters == []
    assert torch.equal(logits(model.base_model), plain)
    assert torch.equal(logits(model, adapter="one"), answer)


def test_float32_modules_work_beside_modules_on_disk(
    shelf: Shelf, dora: Saved, tmp_path: Path
) -> None:
    """They are not on disk themselves: tensors on disk are read again at each use."""
    parts = {**MAPS["cpu and disk"], "model.norm": "cpu"}
    options = {"dtype": "bfloat16", "device_map": parts}
    model = loaded(shelf, dora, tmp_path / "beside", **options, float32_modules=["model.norm"])
    assert model.base_model.model.norm.weight.dtype is torch.float32
    assert logits(model, adapter="one").dtype is torch.bfloat16
    with pytest.raises(AttachError) as caught:
        loaded(shelf, dora, tmp_path / "among", **options, float32_modules=["*norm*"])
    assert caught.value.code == "AD742"


def test_an_offloaded_base_is_compared_with_its_fingerprint(
    shelf: Shelf, dora: Saved, tmp_path: Path
) -> None:
    model = loaded(shelf, dora, tmp_path / "first", device_map={"": "disk"})
    base = model.detach()
    manifest = manifest_of(shelf, tmp_path / "second")
    again = adapterdock.attach(base, manifest)
    assert close(logits(again, adapter="one"), shelf.one.answer)
