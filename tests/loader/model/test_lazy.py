"""Lazy adapters are checked and locked like others, and read on first use."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.build import from_files as adapter_files
from adapterdock.manifests.findings.errors import AdapterdockError, FitError, ManifestError
from safetensors.torch import load_file, save_file
from support.builders import LLAMA_QV, lora_tensors, write_adapter
from support.near import close
from support.peft_adapters import ids, logits
from support.shelf import Shelf, manifest_of, write_manifest


def lazy(folder: Path, **more: Any) -> dict[str, Any]:
    return {"source": folder, "lazy": True, **more}


@pytest.fixture
def folder(shelf: Shelf, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shelf.one.folder, tmp_path / "one"))


@pytest.fixture
def manifest(shelf: Shelf, folder: Path, tmp_path: Path) -> Path:
    adapters = {
        "one": lazy(folder),
        "two": {"source": shelf.two},
        "whole": lazy(shelf.headed.folder),
    }
    compositions = {"both": {"of": {"one": 1.0, "two": 0.5}}}
    return manifest_of(shelf, tmp_path, adapters=adapters, compositions=compositions, active="two")


@pytest.fixture
def model(manifest: Path) -> AdaptedModel:
    adapterdock.lock(manifest)
    return adapterdock.load(manifest, frozen=True)


def test_a_lazy_adapter_is_read_on_first_use(
    model: AdaptedModel, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    read_file = adapter_files.read_file
    monkeypatch.setattr(
        adapter_files, "read_file", lambda p, *a, **k: read.append(p) or read_file(p, *a, **k)
    )
    info = model.adapters["one"]
    assert not info.loaded and info.nbytes == 0 and info.rank == 4 and info.methods == ("LORA",)
    assert "model.layers.0.self_attn.q_proj" in info.modules
    assert not any(".one." in key for key in model.state_dict())
    logits(model)
    assert read == []
    assert close(logits(model, adapter="one"), shelf.one.answer)
    logits(model, adapter="one")
    assert len(read) == 1 and model.adapters["one"].loaded
    assert model.adapters["one"].nbytes > 0 and any(".one." in key for key in model.state_dict())
    assert close(logits(model, adapter="whole"), shelf.headed.answer)


@pytest.mark.parametrize(
    "use", ["set_adapter", "using", "adapter", "rows", "composition", "generate"]
)
def test_every_kind_of_use_loads_a_lazy_adapter(
    model: AdaptedModel, manifest: Path, use: str
) -> None:
    eager = adapterdock.load(manifest)
    eager.set_adapter("one")
    eager.set_adapter("two")
    prompt = ids(2, 4)
    if use == "set_adapter":
        model.set_adapter("one")
        assert model.adapters["one"].loaded
        assert torch.equal(logits(model), logits(eager, adapter="one"))
    elif use == "using":
        with model.using("one"):
            assert model.adapters["one"].loaded
            assert torch.equal(logits(model), logits(eager, adapter="one"))
    elif use == "adapter":
        assert torch.equal(logits(model, adapter="one"), logits(eager, adapter="one"))
    elif use == "rows":
        names = ["one", "__base__"]
        assert torch.equal(logits(model, adapter_names=names), logits(eager, adapter_names=names))
    elif use == "composition":
        assert torch.equal(logits(model, adapter="both"), logits(eager, adapter="both"))
    else:
        found = model.generate(prompt, max_new_tokens=4, do_sample=False, adapter="one")
        with eager.using("one"):
            assert torch.equal(found, eager.generate(prompt, max_new_tokens=4, do_sample=False))
    assert model.adapters["one"].loaded and not model.adapters["whole"].loaded


def test_an_active_lazy_adapter_is_read_at_once(shelf: Shelf, tmp_path: Path) -> None:
    model = adapterdock.load(
        manifest_of(shelf, tmp_path, adapters={"one": lazy(shelf.one.folder)}, active="one")
    )
    assert model.adapters["one"].loaded


def test_concurrent_first_uses_load_once(
    model: AdaptedModel, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    build = adapter_files.AdapterFiles.build
    ready = threading.Barrier(4)

    def counted(files: Any, model: Any) -> Any:
        built.append(files.name)
        return build(files, model)

    monkeypatch.setattr(adapter_files.AdapterFiles, "build", counted)
    found: list[torch.Tensor] = []

    def ask() -> None:
        ready.wait()
        found.append(logits(model, adapter="one"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == ["one"]
    assert len(found) == 4
    assert all(close(f, shelf.one.answer) for f in found)


def test_a_first_use_in_inference_mode_can_be_differentiated_later(
    model: AdaptedModel,
) -> None:
    with torch.inference_mode():
        logits(model, adapter="one")
    embedded = torch.randn(1, 3, model.config.hidden_size, requires_grad=True)
    model(inputs_embeds=embedded, adapter="one").logits.sum().backward()
    assert embedded.grad is not None


@pytest.mark.parametrize("how", ["gone", "other", "nan"])
def test_a_failed_first_use_raises_and_can_be_retried(
    shelf: Shelf, manifest: Path, folder: Path, how: str
) -> None:
    file = folder / "adapter_model.safetensors"
    good = file.read_bytes()
    if how == "nan":  # what only the values show
        tensors = load_file(file)
        next(iter(tensors.values()))[0, 0] = float("nan")
        save_file(tensors, file, metadata={"format": "pt"})
    model = adapterdock.load(manifest)
    before = logits(model)
    if how == "gone":
        file.unlink()
    elif how == "other":
        file.write_bytes(good[:-4] + b"\x00\x00\x00\x01")
    for use in (
        lambda: logits(model, adapter="one"),
        lambda: model.set_adapter("one"),
        lambda: model.using("one"),
        lambda: logits(model, adapter_names=["one", "two"]),
    ):
        with pytest.raises(AdapterdockError) as caught:
            use()
        assert caught.value.findings
    assert not model.adapters["one"].loaded
    assert torch.equal(logits(model), before)
    assert model._host.adapters.attachments.running() == []
    if how != "nan":
        file.write_bytes(good)
        assert close(logits(model, adapter="one"), shelf.one.answer)


def test_a_lazy_adapter_that_does_not_fit_is_refused_at_load(shelf: Shelf, tmp_path: Path) -> None:
    wider = {name: (24, out) for name, (_, out) in LLAMA_QV.items()}
    wrong = write_adapter(tmp_path / "wrong", tensors=lora_tensors(wider))
    with pytest.raises(FitError):
        adapterdock.load(manifest_of(shelf, tmp_path, adapters={"wrong": lazy(wrong)}))
    base = shelf.model()
    keys = {"base": {}, "adapters": {"wrong": lazy(wrong)}}
    with pytest.raises(FitError):
        adapterdock.attach(base, write_manifest(tmp_path, **keys))


def test_deleting_replacing_and_planning_do_not_read_a_lazy_adapter(
    model: AdaptedModel, manifest: Path, shelf: Shelf, tmp_path: Path
) -> None:
    assert not model.plan(manifest)
    model.load_adapter(str(shelf.two.folder), "whole", hotswap=True)
    assert close(logits(model, adapter="whole"), shelf.two.answer)
    model.apply(model.plan(manifest))
    assert [n for n, info in model.adapters.items() if not info.loaded] == ["one", "whole"]
    model.delete_adapter("whole")
    assert "whole" not in model.adapters
    model.detach()
    assert not any(m._forward_hooks for m in model.base_model.modules())


def test_rules_know_the_rank_of_a_lazy_adapter(shelf: Shelf, tmp_path: Path) -> None:
    adapters = {"one": lazy(shelf.one.folder), "two": lazy(shelf.two.folder)}
    model = adapterdock.load(
        manifest_of(shelf, tmp_path, adapters=adapters, rules={"max_total_rank": 5})
    )
    with pytest.raises(AdapterdockError):
        model.set_adapter(["one", "two"])
    assert not any(info.loaded for info in model.adapters.values())


def test_lazy_and_trainable_is_refused_with_its_place(shelf: Shelf, tmp_path: Path) -> None:
    adapters = {"one": lazy(shelf.one.folder, trainable=True)}
    with pytest.raises(ManifestError) as caught:
        adapterdock.load(manifest_of(shelf, tmp_path, adapters=adapters))
    assert caught.value.code == "AD941"
    assert caught.value.findings[0].where.dotted == "adapters.one.lazy"


def test_a_model_with_lazy_adapters_is_not_kept_alive_by_them(manifest: Path) -> None:
    import gc
    import weakref

    model = adapterdock.load(manifest)
    seen = weakref.ref(model.base_model)
    del model
    gc.collect()
    assert seen() is None
