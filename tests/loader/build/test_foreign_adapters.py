"""Adapters that PEFT did not write as they are read: mlx-lm's, sharded ones, wrapped names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock import load
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AdapterdockError, FitError, IntegrityError
from adapterdock.manifests.lockfile import lock_path, read_lock
from peft import PeftModel
from safetensors.torch import load_file, save_file
from support.mlx_adapters import densely, mlx_saves
from support.near import close
from support.peft_adapters import logits
from support.shelf import Shelf, manifest_of, put_all

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def manifest(shelf: Shelf, folder: Path, source: object, **keys: Any) -> Path:
    adapters = {"mlx": {"source": source, **keys}}
    base = {"model": shelf.base, "aliases": ["org/base"]}
    return manifest_of(shelf, folder, base=base, adapters=adapters, active="mlx")


@pytest.mark.parametrize("dora", [False, True])
def test_an_mlx_adapter_answers_as_its_arithmetic_says(
    dora: bool, shelf: Shelf, tmp_path: Path
) -> None:
    folder = mlx_saves(shelf.model(), tmp_path / "mlx", dora=dora, root=["lm_head"])
    path = manifest(shelf, tmp_path, folder)
    report = adapterdock.validate(path)
    assert report.ok and report.adapters["mlx"]["format"] == "mlx-lm"
    answer = logits(densely(shelf.model(), folder))
    assert not close(answer, shelf.plain)
    model = load(path)
    assert close(logits(model), answer)
    model.merge_adapter()
    assert close(logits(model), answer)
    model.unmerge_adapter()
    assert torch.equal(logits(model.base_model), shelf.plain)


def test_only_the_last_layers_are_adapted(shelf: Shelf, tmp_path: Path) -> None:
    folder = mlx_saves(shelf.model(), tmp_path / "mlx", layers=[1])
    model = load(manifest(shelf, tmp_path, folder))
    assert close(logits(model), logits(densely(shelf.model(), folder)))


def test_an_embedding_of_mlx_lm_is_adapted_by_row(shelf: Shelf, tmp_path: Path) -> None:
    folder = mlx_saves(shelf.model(), tmp_path / "mlx", root=["model.embed_tokens"])
    model = load(manifest(shelf, tmp_path, folder))
    assert close(logits(model), logits(densely(shelf.model(), folder)))


def test_an_mlx_adapter_in_half_precision_keeps_its_values(shelf: Shelf, tmp_path: Path) -> None:
    folder = mlx_saves(shelf.model(), tmp_path / "mlx", dtype=torch.bfloat16)
    model = load(manifest(shelf, tmp_path, folder))
    assert close(logits(model), logits(densely(shelf.model(), folder)))


def test_tensors_of_several_dtypes_are_aligned(shelf: Shelf, tmp_path: Path) -> None:
    folder = mlx_saves(shelf.model(), tmp_path / "mlx", dora=True)
    tensors = load_file(folder / "adapters.safetensors")
    odd = {n: t.half() if n.endswith("lora_a") else t for n, t in tensors.items()}
    save_file(odd, folder / "adapters.safetensors")
    model = load(manifest(shelf, tmp_path, folder))
    assert close(logits(model), logits(densely(shelf.model(), folder)))


def test_an_mlx_adapter_is_saved_as_peft_s_and_peft_answers_the_same(
    shelf: Shelf, tmp_path: Path
) -> None:
    folder = mlx_saves(shelf.model(), tmp_path / "mlx", dora=True)
    model = load(manifest(shelf, tmp_path, folder))
    model.save_adapter(tmp_path / "peft", "mlx")
    assert sorted(p.name for p in (tmp_path / "peft").iterdir()) == [CONFIG, WEIGHTS]
    answer = logits(PeftModel.from_pretrained(shelf.model(), tmp_path / "peft"))
    assert close(answer, logits(densely(shelf.model(), folder)))
    again = AdaptedModel(shelf.model())
    again.load_adapter(tmp_path / "peft", "again", accept=["AD364"])
    assert close(logits(again, adapter="again"), answer)


def test_the_lock_pins_the_files_as_they_are_and_a_pull_serves_offline(
    shelf: Shelf, tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = mlx_saves(shelf.model(), tmp_path / "mlx")
    (folder / "0000100_adapters.safetensors").write_bytes(b"a checkpoint beside it")
    path = manifest(shelf, tmp_path, put_all(s3, s3.bucket(), "mlx", folder))
    adapterdock.lock(path)
    locked = read_lock(lock_path(path)).adapters["mlx"]
    assert set(locked.files) == {CONFIG, "adapters.safetensors"}
    assert (locked.method, locked.rank) == ("LORA", 4)
    adapterdock.pull(path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    model = load(path, offline=True, frozen=True)
    assert close(logits(model), logits(densely(shelf.model(), folder)))


def test_an_mlx_adapter_in_memory_answers_the_same(shelf: Shelf, tmp_path: Path) -> None:
    folder = mlx_saves(shelf.model(), tmp_path / "mlx")
    answer = logits(densely(shelf.model(), folder))
    model = AdaptedModel(shelf.model())
    model.load_adapter(
        None,
        "mlx",
        peft_config=json.loads((folder / CONFIG).read_text()),
        adapter_state_dict=load_file(folder / "adapters.safetensors"),
        accept=["AD364"],
    )
    assert close(logits(model, adapter="mlx"), answer)
    given = {p.name: p.read_bytes() for p in folder.iterdir()}
    path = manifest(shelf, tmp_path, "memory://mlx")
    assert close(logits(load(path, sources={"mlx": given})), answer)


def test_bytes_that_changed_after_the_lock_are_refused(shelf: Shelf, tmp_path: Path) -> None:
    folder = mlx_saves(shelf.model(), tmp_path / "mlx")
    path = manifest(shelf, tmp_path, folder)
    adapterdock.lock(path)
    file = folder / "adapters.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(IntegrityError):
        load(path)


def test_an_mlx_adapter_that_is_read_on_first_use_answers_the_same(
    shelf: Shelf, tmp_path: Path
) -> None:
    folder = mlx_saves(shelf.model(), tmp_path / "mlx")
    model = load(manifest(shelf, tmp_path, folder, lazy=True))
    assert close(logits(model, adapter="mlx"), logits(densely(shelf.model(), folder)))


def test_an_mlx_adapter_can_be_trained_further(shelf: Shelf, tmp_path: Path) -> None:
    folder = mlx_saves(shelf.model(), tmp_path / "mlx")
    model = load(manifest(shelf, tmp_path, folder, trainable=True))
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    logits_of = model(input_ids=torch.tensor([[5, 6, 7]])).logits
    logits_of.sum().backward()
    assert before and all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_an_mlx_adapter_of_another_base_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    wide = shelf.model(intermediate_size=40)
    folder = mlx_saves(wide, tmp_path / "mlx")
    report = adapterdock.validate(manifest(shelf, tmp_path, folder))
    assert [f.code for f in report.errors] == ["AD343"]
    model = AdaptedModel(shelf.model())
    with pytest.raises(FitError):
        model.load_adapter(folder, "mlx", accept=["AD364"])
    assert not model.adapters


def test_a_value_that_is_not_finite_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    folder = mlx_saves(shelf.model(), tmp_path / "mlx")
    tensors = load_file(folder / "adapters.safetensors")
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, folder / "adapters.safetensors")
    with pytest.raises(AdapterdockError, match="NaN"):
        load(manifest(shelf, tmp_path, folder))


def test_an_adapter_in_shards_answers_as_in_one_file(shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(shelf.one.folder, folder)
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    for number, part in enumerate((names[:5], names[5:]), 1):
        path = folder / f"adapter_model-{number:05}-of-00002.safetensors"
        save_file({n: tensors[n] for n in part}, path, {"format": "pt"})
    path = manifest_of(shelf, tmp_path, adapters={"one": {"source": folder}}, active="one")
    adapterdock.lock(path)
    assert len(read_lock(lock_path(path)).adapters["one"].files) == 3
    assert torch.equal(logits(load(path)), logits(load_one(shelf, tmp_path / "whole")))


def load_one(shelf: Shelf, folder: Path) -> AdaptedModel:
    adapters = {"one": {"source": shelf.one.folder}}
    return load(manifest_of(shelf, folder, adapters=adapters, active="one"))


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module"])
def test_an_adapter_with_a_wrapper_s_names_answers_as_without(
    wrapper: str, shelf: Shelf, tmp_path: Path
) -> None:
    folder = tmp_path / "wrapped"
    shutil.copytree(shelf.one.folder, folder)
    prefix = "base_model.model."
    tensors = load_file(folder / WEIGHTS)
    wrapped = {n.replace(prefix, f"{prefix}{wrapper}.", 1): t for n, t in tensors.items()}
    save_file(wrapped, folder / WEIGHTS, {"format": "pt"})
    path = manifest_of(shelf, tmp_path, adapters={"one": {"source": folder}}, active="one")
    report = adapterdock.validate(path)
    assert report.ok and "AD374" in [f.code for f in report.warnings]
    model = load(path)
    assert torch.equal(logits(model), logits(load_one(shelf, tmp_path / "whole")))
    model.save_adapter(tmp_path / "saved", "one")
    assert set(load_file(tmp_path / "saved" / WEIGHTS)) == set(tensors)
    config = json.loads((tmp_path / "saved" / CONFIG).read_text())
    assert wrapper not in json.dumps(config)
