"""Where PEFT's combinations are not what their adapters say, ours are: against dense arithmetic.

The truth is made of what PEFT itself adds to each weight (``get_delta_weight``), by hand.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.manifests.findings import loader as codes
from adapterdock.manifests.findings.errors import RoutingError
from support.combinations import (
    dense_answer,
    options_of,
    peft_answer,
    peft_combines,
    peft_deltas,
    products,
    with_adapters,
)
from support.near import close, differs
from support.peft_adapters import (
    Saved,
    adapted,
    logits,
    peft_loads,
    peft_saves,
    tiny_gpt2,
    tiny_llama,
)

WEIGHTS = {"one": 0.7, "two": -0.4}


def two(folder: Path, base: Any = tiny_llama, **config: Any) -> tuple[Saved, Saved]:
    settings: dict[str, Any] = {"target_modules": ["q_proj", "v_proj", "up_proj"], **config}
    return tuple(  # type: ignore[return-value]
        peft_saves(base(), folder / name, seed=seed, **settings)
        for seed, name in enumerate(WEIGHTS, 1)
    )


def summed_deltas(base: Any, *saved: Saved) -> dict[str, torch.Tensor]:
    total: dict[str, torch.Tensor] = {}
    for one, weight in zip(saved, WEIGHTS.values(), strict=True):
        for module, delta in peft_deltas(base, one).items():
            total[module] = total.get(module, torch.zeros_like(delta)) + weight * delta
    return total


def exact(base: Any, *saved: Saved) -> torch.Tensor:
    """The base with the weighted deltas written into its weights."""
    return dense_answer(base, summed_deltas(base, *saved))


def ours(base: Any, saved: tuple[Saved, Saved], method: str, **options: Any) -> torch.Tensor:
    model = with_adapters(base, **dict(zip(WEIGHTS, saved, strict=True)))
    model.define_composition("mix", WEIGHTS, combine=method, **options)
    return logits(model, adapter="mix")


@pytest.mark.parametrize("method", ["sum", "cat", "svd"])
def test_rank_stabilised_adapters_are_summed_exactly(method: str, tmp_path: Path) -> None:
    """PEFT keeps ``use_rslora`` of the first, so that its result is scaled once more."""
    saved = two(tmp_path, use_rslora=True)
    wanted = exact(tiny_llama(), *saved)
    options = {"svd_rank": 8} if method == "svd" else {}
    assert close(ours(tiny_llama(), saved, method, **options), wanted, 512)
    if method != "sum":
        folders = [one.folder for one in saved]
        pefts = peft_answer(tiny_llama(), folders, list(WEIGHTS.values()), method, **options)
        assert differs(pefts, wanted, 1e-2)


@pytest.mark.parametrize("method", ["linear", "ties", "magnitude_prune"])
def test_methods_on_factors_do_not_scale_rslora_twice(method: str, tmp_path: Path) -> None:
    """The same definition, at scale 1: with each adapter's scale written into its alpha
    instead, PEFT gives our answer."""
    saved = two(tmp_path / "rs", use_rslora=True, r=4, lora_alpha=8)
    plain = two(tmp_path / "plain", r=4, lora_alpha=16)  # 8 / sqrt(4) = 16 / 4
    folders = [one.folder for one in plain]
    options = options_of(method)
    wanted = peft_answer(tiny_llama(), folders, list(WEIGHTS.values()), method, **options)
    assert close(ours(tiny_llama(), saved, method, **options), wanted)
    folders = [one.folder for one in saved]
    pefts = peft_answer(tiny_llama(), folders, list(WEIGHTS.values()), method, **options)
    assert differs(pefts, wanted, 1e-2)


@pytest.mark.parametrize("method", ["sum", "cat", "svd"])
def test_biases_of_factors_are_not_lost(method: str, tmp_path: Path) -> None:
    """PEFT combines the weights of ``lora_B`` and leaves its bias at zero."""
    base = tiny_llama(attention_bias=True, mlp_bias=True)
    saved = two(tmp_path, lambda: base, lora_bias=True)
    truth = tiny_llama(attention_bias=True, mlp_bias=True)
    truth.load_state_dict(base.state_dict())
    with torch.no_grad():
        for one, weight in zip(saved, WEIGHTS.values(), strict=True):
            model = peft_loads(base, one.folder)
            for path, module in model.base_model.model.named_modules():
                if hasattr(module, "lora_B") and one.folder.name in module.lora_B:
                    bias = module.lora_B[one.folder.name].bias * module.scaling[one.folder.name]
                    truth.get_submodule(path).bias += weight * bias
    deltas = summed_deltas(base, *saved)
    wanted = dense_answer(truth, deltas)
    options = {"svd_rank": 8} if method == "svd" else {}
    assert close(ours(base, saved, method, **options), wanted, 512)
    if method != "sum":
        folders = [one.folder for one in saved]
        pefts = peft_answer(base, folders, list(WEIGHTS.values()), method, **options)
        assert differs(pefts, wanted, 1e-2)


def test_a_combination_of_several_ranks_can_be_saved_and_read_again(tmp_path: Path) -> None:
    """PEFT forgets ``rank_pattern`` and cannot read its own result (peft#3737)."""
    saved = two(tmp_path, r=4, rank_pattern={"v_proj": 2})
    wanted = ours(tiny_llama(), saved, "linear")
    model = with_adapters(tiny_llama(), **dict(zip(WEIGHTS, saved, strict=True)))
    model.define_composition("mix", WEIGHTS, combine="linear")
    model.save_composition(tmp_path / "mix", "mix")
    assert close(logits(peft_loads(tiny_llama(), tmp_path / "mix")), wanted)

    folders = [one.folder for one in saved]
    peft = peft_combines(tiny_llama(), folders, list(WEIGHTS.values()), "linear")
    peft.save_pretrained(str(tmp_path / "pefts"), selected_adapters=["mix"])
    with pytest.raises(RuntimeError, match="size mismatch"):
        peft_loads(tiny_llama(), tmp_path / "pefts" / "mix")


@pytest.mark.parametrize("base", [tiny_llama, tiny_gpt2])
def test_a_sum_has_no_cross_terms_and_linear_has(base: Any, tmp_path: Path) -> None:
    """``linear`` adds A to A and B to B: (a + b)(c + d). That is PEFT's definition."""
    targets = {"target_modules": ["c_attn"], "fan_in_fan_out": True}
    saved = two(tmp_path, base, **(targets if base is tiny_gpt2 else {}))
    wanted = exact(base(), *saved)
    assert close(ours(base(), saved, "sum"), wanted)
    assert close(ours(base(), saved, "cat"), wanted)
    assert differs(ours(base(), saved, "linear"), wanted, 1e-2)


def test_an_svd_rank_may_exceed_that_of_a_module(tmp_path: Path) -> None:
    """v_proj has 8 outputs; PEFT's own result for rank 9 cannot be run."""
    saved = two(tmp_path)
    assert close(ours(tiny_llama(), saved, "svd", svd_rank=9), exact(tiny_llama(), *saved), 512)
    folders = [one.folder for one in saved]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        peft_answer(tiny_llama(), folders, list(WEIGHTS.values()), "svd", svd_rank=9)


def test_one_adapter_is_pruned_as_many_are(tmp_path: Path) -> None:
    """PEFT turns every method into ``linear`` where there is one adapter."""
    one, _ = two(tmp_path)
    model = adapted(tiny_llama(), one)
    model.define_composition("thin", {"it": 1.0}, combine="magnitude_prune_svd", density=0.25)
    pefts = peft_answer(tiny_llama(), [one.folder], [1.0], "magnitude_prune_svd", density=0.25)
    assert close(pefts, one.answer)
    whole, thin = products(model, "it"), products(model, "thin")
    for module, delta in whole.items():
        kept = delta.abs().flatten().topk(int(0.25 * delta.numel())).values.min()
        u, s, vh = torch.linalg.svd(torch.where(delta.abs() >= kept, delta, 0.0))
        near = u[..., :4] @ torch.diag_embed(s[:, :4]) @ vh[:, :4]
        assert close(thin[module], near)


def test_a_replaced_module_is_combined_only_at_weight_1(tmp_path: Path) -> None:
    """PEFT gives its result a copy of the base's head instead of the adapter's."""
    headed = peft_saves(
        tiny_llama(),
        tmp_path / "headed",
        seed=5,
        target_modules=["q_proj"],
        modules_to_save=["lm_head"],
    )
    other = peft_saves(tiny_llama(), tmp_path / "other", seed=6, target_modules=["v_proj"])
    model = with_adapters(tiny_llama(), headed=headed, other=other)
    model.define_composition("mix", {"headed": 1.0, "other": 0.5}, combine="cat")
    wanted = logits(model, adapter={"headed": 1.0, "other": 0.5})
    assert close(logits(model, adapter="mix"), wanted)
    pefts = peft_answer(tiny_llama(), [headed.folder, other.folder], [1.0, 0.5], "cat")
    assert differs(pefts, wanted, 1e-2)
    with pytest.raises(RoutingError) as caught:
        model.define_composition("half", {"headed": 0.5, "other": 0.5}, combine="cat")
    assert caught.value.code == "AD732"


@pytest.mark.parametrize("method", ["linear", "ties", "dare_linear", "dare_ties"])
def test_linear_refuses_factors_of_different_ranks(method: str, tmp_path: Path) -> None:
    one = peft_saves(tiny_llama(), tmp_path / "one", seed=1, r=2, target_modules=["q_proj"])
    two = peft_saves(tiny_llama(), tmp_path / "two", seed=2, r=4, target_modules=["q_proj"])
    model = with_adapters(tiny_llama(), one=one, two=two)
    with pytest.raises(RoutingError) as caught:
        model.define_composition("mix", WEIGHTS, combine=method, **options_of(method))
    assert caught.value.code == "AD708"
    assert {f.found for f in caught.value.findings} == {"one: 2, two: 4"}
    assert list(model._host.adapters.by_name) == ["one", "two"]
    with pytest.raises(ValueError, match="same r value"):
        peft_answer(tiny_llama(), [one.folder, two.folder], [1, 1], method, **options_of(method))


def test_ranks_may_differ_where_adapters_do_not_meet(tmp_path: Path) -> None:
    one = peft_saves(tiny_llama(), tmp_path / "one", seed=1, r=2, target_modules=["q_proj"])
    two = peft_saves(tiny_llama(), tmp_path / "two", seed=2, r=4, target_modules=["v_proj"])
    model = with_adapters(tiny_llama(), one=one, two=two)
    model.define_composition("mix", WEIGHTS, combine="linear")
    assert close(logits(model, adapter="mix"), logits(model, adapter=WEIGHTS))


def test_adapters_that_are_not_pairs_of_factors_are_refused(tmp_path: Path) -> None:
    from peft import LoHaConfig

    q = {"target_modules": ["q_proj"]}
    model = with_adapters(
        tiny_llama(),
        dora=peft_saves(tiny_llama(), tmp_path / "dora", use_dora=True, **q),
        loha=peft_saves(tiny_llama(), tmp_path / "loha", kind=LoHaConfig, r=2, **q),
    )
    for name, found in (("dora", "A, B, magnitude"), ("loha", "LOHA")):
        for method in ("linear", "svd", "ties_svd", "cat"):
            with pytest.raises(RoutingError, match=found) as caught:
                model.define_composition("mix", {name: 1.0}, combine=method, **options_of(method))
            assert caught.value.code == codes.COMBINE_UNSUPPORTED.id
        model.define_composition(f"sum-{name}", {name: 0.5})  # a sum takes anything


def test_a_parameter_that_belongs_to_no_site_is_never_left_out(tmp_path: Path) -> None:
    one, _ = two(tmp_path)
    model = adapted(tiny_llama(), one)
    adapter = model._host.adapters.by_name["it"]
    magnitude = "base_model.model.model.layers.1.mlp.up_proj.lora_magnitude_vector.it.weight"
    more = {**adapter.resident.parameters, magnitude: torch.nn.Parameter(torch.ones(3))}
    adapter.weights = dataclasses.replace(adapter.resident, parameters=more)
    with pytest.raises(RoutingError, match="lora_magnitude_vector"):
        model.define_composition("mix", {"it": 1.0}, combine="cat")
