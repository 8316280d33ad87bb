"""What the field gets wrong, item by item, each beside a twin that is right and must load.

Numbers are upstream's issues. Proved elsewhere, and not again here:

- the wrong base of the same shape, another rope_theta, the wrong tokenizer, "unreachable: assuming
  compatible" (LoRAX#311): ``loader/test_attach_manifest.py``, with real encoders;
- a cache that needs a working file lock, a crash while it is written: ``registry/test_store.py``
  and ``registry/test_fetch.py``;
- file names that leave the folder, by ``..`` or absolute: ``registry/test_trees.py`` and
  ``registry/test_fetch.py``;
- all-zero and non-finite adapters, pickles, policies at run time: ``loader/test_load_adapter.py``;
- modules that never run, models compiled before: ``loader/test_attach.py``;
- threads that disturb each other's choice: ``loader/test_adapted.py``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    AttachError,
    FitError,
    PolicyError,
    RoutingError,
    SourceError,
)
from safetensors.torch import load_file, save_file
from support.builders import write_tokenizer
from support.near import close
from support.peft_adapters import (
    Saved,
    logits,
    peft_saves,
    same_traces,
    tiny_bert,
    traces,
)
from support.shelf import Shelf, files_of, manifest_of, put_all


def changed(
    saved: Saved, folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]], **config: Any
) -> Path:
    """A copy of an adapter with other tensors or config fields."""
    shutil.copytree(saved.folder, folder)
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


def as_it_is(tensors: dict[str, Any]) -> dict[str, Any]:
    return tensors


@pytest.fixture
def model(shelf: Shelf) -> AdaptedModel:
    return AdaptedModel(shelf.model())


# -- loading --------------------------------------------------------------------------------


def test_peft_2115_keys_that_match_nothing_are_an_error(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path
) -> None:
    """Also vllm#34186, #55193, #34591 and sglang#21864: the base answers, and nobody is told."""

    def renamed(tensors: dict[str, Any]) -> dict[str, Any]:
        return {n.replace("self_attn", "attention"): t for n, t in tensors.items()}

    with pytest.raises(FitError) as caught:
        model.load_adapter(changed(shelf.two, tmp_path / "other", renamed), "tone")
    assert "attention" in str(caught.value)
    model.load_adapter(changed(shelf.two, tmp_path / "same", as_it_is), "tone")
    assert close(logits(model, adapter="tone"), shelf.two.answer)


@pytest.mark.parametrize("half", ["without B", "without a layer"])
def test_half_an_adapter_is_an_error(
    half: str, model: AdaptedModel, shelf: Shelf, tmp_path: Path
) -> None:
    part = "layers.0" if half == "without a layer" else "lora_B"

    def less(tensors: dict[str, Any]) -> dict[str, Any]:
        return {n: t for n, t in tensors.items() if part not in n}

    with pytest.raises(FitError):
        model.load_adapter(changed(shelf.two, tmp_path / "half", less), "tone")
    declared = changed(
        shelf.two,
        tmp_path / "declared",
        lambda tensors: {n: t for n, t in tensors.items() if "layers.0" not in n},
        layers_to_transform=[1],
    )
    model.load_adapter(declared, "tone")
    assert not torch.equal(logits(model, adapter="tone"), logits(model.base_model))


def test_eight_missing_and_eight_unexpected_keys_do_not_return_normally(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path
) -> None:
    """transformers returns a model; ours says which keys, all of them at once."""

    def moved(tensors: dict[str, Any]) -> dict[str, Any]:
        return {n.replace("layers.1", "layers.7"): t for n, t in tensors.items()}

    with pytest.raises(FitError) as caught:
        model.load_adapter(changed(shelf.one, tmp_path / "moved", moved), "tone")
    assert "layers.7" in str(caught.value)
    assert "layers.1" in str(caught.value)


def test_a_wrong_hidden_size_leaves_nothing_behind_and_a_retry_works(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path
) -> None:
    """PEFT raises after injection: the logits changed, and a retry says "already exists"."""
    before, answer = traces(model.base_model), logits(model)
    wide = peft_saves(shelf.model(hidden_size=32), tmp_path / "wide", target_modules=["q_proj"])
    with pytest.raises(FitError):
        model.load_adapter(wide.folder, "tone")
    assert same_traces(traces(model.base_model), before)
    assert torch.equal(logits(model), answer)
    model.load_adapter(shelf.two.folder, "tone")
    assert close(logits(model, adapter="tone"), shelf.two.answer)


def test_an_existing_name_does_not_keep_its_alpha_and_rank_for_new_weights(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path
) -> None:
    louder = changed(shelf.two, tmp_path / "louder", as_it_is, lora_alpha=64)
    model.load_adapter(shelf.two.folder, "tone")
    with pytest.raises(AttachError) as caught:
        model.load_adapter(louder, "tone")
    assert caught.value.code == "AD720"
    assert close(logits(model, adapter="tone"), shelf.two.answer)


@pytest.mark.parametrize("to", ["another alpha", "another rank"])
def test_new_weights_under_an_old_name_have_their_own_alpha_and_rank(
    to: str, model: AdaptedModel, shelf: Shelf, tmp_path: Path
) -> None:
    """transformers' hotswap keeps the old scale without a word, and raises from rank 4 to 8."""
    options: dict[str, Any] = {"lora_alpha": 64} if to == "another alpha" else {"r": 8}
    new = peft_saves(shelf.model(), tmp_path / "new", seed=5, target_modules=["v_proj"], **options)
    model.load_adapter(shelf.two.folder, "tone")
    model.delete_adapter("tone")
    model.load_adapter(new.folder, "tone")
    assert close(logits(model, adapter="tone"), new.answer)


def test_a_load_that_fails_does_not_delete_the_adapter_that_is_live(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path
) -> None:
    """A failed hotswap in diffusers does."""
    model.load_adapter(shelf.one.folder, "tone")
    model.set_adapter("tone")
    bad = changed(shelf.two, tmp_path / "bad", lambda t: {n: v * torch.nan for n, v in t.items()})
    for name in ("tone", "other"):
        with pytest.raises(AttachError):
            model.load_adapter(bad, name)
    assert close(logits(model), shelf.one.answer)


def test_a_second_load_for_use_does_not_freeze_the_first_one(
    model: AdaptedModel, shelf: Shelf
) -> None:
    model.load_adapter(shelf.one.folder, "learning", trainable=True)
    model.load_adapter(shelf.two.folder, "used")
    flags = {
        n: {p.requires_grad for p in a.resident.parameters.values()}
        for n, a in model._host.adapters.by_name.items()
    }
    assert flags == {"learning": {True}, "used": {False}}
    model.set_adapter("learning")
    model.train()
    model(torch.tensor([[5, 6]])).logits.sum().backward()
    assert all(
        p.grad is not None
        for p in model._host.adapters.by_name["learning"].resident.parameters.values()
    )


@pytest.mark.parametrize("name", ["q_proj", "lora", "a.b", "model.layers", "default"])
def test_an_adapter_name_is_never_a_substring_of_anything(
    name: str, model: AdaptedModel, shelf: Shelf
) -> None:
    model.load_adapter(shelf.one.folder, name)
    model.load_adapter(shelf.two.folder, f"{name}-2")
    assert close(logits(model, adapter=name), shelf.one.answer)
    assert close(logits(model, adapter=f"{name}-2"), shelf.two.answer)
    model.delete_adapter(name)
    assert list(model.adapters) == [f"{name}-2"]
    assert close(logits(model, adapter=f"{name}-2"), shelf.two.answer)


def test_peft_3793_an_adapter_of_a_cpu_base_stays_off_a_gpu_that_exists(
    model: AdaptedModel, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also #1073: PEFT infers the device from what the machine has."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model.load_adapter(shelf.one.folder, "tone")
    assert {
        p.device.type for p in model._host.adapters.by_name["tone"].resident.parameters.values()
    } == {"cpu"}
    assert close(logits(model, adapter="tone"), shelf.one.answer)


def test_a_float32_adapter_is_not_rounded_on_its_way_onto_a_bfloat16_base(shelf: Shelf) -> None:
    """PEFT's low_cpu_mem_usage rounds it to bfloat16 and back."""
    exact = load_file(shelf.two.file)
    for dtype, kept in (("float32", True), (None, False)):
        model = AdaptedModel(shelf.model().bfloat16())
        model.load_adapter(shelf.two.folder, "tone", dtype=dtype)
        attached = sorted(
            model._host.adapters.by_name["tone"].resident.parameters.values(),
            key=lambda p: p.sum().item(),
        )
        wanted = sorted(exact.values(), key=lambda t: t.sum().item())
        same = [torch.equal(a, w.to(a.dtype)) for a, w in zip(attached, wanted, strict=True)]
        assert all(same) or not kept
        assert ({p.dtype for p in attached} == {torch.float32}) is kept


def test_a_pickle_is_never_opened_and_the_safetensors_beside_it_is(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path
) -> None:
    folder = tmp_path / "old"
    shutil.copytree(shelf.one.folder, folder)
    torch.save(Trap(tmp_path / "ran"), folder / "adapter_model.bin")
    model.load_adapter(folder, "both")
    assert close(logits(model, adapter="both"), shelf.one.answer)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(SourceError):
        model.load_adapter(folder, "pickle")
    assert not (tmp_path / "ran").exists()


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("issue", ["peft#1932", "peft#2415", "peft#1554"])
def test_a_tokenizer_with_added_tokens_is_reported_before_the_sizes(
    issue: str, model: AdaptedModel, shelf: Shelf, tmp_path: Path
) -> None:
    for name, added in (("fits", {}), ("beyond", {"<new>": 64 + int(issue[-1])})):
        write_tokenizer(changed(shelf.two, tmp_path / name, as_it_is), added=added)
    with pytest.raises(FitError) as caught:
        model.load_adapter(tmp_path / "beyond", "beyond")
    assert "64" in str(caught.value)
    model.load_adapter(tmp_path / "fits", "fits")


def test_base_model_name_or_path_is_compared(shelf: Shelf, tmp_path: Path) -> None:
    """PEFT writes it and never reads it again."""
    other = changed(shelf.two, tmp_path / "a", as_it_is, base_model_name_or_path="acme/other-7b")
    hub_base = {"model": "hf://acme/base", "aliases": ["acme/other-7b"]}
    for base, ok in (({**hub_base, "aliases": []}, False), (hub_base, True)):
        manifest = manifest_of(shelf, tmp_path, base=base, adapters={"a": {"source": other}})
        report = adapterdock.validate(manifest, offline=True)
        assert any("acme/other-7b" in str(f) for f in report.findings) is not ok


# -- composing ------------------------------------------------------------------------------

ODD: Mapping[str, dict[str, Any]] = {
    "rslora (peft#3761)": {"use_rslora": True, "target_modules": "all-linear"},
    "rank_pattern (peft#3737)": {
        "rank_pattern": {"q_proj": 2, "down_proj": 7},
        "alpha_pattern": {"q_proj": 9},
        "target_modules": "all-linear",
    },
    "another rank": {"r": 3, "target_modules": ["q_proj", "v_proj"]},
}


@pytest.mark.parametrize("kind", ODD)
def test_one_adapter_at_weight_one_reproduces_itself(
    kind: str, shelf: Shelf, tmp_path: Path
) -> None:
    odd = peft_saves(shelf.model(), tmp_path / "odd", seed=8, **ODD[kind])
    manifest = manifest_of(
        shelf,
        tmp_path,
        adapters={"odd": {"source": odd}, "one": {"source": shelf.one}},
        compositions={"alone": {"of": {"odd": 1.0}}, "nested": {"of": {"alone": 1.0}}},
    )
    model = adapterdock.load(manifest)
    for name in ("odd", "alone", "nested"):
        assert close(logits(model, adapter=name), odd.answer)


def test_peft_3004_a_negative_weight_subtracts_what_a_positive_one_adds(
    shelf: Shelf, tmp_path: Path
) -> None:
    compositions = {
        "minus": {"of": {"one": 1.0, "two": -0.5}},
        "mirrored": {"of": {"minus": -1.0}},
    }
    model = adapterdock.load(manifest_of(shelf, tmp_path, compositions=compositions))
    assert close(logits(model, adapter="minus"), shelf.sum(one=1.0, two=-0.5))
    assert close(logits(model, adapter="mirrored"), shelf.sum(one=-1.0, two=0.5))


def test_linears_cross_terms_are_not_in_a_sum(shelf: Shelf, tmp_path: Path) -> None:
    """PEFT's `linear` combines A and B apart, so that A of one meets B of the other. Ours is the
    sum of the products; two copies at one half are the adapter itself."""
    replacement = changed(shelf.one, tmp_path / "twin", lambda t: {n: v * -1 for n, v in t.items()})
    manifest = manifest_of(
        shelf,
        tmp_path,
        adapters={"one": {"source": shelf.one}, "twin": {"source": replacement}},
        compositions={"half": {"of": {"one": 0.5, "twin": 0.5}}},
    )
    # (-B)(-A) = BA: with cross terms, (A - A)/2 would leave nothing of it.
    assert close(logits(adapterdock.load(manifest), adapter="half"), shelf.one.answer)


def test_disable_then_enable_restores_modules_to_save(shelf: Shelf, tmp_path: Path) -> None:
    """transformers does not."""
    adapters = {"headed": {"source": shelf.headed}}
    model = adapterdock.load(manifest_of(shelf, tmp_path, adapters=adapters, active="headed"))
    model.disable_adapters()
    assert torch.equal(logits(model), logits(model.base_model))
    model.enable_adapters()
    assert close(logits(model), shelf.headed.answer)
    with model.disable_adapter():
        assert close(logits(model), shelf.plain)
    assert close(logits(model), shelf.headed.answer)


def test_peft_3475_no_hook_is_left_behind_by_an_exception(
    model: AdaptedModel, shelf: Shelf
) -> None:
    base = model.base_model
    before = traces(base)
    model.load_adapter(shelf.one.folder, "tone")
    with pytest.raises(IndexError):
        model(torch.tensor([[999_999]]), adapter="tone")
    assert close(logits(base), shelf.plain)
    assert close(logits(model, adapter="tone"), shelf.one.answer)
    model.detach()
    assert same_traces(traces(base), before)


def test_exclusive_adapters_are_refused_however_they_are_named(
    shelf: Shelf, tmp_path: Path
) -> None:
    rules = {"exclusive": [["one", "two"]]}
    model = adapterdock.load(manifest_of(shelf, tmp_path, rules=rules, active="one"))
    with pytest.raises(PolicyError):
        model.generate(torch.tensor([[5]]), adapter=["one", "two"])
    with pytest.raises(RoutingError):
        model.set_adapter("oen")
    assert close(logits(model), shelf.one.answer)


# -- caching and deploying ------------------------------------------------------------------


def test_lorax_two_buckets_with_one_key_are_two_adapters(
    shelf: Shelf, tmp_path: Path, s3: Any
) -> None:
    """LoRAX's cache drops the bucket from the key; AIBrix keys by name."""
    adapters = {
        name: {"source": put_all(s3, s3.bucket(), "adapters/tone", saved.folder)}
        for name, saved in (("one", shelf.one), ("two", shelf.two))
    }
    model = adapterdock.load(manifest_of(shelf, tmp_path, adapters=adapters))
    assert close(logits(model, adapter="one"), shelf.one.answer)
    assert close(logits(model, adapter="two"), shelf.two.answer)


def test_vllm_46287_a_link_out_of_an_adapters_folder_is_not_followed(
    model: AdaptedModel, shelf: Shelf, tmp_path: Path
) -> None:
    for name, place in (("inside", tmp_path / "inside"), ("outside", tmp_path)):
        folder = tmp_path / name
        shutil.copytree(shelf.one.folder, folder)
        file = folder / "adapter_model.safetensors"
        file.rename(place / "weights")
        file.symlink_to(place / "weights")
    model.load_adapter(tmp_path / "inside", "inside")
    assert close(logits(model, adapter="inside"), shelf.one.answer)
    with pytest.raises(SourceError):
        model.load_adapter(tmp_path / "outside", "outside")


@pytest.mark.parametrize("part", ["adapter_model.safetensors", "adapter_config.json"])
def test_the_same_name_with_new_content_is_noticed(
    part: str, shelf: Shelf, tmp_path: Path, hub: Any
) -> None:
    """The gateway-api sidecar, AIBrix and production-stack all miss it; alpha is in the config."""
    folder = tmp_path / "tone"
    shutil.copytree(shelf.one.folder, folder)
    adapters = {"tone": {"source": "./tone"}}
    manifest = manifest_of(shelf, tmp_path, adapters=adapters, active="tone")
    adapterdock.lock(manifest)
    assert close(logits(adapterdock.load(manifest)), shelf.one.answer)
    changed_to = files_of(shelf.two.folder)[part]
    (folder / part).write_bytes(changed_to)
    with pytest.raises(AdapterdockError) as caught:
        adapterdock.load(manifest)
    assert any("tone" in str(f) for f in caught.value.findings)
    (folder / part).write_bytes(files_of(shelf.one.folder)[part])
    assert close(logits(adapterdock.load(manifest)), shelf.one.answer)


def test_a_saved_classifier_is_the_adapters_own_beside_another(tmp_path: Path) -> None:
    """Two tasks on one encoder, each with its head, in turn and never mixed."""
    base = tiny_bert()
    tasks = {
        name: peft_saves(
            base,
            tmp_path / name,
            seed=seed,
            target_modules=["query"],
            modules_to_save=["classifier"],
        )
        for name, seed in (("spam", 1), ("mood", 2))
    }
    model = AdaptedModel(base)
    for name, saved in tasks.items():
        model.load_adapter(saved.folder, name)
    for name in ("spam", "mood", "spam"):
        assert close(logits(model, adapter=name), tasks[name].answer)
    with pytest.raises(RoutingError):
        model.set_adapter(["spam", "mood"])
