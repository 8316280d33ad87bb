"""What PEFT's tests of weighted combinations prove, proved here:
``docs/reference/upstream.md`` lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings import fit as codes
from adapterdock.manifests.findings.errors import AttachError, RoutingError
from peft import IA3Config
from support.combinations import options_of, products, with_adapters
from support.moes import tiny_mixtral
from support.near import close, differs
from support.peft_adapters import (
    Saved,
    adapted,
    attach,
    inputs_of,
    logits,
    peft_loads,
    peft_saves,
    same_traces,
    tiny_bert,
    tiny_gpt2,
    tiny_llama,
    tiny_t5,
    traces,
)
from support.small_nets import Steps

BASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (tiny_llama, {"target_modules": ["q_proj", "up_proj", "v_proj"]}),
    "gpt2": (tiny_gpt2, {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "t5": (tiny_t5, {"target_modules": ["q", "v"]}),
}
RANKS = {"first": 4, "second": 4, "third": 7}
UNLIKE_RANKS = ("svd", "cat", "ties_svd", "dare_linear_svd", "dare_ties_svd", "magnitude_prune_svd")
ONE_RANK = ("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")


@pytest.fixture(scope="module", params=list(BASES))
def three(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, dict[str, Saved]]:
    """A base, and adapters on it of which the third has another rank."""
    make, config = BASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    saved = {
        name: peft_saves(make(), folder / name, seed=seed, r=rank, **config)
        for seed, (name, rank) in enumerate(RANKS.items(), 1)
    }
    return make, saved


def pefts(base: Any, saved: dict[str, Saved], *names: str) -> Any:
    return peft_loads(base, *(saved[name].folder for name in names))


@pytest.mark.parametrize("weights", [(0.5, 1.5, 1.5), (-0.5, -0.8, -1.2)], ids=["+", "-"])
def test_every_method_makes_an_adapter_that_is_chosen_and_runs(
    weights: tuple[float, float, float], three: tuple[Any, dict[str, Saved]]
) -> None:
    make, saved = three
    base = make()
    model = with_adapters(base, **saved)
    alone = logits(model)
    model.add_weighted_adapter(["first"], [weights[0]], "re-weighted")
    wanted = {name: weights[0] * delta for name, delta in products(model, "first").items()}
    assert all(close(delta, wanted[n]) for n, delta in products(model, "re-weighted").items())

    for method in UNLIKE_RANKS:  # of ranks 4 and 7
        options = options_of(method)
        model.add_weighted_adapter(
            ["second", "third"], list(weights[1:]), method, method, **options
        )
        assert model.adapters[method].rank == (11 if method == "cat" else 7)
    for method in ONE_RANK:  # of rank 4 both
        options = options_of(method)
        model.add_weighted_adapter(
            ["first", "second"], list(weights[:2]), method, method, **options
        )
        assert model.adapters[method].rank == 4
        with pytest.raises(RoutingError) as caught:
            model.add_weighted_adapter(
                ["second", "third"], list(weights[1:]), f"{method}-uneven", method, **options
            )
        assert caught.value.code == "AD708"
    assert set(model.adapters) == {*RANKS, *UNLIKE_RANKS, *ONE_RANK, "re-weighted"}

    for name in (*UNLIKE_RANKS, *ONE_RANK, "re-weighted"):
        model.set_adapter(name)
        answer = logits(model)
        assert answer.isfinite().all()
        assert differs(answer, alone, 1e-4)
        assert close(answer, logits(model, adapter=name))
    assert torch.equal(logits(model, adapter=None), alone)


def test_a_member_at_weight_zero_has_no_effect(three: tuple[Any, dict[str, Saved]]) -> None:
    make, saved = three
    model = with_adapters(make(), **saved)
    model.add_weighted_adapter(["first", "second"], [0.5, 0], "part", "linear")
    wanted = {name: 0.5 * delta for name, delta in products(model, "first").items()}
    assert all(close(delta, wanted[n]) for n, delta in products(model, "part").items())
    oracle = pefts(make(), saved, "first", "second")
    oracle.add_weighted_adapter(["first", "second"], [0.5, 0], "part", "linear")
    oracle.base_model.set_adapter("part")
    assert close(logits(model, adapter="part"), logits(oracle, inputs_of(make())))


@pytest.mark.parametrize("method", ["linear", "cat", "svd", "sum"])
def test_a_weight_of_minus_one_negates_an_adapter(method: str, tmp_path: Path) -> None:
    base = Steps().eval()
    saved = peft_saves(base, tmp_path / "it", target_modules=["narrow"])
    model = adapted(base, saved)
    model.define_composition("turned", {"it": -1.0}, combine=method)
    alone = logits(model, adapter=None)
    assert close(logits(model, adapter="turned"), 2 * alone - saved.answer)
    if method != "sum":
        (before,), (after,) = (products(model, name).values() for name in ("it", "turned"))
        assert close(after, -before)


@pytest.mark.parametrize("method", ["linear", "cat", "svd", "sum"])
def test_an_adapter_minus_itself_is_the_base(method: str, tmp_path: Path) -> None:
    base = Steps().eval()
    saved = peft_saves(base, tmp_path / "it", target_modules=["wide"])
    model = with_adapters(base, one=saved, same=saved)
    if method == "linear":  # factors of zeros: an adapter that would do nothing
        with pytest.raises(AttachError) as caught:
            model.add_weighted_adapter(["one", "same"], [1.0, -1.0], "none", method)
        assert caught.value.code == codes.EMPTY.id
        assert list(model.adapters) == ["one", "same"]
        return
    model.define_composition("none", {"one": 1.0, "same": -1.0}, combine=method)
    assert close(logits(model, adapter="none"), logits(model, adapter=None))


@pytest.mark.parametrize("method", ["linear", "cat", "svd"])
def test_signs_and_scales_of_their_own_go_together(method: str, tmp_path: Path) -> None:
    base = Steps().eval()
    config = {"target_modules": ["wide"], "r": 4}
    one = peft_saves(base, tmp_path / "one", seed=1, lora_alpha=8, **config)
    two = peft_saves(base, tmp_path / "two", seed=2, lora_alpha=16, **config)
    model = with_adapters(base, one=one, two=two)
    model.add_weighted_adapter(["one", "two"], [0.5, -0.3], "made", method)
    oracle = peft_loads(base, one.folder, two.folder)
    oracle.add_weighted_adapter(["one", "two"], [0.5, -0.3], "made", method)
    oracle.base_model.set_adapter("made")
    assert close(logits(model, adapter="made"), logits(oracle, {"x": base.example}))
    if method == "cat":
        exact = logits(model, adapter={"one": 0.5, "two": -0.3})
        assert close(logits(model, adapter="made"), exact)


def test_ranks_by_module_are_kept_side_by_side(tmp_path: Path) -> None:
    base = Steps().eval()
    config = {"target_modules": ["wide", "narrow"], "r": 5}
    one = peft_saves(base, tmp_path / "one", seed=1, rank_pattern={"wide": 2}, **config)
    two = peft_saves(base, tmp_path / "two", seed=2, rank_pattern={"wide": 9}, **config)
    model = with_adapters(base, one=one, two=two)
    model.add_weighted_adapter(["one", "two"], [1.0, 1.0], "both", "cat")
    ranks = {
        name.split(".")[-4]: value.shape[0]
        for name, value in model.state_dict().items()
        if "lora_A.both" in name
    }
    assert ranks == {"wide": 11, "narrow": 10}
    assert close(logits(model, adapter="both"), logits(model, adapter=["one", "two"]))


# -- whole modules --------------------------------------------------------------------------


def test_a_module_replaced_by_one_member_is_in_the_combination(tmp_path: Path) -> None:
    base = Steps().eval()
    whole = peft_saves(
        base, tmp_path / "whole", target_modules=["wide"], modules_to_save=["narrow"]
    )
    plain = peft_saves(base, tmp_path / "plain", seed=2, target_modules=["wide"])
    model = with_adapters(base, whole=whole, plain=plain)
    model.add_weighted_adapter(["whole", "plain"], [1.0, 1.0], "made", "linear")
    copies = {name for name in model.state_dict() if "modules_to_save" in name}
    assert any(".whole." in name for name in copies) and any(".made." in name for name in copies)
    assert not any(".plain." in name for name in copies)
    own, made = (
        model.state_dict()[f"base_model.model.narrow.modules_to_save.{name}.weight"]
        for name in ("whole", "made")
    )
    assert torch.equal(own, made)
    inner = torch.tanh  # the whole module is the last: put it on what stands before it
    hidden: list[torch.Tensor] = []
    handle = base.wide.register_forward_hook(lambda *args: hidden.append(inner(args[-1])))
    answer = logits(model, adapter="made")
    handle.remove()
    bias = model.state_dict()["base_model.model.narrow.modules_to_save.whole.bias"]
    assert close(answer, torch.nn.functional.linear(hidden[0], own, bias))


@pytest.mark.parametrize("method", ["linear", "cat", "sum"])
def test_a_module_replaced_by_two_members_cannot_be_combined(method: str, tmp_path: Path) -> None:
    base = Steps().eval()
    config = {"target_modules": ["wide"], "modules_to_save": ["narrow"]}
    model = with_adapters(
        base,
        one=peft_saves(base, tmp_path / "one", **config),
        two=peft_saves(base, tmp_path / "two", seed=2, **config),
    )
    with pytest.raises(RoutingError) as caught:
        model.define_composition("made", {"one": 1.0, "two": 1.0}, combine=method)
    assert caught.value.code == "AD732"
    assert list(model.adapters) == ["one", "two"]


def test_heads_of_tasks_cannot_be_combined(tmp_path: Path) -> None:
    base = tiny_bert()
    config = {"target_modules": ["query"], "task_type": "SEQ_CLS"}
    model = with_adapters(
        base,
        one=peft_saves(base, tmp_path / "one", **config),
        two=peft_saves(base, tmp_path / "two", seed=2, **config),
    )
    with pytest.raises(RoutingError) as caught:
        model.add_weighted_adapter(["one", "two"], [1.0, 1.0], "made")
    assert caught.value.code == "AD732"
    assert "classifier" in str(caught.value)


# -- what is left as it was -----------------------------------------------------------------


def test_combining_changes_neither_members_nor_base(tmp_path: Path) -> None:
    base = tiny_llama()
    config = {"target_modules": ["q_proj"]}
    one = peft_saves(base, tmp_path / "one", **config)
    two = peft_saves(base, tmp_path / "two", seed=2, **config)
    model = with_adapters(base, one=one, two=two)
    before = traces(base)
    infos, values = dict(model.adapters), {k: v.clone() for k, v in model.state_dict().items()}
    model.add_weighted_adapter(["one"], [0.5], "light")
    model.add_weighted_adapter(["one", "two"], [0.5, 0.5], "both", "linear")
    assert {name: model.adapters[name] for name in infos} == infos
    assert all(torch.equal(model.state_dict()[name], value) for name, value in values.items())
    assert same_traces(traces(base), before)


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (Steps, {"kind": IA3Config, "target_modules": ["wide"], "feedforward_modules": ["wide"]}),
        (
            tiny_mixtral,
            {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj"]},
        ),
        (Steps, {"target_modules": ["wide"], "use_dora": True}),
    ],
    ids=["IA3", "experts", "DoRA"],
)
def test_adapters_without_factors_can_only_be_summed(
    make: Any, config: dict[str, Any], tmp_path: Path
) -> None:
    base = make().eval()
    model = AdaptedModel(base)
    for seed, name in enumerate(("one", "two"), 1):
        attach(model, peft_saves(base, tmp_path / name, seed=seed, **config), name)
    for method in ("linear", "cat", "svd"):
        with pytest.raises(RoutingError) as caught:
            model.add_weighted_adapter(["one", "two"], [0.5, 1.5], "made", method)
        assert {f.code for f in caught.value.findings} == {"AD708"}
    assert list(model.adapters) == ["one", "two"]
    for weights in ({"one": 0.5}, {"one": 0.5, "two": 1.5}, {"one": -0.5, "two": -1.2}):
        model.define_composition("mix", weights)
        answer = logits(model, adapter="mix")
        assert answer.isfinite().all()
        assert torch.equal(answer, logits(model, adapter=weights))
        assert differs(answer, logits(model, adapter=None), 1e-3)
        model.delete_composition("mix")


def test_a_combination_runs_on_a_quantised_base(tmp_path: Path) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    base = tiny_llama()
    config = {"target_modules": ["q_proj", "down_proj"]}
    for seed, name in enumerate(("one", "two"), 1):
        peft_saves(base, tmp_path / name, seed=seed, **config)
    quantize_(base.model.layers, Int8WeightOnlyConfig(version=2))
    model = AdaptedModel(base)
    for name in ("one", "two"):
        model.load_adapter(tmp_path / name, name)
    model.add_weighted_adapter(["one", "two"], [0.5, 0.5], "made", "cat")
    answers = [logits(model, adapter=name) for name in (None, "one", "two", "made")]
    for at, one in enumerate(answers):
        assert all(differs(one, other, 1e-3) for other in answers[at + 1 :])
    assert close(answers[-1], logits(model, adapter={"one": 0.5, "two": 0.5}))
