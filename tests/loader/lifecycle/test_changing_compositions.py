"""Computed compositions, and adapters of every method, while a model changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.model import compositions
from adapterdock.manifests.findings.errors import AttachError, RoutingError
from support.near import close, differs
from support.peft_adapters import Saved, adapted, attach, logits, peft_saves, tiny_llama
from support.shelf import Shelf, manifest_of, shelf_model

TIES = {"combine": "ties_svd", "density": 0.5, "of": {"one": 1.0, "two": 0.5}}


def manifest(shelf: Shelf, folder: Path, **keys: Any) -> Path:
    keys = {"compositions": {"made": TIES}, "active": "made", **keys}
    return manifest_of(shelf, folder, **keys)


def fresh(path: Path, adapter: str) -> torch.Tensor:
    return logits(adapterdock.load(path), adapter=adapter)


def test_a_composition_of_kept_adapters_is_kept(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapterdock.load(manifest(shelf, tmp_path / "first"))
    old = model._host.adapters.by_name["made"]
    more = {"one": shelf.one, "two": shelf.two, "three": shelf.headed}
    wanted = manifest(
        shelf,
        tmp_path / "second",
        adapters={name: {"source": saved} for name, saved in more.items()},
    )
    monkeypatch.setattr(compositions, "combine_members", None)
    plan = model.plan(wanted)
    assert not plan.compositions and list(plan.added) == ["three"]
    model.apply(plan)
    assert model._host.adapters.by_name["made"] is old
    assert model.active_weights() == {"made": 1.0}
    assert not model.plan(wanted)


def test_a_composition_follows_its_members_and_its_recipe(shelf: Shelf, tmp_path: Path) -> None:
    model = adapterdock.load(manifest(shelf, tmp_path / "first"))
    other = peft_saves(shelf_model(), tmp_path / "other", seed=9, r=2, target_modules=["v_proj"])
    wanted = manifest(
        shelf,
        tmp_path / "second",
        adapters={"one": {"source": shelf.one}, "two": {"source": other}},
    )
    before = logits(model)
    model.apply(model.plan(wanted))
    assert torch.equal(logits(model), fresh(wanted, "made"))
    assert differs(logits(model), before, 1e-4)
    denser = manifest(
        shelf,
        tmp_path / "third",
        adapters={"one": {"source": shelf.one}, "two": {"source": other}},
        compositions={"made": {**TIES, "density": 0.9}},
    )
    plan = model.plan(denser)
    assert list(plan.compositions) == ["made"] and "density 0.9" in str(plan)
    model.apply(plan)
    assert torch.equal(logits(model), fresh(denser, "made"))
    assert not model.plan(denser)


def test_a_member_that_can_no_longer_be_combined_changes_nothing(
    shelf: Shelf, tmp_path: Path
) -> None:
    from peft import IA3Config

    model = adapterdock.load(manifest(shelf, tmp_path / "first"))
    before, state = logits(model), model.state_dict().keys()
    odd = peft_saves(
        shelf_model(),
        tmp_path / "odd",
        kind=IA3Config,
        target_modules=["v_proj"],
        feedforward_modules=[],
    )
    wanted = manifest(
        shelf, tmp_path / "second", adapters={"one": {"source": shelf.one}, "two": {"source": odd}}
    )
    plan = model.plan(wanted)
    with pytest.raises(RoutingError) as caught:
        model.apply(plan)
    assert caught.value.code == "AD708"
    with pytest.raises(RoutingError):
        model.load_adapter(odd.folder, "two", hotswap=True)
    assert torch.equal(logits(model), before) and model.state_dict().keys() == state


def test_a_hot_swap_recomputes_compositions(shelf: Shelf, tmp_path: Path) -> None:
    model = adapterdock.load(manifest(shelf, tmp_path / "first"))
    model.define_composition("above", {"made": 1.0, "one": 0.5}, combine="cat")
    before = logits(model, adapter="above")
    other = peft_saves(shelf_model(), tmp_path / "other", seed=9, r=2, target_modules=["v_proj"])
    model.load_adapter(other.folder, "two", hotswap=True)
    adapters = {"one": {"source": shelf.one}, "two": {"source": other}}
    wanted = manifest(shelf, tmp_path / "second", adapters=adapters)
    expected = fresh(wanted, "made")
    assert torch.equal(logits(model), expected)
    again = adapterdock.load(wanted)
    again.define_composition("above", {"made": 1.0, "one": 0.5}, combine="cat")
    assert torch.equal(logits(model, adapter="above"), logits(again, adapter="above"))
    assert differs(logits(model, adapter="above"), before, 1e-4)


def methods() -> dict[str, tuple[Any, dict[str, Any]]]:
    from peft import (
        BOFTConfig,
        IA3Config,
        LNTuningConfig,
        LoHaConfig,
        LoraConfig,
        PrefixTuningConfig,
        PromptTuningConfig,
        TrainableTokensConfig,
        VeraConfig,
    )

    linear = {"target_modules": ["q_proj", "down_proj"]}
    return {
        "dora": (LoraConfig, {**linear, "use_dora": True}),
        "bias": (LoraConfig, {**linear, "modules_to_save": ["norm"]}),
        "ia3": (IA3Config, {**linear, "feedforward_modules": ["down_proj"]}),
        "loha": (LoHaConfig, linear),
        "boft": (BOFTConfig, {**linear, "boft_block_size": 4}),
        "vera": (VeraConfig, {"target_modules": ["q_proj"]}),
        "ln": (LNTuningConfig, {"target_modules": ["norm"]}),
        "tokens": (TrainableTokensConfig, {"token_indices": [1, 2, 3]}),
        "prompt": (PromptTuningConfig, {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"}),
        "prefix": (PrefixTuningConfig, {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"}),
    }


@pytest.mark.parametrize("method", sorted(methods()))
def test_lazy_adapters_of_all_methods_are_read_and_reloaded(
    method: str, shelf: Shelf, tmp_path: Path
) -> None:
    kind, options = methods()[method]
    saved = peft_saves(shelf_model(), tmp_path / "it", kind=kind, **options)
    path = manifest(
        shelf,
        tmp_path,
        adapters={
            "it": {"source": saved, "lazy": True},
            "one": {"source": shelf.one, "lazy": True},
        },
        compositions={},
        active=None,
    )
    eager = adapterdock.load(
        manifest(
            shelf,
            tmp_path / "eager",
            adapters={"it": {"source": saved}},
            compositions={},
            active=None,
        )
    )
    expected, info = logits(eager, adapter="it"), eager.adapters["it"]
    adapterdock.lock(path, accept={"AD390"})
    model = adapterdock.load(path, residency=info.nbytes + eager_bytes(shelf) - 1)
    lazy = model.adapters["it"]
    assert not lazy.loaded and (lazy.methods, lazy.rank) == (info.methods, info.rank)
    for _ in range(2):
        assert torch.equal(logits(model, adapter="it"), expected)
        assert model.adapters["it"].loaded
        logits(model, adapter="one")
        assert not model.adapters["it"].loaded
    model.save_adapter(tmp_path / "saved", "it")
    assert torch.equal(logits(adapted_from(shelf, tmp_path / "saved"), adapter="again"), expected)


def eager_bytes(shelf: Shelf) -> int:
    model = adapted(shelf.model(), shelf.one)
    return model.adapters["it"].nbytes


def adapted_from(shelf: Shelf, folder: Path) -> AdaptedModel:
    model = AdaptedModel(shelf.model())
    model.load_adapter(folder, "again")
    return model


def test_unloaded_adapters_can_be_merged_and_combined(shelf: Shelf, tmp_path: Path) -> None:
    path = manifest(
        shelf,
        tmp_path,
        adapters={n: {"source": getattr(shelf, n), "lazy": True} for n in ("one", "two")},
        compositions={},
        active=None,
    )
    adapterdock.lock(path)
    expected = fresh(manifest(shelf, tmp_path / "made", active=None), "made")
    model = adapterdock.load(path)
    options = {name: value for name, value in TIES.items() if name != "of"}
    model.define_composition("made", TIES["of"], **options)  # type: ignore[arg-type]
    assert torch.equal(logits(model, adapter="made"), expected)
    again = adapterdock.load(path)
    answer = logits(again, adapter="one")
    again = adapterdock.load(path)
    again.merge_adapter("one")
    assert close(logits(again), answer)
    assert again.adapters["one"].loaded


def test_a_budget_with_a_compiled_base_is_refused(shelf: Shelf) -> None:
    model = adapted(shelf.model(), shelf.one)
    model.compile(backend="eager")
    with pytest.raises(RoutingError) as caught:
        model.residency = 10**9
    assert caught.value.code == "AD773" and model.residency is None


def test_a_merge_into_what_the_default_rescales_is_refused(tmp_path: Path) -> None:
    def saved(name: str, **options: Any) -> Saved:
        return peft_saves(tiny_llama(), tmp_path / name, target_modules=["q_proj"], **options)

    model = adapted(tiny_llama(), saved("dora", use_dora=True), "dora")
    attach(model, saved("plain", seed=3), "plain")
    model.set_adapter(["dora", "plain"])
    before = logits(model)
    with pytest.raises((RoutingError, AttachError)) as caught:
        model.merge_adapter("plain")
    assert caught.value.code == "AD756"
    assert torch.equal(logits(model), before) and model.merged_adapters == []
