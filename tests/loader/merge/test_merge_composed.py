"""Compositions that are no sum, merged from disk to disk: computed first, then folded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.base import meta_model as skeleton
from adapterdock.loader.merge_files import merge_to_folder
from adapterdock.manifests.findings.errors import AdapterdockError, PolicyError, RoutingError
from peft import IA3Config
from safetensors import safe_open
from safetensors.torch import load_file
from support.combinations import (
    FIXED,
    PEFTS,
    deltas_of,
    dense_answer,
    is_pefts,
    options_of,
    peft_combines,
)
from support.near import as_near_as, close
from support.peft_adapters import logits, peft_saves, tiny_bert
from support.shelf import Shelf, files_of, manifest_of, write_manifest


def plain(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def codes(caught: pytest.ExceptionInfo[AdapterdockError]) -> list[str]:
    return [finding.code for finding in caught.value.findings]


@pytest.fixture
def same_rank(shelf: Shelf, tmp_path: Path) -> Callable[..., Path]:
    """Makes a manifest with two adapters of one rank, ``one`` and ``two``, and compositions."""
    model = shelf.model()
    two = peft_saves(model, tmp_path / "two", seed=5, target_modules=["v_proj", "up_proj"])

    def make(**compositions: Any) -> Path:
        return manifest_of(
            shelf,
            tmp_path / "project",
            adapters={"one": {"source": shelf.one}, "two": {"source": two}},
            compositions=compositions,
        )

    return make


@pytest.mark.parametrize("method", PEFTS)
def test_every_way_of_combining_is_merged_as_it_answers_live(
    method: str, shelf: Shelf, same_rank: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = same_rank(
        mix={"combine": method, "of": {"one": 0.7, "two": 0.6}, **options_of(method)}
    )
    done = merge_to_folder(manifest, tmp_path / "out", selection="mix", safe=True)
    assert done.weights == {"mix": 1.0}
    model = adapterdock.load(manifest)
    factors, written = model.state_dict(), load_file(tmp_path / "out" / "model.safetensors")
    exact: dict[str, torch.Tensor] = {}
    for name, old in model.base_model.state_dict().items():
        key = f"base_model.model.{name.removesuffix('.weight')}.lora_{{}}.mix.weight"
        if key.format("A") in factors:
            a, b = (factors[key.format(part)].double() for part in "AB")
            exact[name.removesuffix(".weight")] = delta = b @ a
            assert close(written[name], (old.double() + delta).float())
    assert exact
    live = logits(model, adapter="mix")
    assert as_near_as(
        logits(plain(tmp_path / "out")), live, dense_answer(shelf.model().double(), exact)
    )


@pytest.mark.parametrize("method", FIXED)
def test_the_written_model_answers_as_pefts_combination(
    method: str, shelf: Shelf, same_rank: Callable[..., Path], tmp_path: Path
) -> None:
    options = options_of(method)
    manifest = same_rank(mix={"combine": method, "of": {"one": 0.7, "two": 0.6}, **options})
    merge_to_folder(manifest, tmp_path / "out", selection="mix")
    folders = [shelf.one.folder, tmp_path / "two"]
    found = logits(plain(tmp_path / "out"))
    assert is_pefts(found, shelf.model(), folders, [0.7, 0.6], method, **options)


def test_an_active_set_of_sums_adapters_and_compositions_is_merged_as_it_answers_live(
    shelf: Shelf, tmp_path: Path
) -> None:
    manifest = manifest_of(
        shelf,
        tmp_path / "project",
        compositions={
            "made": {"combine": "svd", "of": {"one": 1.0, "two": -0.5}, "svd_rank": 6},
            "loud": {"of": {"two": 1.5}},
        },
        active=["made", "loud", "one"],
    )
    done = merge_to_folder(manifest, tmp_path / "out")
    assert done.weights == {"two": 1.5, "one": 1.0, "made": 1.0}
    live = logits(adapterdock.load(manifest))
    folders = [shelf.one.folder, shelf.two.folder]
    pefts = peft_combines(shelf.model().double(), folders, [1.0, -0.5], "svd", svd_rank=6)
    deltas = [deltas_of(pefts, name) for name in ("mix", "one", "two")]
    exact = dense_answer(
        shelf.model().double(),
        {
            module: sum(
                w * d[module] for w, d in zip((1.0, 1.0, 1.5), deltas, strict=True) if module in d
            )
            for module in deltas[0]
        },
    )
    assert as_near_as(logits(plain(tmp_path / "out")), live, exact)


def test_weights_by_module_give_the_same_output_merged_and_live(
    shelf: Shelf, tmp_path: Path
) -> None:
    manifest = manifest_of(
        shelf,
        tmp_path / "project",
        compositions={"mix": {"of": {"one": {"*.layers.0.*": 0.5, "*": -1.0}, "two": 1.0}}},
        active="mix",
    )
    merge_to_folder(manifest, tmp_path / "out")
    assert close(logits(plain(tmp_path / "out")), logits(adapterdock.load(manifest)))
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        told = json.loads(file.metadata()["adapterdock.merged"])
    assert "layers.0" in told["adapters"]["one"]["weight"]


def test_replaced_modules_and_biases_are_merged_with_a_composition(tmp_path: Path) -> None:
    base = tiny_bert()
    base.save_pretrained(tmp_path / "base")
    one = peft_saves(base, tmp_path / "one", target_modules=["query"], bias="all", seed=1)
    two = peft_saves(base, tmp_path / "two", target_modules=["query"], task_type="SEQ_CLS", seed=2)
    manifest = write_manifest(
        tmp_path,
        base={"model": tmp_path / "base"},
        adapters={"one": {"source": one}, "two": {"source": two}},
        compositions={"mix": {"combine": "linear", "of": {"one": 0.5, "two": 1.0}}},
    )
    merge_to_folder(manifest, tmp_path / "out", selection="mix")
    again = type(base).from_pretrained(tmp_path / "out").eval()
    assert close(logits(again), logits(adapterdock.load(manifest), adapter="mix"))


def test_the_same_recipe_gives_the_same_bytes_and_is_in_the_header(
    same_rank: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = same_rank(
        mix={"combine": "dare_ties", "of": {"one": 0.7, "two": 0.6}, "density": 0.5, "seed": 3}
    )
    before = torch.get_num_threads()
    merge_to_folder(manifest, tmp_path / "out", selection="mix")
    torch.set_num_threads(2)
    try:
        merge_to_folder(manifest, tmp_path / "again", selection="mix")
    finally:
        torch.set_num_threads(before)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "again")
    adapterdock.lock(manifest)
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        told = json.loads(file.metadata()["adapterdock.merged"])
    assert told["adapters"].keys() == {"mix"}
    assert told["adapters"]["mix"]["digest"] in manifest.with_suffix(".lock").read_text()


def test_a_half_precision_base_gets_factors_computed_in_float32(
    shelf: Shelf,
    same_rank: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The combination's factors are not rounded to the base's dtype before they are multiplied,
    even where transformers makes the modules in that dtype (as it does of remote code)."""
    build = skeleton.build
    monkeypatch.setattr(skeleton, "build", lambda *a: build(*a).to(torch.bfloat16))
    manifest = same_rank(mix={"combine": "ties", "of": {"one": 0.7, "two": 0.6}, "density": 0.5})
    shelf.model().to(torch.bfloat16).save_pretrained(tmp_path / "half")
    half = tmp_path / "project" / "half.yaml"
    half.write_text(manifest.read_text().replace(str(shelf.base), str(tmp_path / "half")))
    merge_to_folder(half, tmp_path / "out", selection="mix")
    written = load_file(tmp_path / "out" / "model.safetensors")
    model = adapterdock.load(manifest)
    name = "model.layers.0.self_attn.v_proj"
    state = model.state_dict()
    a, b = (state[f"base_model.model.{name}.lora_{x}.mix.weight"] for x in "AB")
    stored = load_file(tmp_path / "half" / "model.safetensors")[f"{name}.weight"]
    exact = (stored.float() + b @ a).to(torch.bfloat16)
    assert (written[f"{name}.weight"] != exact).float().mean() < 0.01


def test_rules_count_the_members_of_a_composition(shelf: Shelf, tmp_path: Path) -> None:
    manifest = manifest_of(
        shelf,
        tmp_path / "project",
        rules={"max_total_rank": 5},
        compositions={"mix": {"combine": "svd", "of": {"one": 1.0, "two": 1.0}}},
    )
    with pytest.raises(PolicyError):
        merge_to_folder(manifest, tmp_path / "out", selection="mix")
    assert not (tmp_path / "out").exists()


def test_an_impossible_combination_is_refused_before_anything_is_written(
    shelf: Shelf, tmp_path: Path
) -> None:
    ia3 = peft_saves(
        shelf.model(),
        tmp_path / "ia3",
        kind=IA3Config,
        target_modules=["v_proj"],
        feedforward_modules=[],
    )
    manifest = manifest_of(
        shelf,
        tmp_path / "project",
        adapters={
            "one": {"source": shelf.one},
            "two": {"source": shelf.two},
            "ia3": {"source": ia3},
        },
        compositions={
            "ranks": {"combine": "linear", "of": {"one": 1.0, "two": 1.0}},
            "kinds": {"combine": "cat", "of": {"one": 1.0, "ia3": 1.0}},
        },
    )
    for name, words in (("ranks", "different ranks"), ("kinds", "no plain pairs|not made of")):
        with pytest.raises(RoutingError, match=words) as caught:
            merge_to_folder(manifest, tmp_path / "out", selection=name)
        finding = caught.value.findings[0]
        assert str(finding.where).startswith(str(manifest))
        assert not (tmp_path / "out").exists()
