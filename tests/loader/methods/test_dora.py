"""DoRA: PEFT's logits, a norm that is computed once and never stale, and refused modules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.methods import dora
from adapterdock.manifests.findings.errors import AttachError, FitError
from safetensors.torch import load_file, save_file
from support.attach import attach_adapter
from support.near import close, differs
from support.peft_adapters import (
    Saved,
    adapted,
    attach,
    by_peft_name,
    inputs_of,
    logits,
    peft_loads,
    peft_saves,
    same_traces,
    tiny_bert,
    tiny_conv,
    tiny_gpt2,
    tiny_llama,
    traces,
)

CONVOLUTIONS = ["first", "grouped", "line", "deep", "head"]
OPTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "linear": (tiny_llama, {"target_modules": "all-linear"}),
    "rslora": (tiny_llama, {"target_modules": ["q_proj", "down_proj"], "use_rslora": True}),
    "patterns": (
        tiny_llama,
        {
            "target_modules": ["q_proj", "v_proj"],
            "rank_pattern": {"layers.1.self_attn.q_proj": 2},
            "alpha_pattern": {"layers.0.self_attn.q_proj": 1},
        },
    ),
    "conv1d": (tiny_gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "embedding": (tiny_llama, {"target_modules": ["embed_tokens", "q_proj"]}),
    "head": (tiny_llama, {"target_modules": ["lm_head", "q_proj"]}),
    "conv": (tiny_conv, {"target_modules": CONVOLUTIONS}),
    "biases": (tiny_bert, {"target_modules": ["query"], "bias": "lora_only"}),
    "saved": (tiny_llama, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_logits_match_peft_and_the_base_is_unchanged(option: str, tmp_path: Path) -> None:
    make, config = OPTIONS[option]
    base = make()
    alone, before = logits(base), traces(base)
    saved = peft_saves(base, tmp_path / "it", use_dora=True, **config)
    assert differs(saved.answer, alone), "the adapter must matter"

    model = adapted(base, saved)
    for _ in range(2):  # the norm is computed, then kept
        assert close(logits(model), saved.answer)
    assert torch.equal(logits(base), alone)
    assert model.findings == ()
    assert model.detach() is base
    assert same_traces(traces(base), before)


@pytest.mark.parametrize("modules", [["q_proj", "embed_tokens"], ["lm_head"]])
def test_tied_embeddings_match_peft(modules: list[str], tmp_path: Path) -> None:
    base = tiny_llama(tie_word_embeddings=True)
    saved = peft_saves(base, tmp_path / "it", target_modules=modules, use_dora=True)
    assert close(logits(adapted(base, saved)), saved.answer)


def test_resized_embedding_is_rescaled_by_its_own_weight(tmp_path: Path) -> None:
    base, grown = tiny_llama(), tiny_llama()
    grown.resize_token_embeddings(64)
    saved = peft_saves(grown, tmp_path / "it", target_modules=["embed_tokens"], use_dora=True)
    model = adapted(base, saved)  # the adapter has no head: the base's keeps its 61 rows
    assert close(logits(model), saved.answer[..., :61])


def test_live_names_match_peft(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules=["q_proj"], use_dora=True)
    oracle = peft_loads(base, saved.folder)
    theirs = {n: v for n, v in oracle.state_dict().items() if "lora_" in n}
    ours = adapted(base, saved).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)


def dense(base: Any, tensors: dict[str, torch.Tensor], scale: float) -> dict[str, torch.Tensor]:
    """An adapter's delta of each linear's weight, computed with full matrices."""
    state, found = base.state_dict(), {}
    for key, a in tensors.items():
        if not key.endswith(".lora_A.weight"):
            continue
        module = key.removesuffix(".lora_A.weight")
        name = module.removeprefix("base_model.model.") + ".weight"
        weight, product = state[name].double(), tensors[f"{module}.lora_B.weight"].double()
        whole = weight + scale * product @ a.double()
        m = tensors.get(f"{module}.lora_magnitude_vector")
        if m is not None:
            whole = whole * (m.double() / whole.norm(dim=1))[:, None]
        found[name] = whole - weight
    return found


def test_sum_of_dora_and_lora_matches_the_sum_of_dense_deltas(tmp_path: Path) -> None:
    base = tiny_llama()
    one = peft_saves(base, tmp_path / "one", target_modules="all-linear", use_dora=True)
    two = peft_saves(base, tmp_path / "two", seed=2, target_modules="all-linear", r=2)
    expected = copy.deepcopy(base).double()
    state = expected.state_dict()
    parts = (
        (0.5, dense(base, load_file(one.file), 2.0)),
        (1.0, dense(base, load_file(two.file), 4.0)),
    )
    for weight, deltas in parts:
        for name, delta in deltas.items():
            state[name] += weight * delta

    model = AdaptedModel(base)
    attach(model, one, "one")
    attach(model, two, "two")
    for order in ({"one": 0.5, "two": 1.0}, {"two": 1.0, "one": 0.5}):
        model.set_adapter(order)
        assert close(logits(model), logits(expected))


def test_norm_is_computed_once_and_again_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules=["q_proj"], use_dora=True)
    model = adapted(base, saved)
    counted: list[None] = []
    real = dora.norm

    def count(*args: Any) -> torch.Tensor:
        counted.append(None)
        return real(*args)

    monkeypatch.setattr(dora, "norm", count)

    def computed() -> int:
        counted.clear()
        logits(model)
        return len(counted)

    assert [computed(), computed()] == [2, 0]
    parameters = dict(model.named_parameters())
    a = next(p for n, p in parameters.items() if "lora_A" in n)
    with torch.no_grad():
        a.mul_(2)
    assert computed() and not computed()
    a.data = a.data / 2
    assert computed() and not computed()
    with torch.no_grad():
        base.model.layers[1].self_attn.q_proj.weight.mul_(2)
    assert computed() and not computed()
    base.model.layers[1].self_attn.q_proj.weight.data = (
        base.model.layers[1].self_attn.q_proj.weight.data / 2
    )
    assert computed() and not computed()
    assert close(logits(model), saved.answer)
    model.train()
    assert [computed(), computed()] == [2, 2]


def test_norm_computed_in_inference_mode_or_autocast_is_valid_in_other_modes(
    tmp_path: Path,
) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules="all-linear", use_dora=True)
    model = adapted(base, saved)
    with torch.inference_mode():
        assert close(model(**inputs_of(base)).logits, saved.answer)
    embedded = base.model.embed_tokens(inputs_of(base)["input_ids"]).detach().requires_grad_()
    model(inputs_embeds=embedded).logits.sum().backward()
    assert embedded.grad is not None and bool(embedded.grad.any())
    model.detach()
    model = adapted(base, saved)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert close(logits(model), saved.answer, 32)
    assert close(logits(model), saved.answer)


def test_training_gradients_match_peft(tmp_path: Path) -> None:
    base = tiny_gpt2()
    saved = peft_saves(
        base, tmp_path / "it", target_modules=["c_attn"], use_dora=True, fan_in_fan_out=True
    )
    oracle = peft_loads(base, saved.folder)
    for name, parameter in oracle.named_parameters():
        parameter.requires_grad_("lora_" in name)
    batch = {**inputs_of(base), "labels": inputs_of(base)["input_ids"]}
    oracle(**batch).loss.backward()
    model = adapted(base, saved, trainable=True)
    model(**batch).loss.backward()
    theirs = {n: p.grad for n, p in oracle.named_parameters() if p.grad is not None}
    ours = {n: p.grad for n, p in by_peft_name(model).items() if p.grad is not None}
    assert ours.keys() == theirs.keys() and any("magnitude" in n for n in ours)
    assert all(close(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize("make", [tiny_llama, tiny_conv])
def test_dropout_applies_to_the_base_part_as_in_peft(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    base = make()
    modules = ["q_proj"] if make is tiny_llama else ["first", "grouped"]
    saved = peft_saves(
        base, tmp_path / "it", target_modules=modules, use_dora=True, lora_dropout=0.5
    )
    oracle = peft_loads(base, saved.folder)
    model = adapted(base, saved, trainable=True, dropout=0.5)
    assert close(logits(model), saved.answer)
    for trained in (oracle, model):
        trained.train()
        for module in trained.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
    torch.manual_seed(5)
    expected = logits(oracle, inputs_of(base))
    torch.manual_seed(5)
    assert close(logits(model), expected)
    assert differs(expected, saved.answer)


@pytest.mark.parametrize("make", [tiny_llama, tiny_conv])
def test_bfloat16_base_matches_peft(make: Callable[..., Any], tmp_path: Path) -> None:
    base = make()
    modules = "all-linear" if make is tiny_llama else ["first", "head"]
    saved = peft_saves(base, tmp_path / "it", target_modules=modules, use_dora=True)
    half = base.to(torch.bfloat16)
    inputs = {k: v if v.dtype is torch.int64 else v.bfloat16() for k, v in inputs_of(base).items()}
    oracle = logits(peft_loads(half, saved.folder), inputs)
    for dtype in (torch.float32, None):
        model = AdaptedModel(half)
        attach(model, saved, dtype=dtype)
        answer = logits(model, inputs)
        assert answer.dtype is torch.bfloat16
        assert close(answer, oracle, 8)
        assert close(answer, saved.answer, 32)
        model.detach()


def test_norm_of_an_offloaded_base_uses_its_real_weights(tmp_path: Path) -> None:
    from accelerate import cpu_offload, disk_offload

    base = tiny_llama()
    saved = peft_saves(
        base, tmp_path / "it", target_modules=["q_proj", "down_proj", "embed_tokens"], use_dora=True
    )
    for offload in (
        cpu_offload,
        lambda model: disk_offload(model, str(tmp_path / "offload"), offload_buffers=True),
    ):
        moved = copy.deepcopy(base)
        offload(moved)
        assert moved.model.layers[0].self_attn.q_proj.weight.is_meta
        model = adapted(moved, saved)
        for _ in range(2):
            assert close(logits(model), saved.answer)


def test_quantised_weight_is_refused(tmp_path: Path) -> None:
    class Linear8bit(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.in_features = self.out_features = 16
            weight = torch.randint(-127, 127, (16, 16), dtype=torch.int8)
            self.weight = torch.nn.Parameter(weight, requires_grad=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ (self.weight.to(x) / 127).t()

    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules=["q_proj"], use_dora=True)
    plan = saved.plan(base)
    base.model.layers[1].self_attn.q_proj = Linear8bit()
    model = AdaptedModel(base)
    with pytest.raises(AttachError) as caught:
        attach_adapter(model, "it", plan, saved.tensors())
    assert "quantised" in str(caught.value) and "layers.1" in str(caught.value)
    assert model.adapters == {}


def test_magnitude_of_wrong_size_is_refused(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(base, tmp_path / "it", target_modules=["q_proj"], use_dora=True)
    tensors = load_file(saved.file)
    key = next(k for k in tensors if "magnitude" in k)
    tensors[key] = tensors[key][:8].clone()
    save_file(tensors, saved.file, {"format": "pt"})
    with pytest.raises(FitError) as caught:
        AdaptedModel(base).load_adapter(saved.folder, "it")
    assert "(8,)" in str(caught.value) and "(16,)" in str(caught.value)


def test_untrained_dora_is_refused_unless_trainable(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = tiny_llama()
    fresh = get_peft_model(
        copy.deepcopy(base), LoraConfig(target_modules=["q_proj"], use_dora=True)
    )
    fresh.save_pretrained(str(tmp_path / "it"))

    saved = Saved(tmp_path / "it", logits(base))
    with pytest.raises(AttachError, match="changes nothing anywhere"):
        adapted(base, saved)
    trained = AdaptedModel(base)
    attach(trained, saved, trainable=True)
    assert close(logits(trained), logits(base))
