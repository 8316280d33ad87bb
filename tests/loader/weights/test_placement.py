"""Factors have the dtype and the device of the module they act on."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.base.interception import Interception
from adapterdock.loader.weights.placement import compute_dtype, device_of
from adapterdock.manifests.findings.errors import AttachError
from adapterdock.registry.files.facts import AdapterPlan, SitePlan
from support.attach import attach_adapter
from support.near import close, differs
from support.peft_adapters import (
    Saved,
    adapted,
    attach,
    ids,
    logits,
    peft_saves,
    tensors_of,
    tiny_bert,
    tiny_llama,
)
from torch import nn


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("adapters") / "it"
    return peft_saves(
        tiny_llama(),
        folder,
        target_modules=["q_proj", "down_proj", "embed_tokens"],
        modules_to_save=["lm_head"],
    )


def test_factors_take_the_dtype_of_their_module_unless_declared(saved: Saved) -> None:
    base = tiny_llama().to(torch.bfloat16)
    base.model.layers[1].float()
    model = AdaptedModel(base)
    attach(model, saved, "follows")
    attach(model, saved, "declared", dtype=torch.float16)
    attach(model, saved, "trained", trainable=True)
    for name, tensor in model.state_dict().items():
        if ".declared" in name:
            assert tensor.dtype is torch.float16
        elif ".trained" in name:
            assert tensor.dtype is torch.float32
        else:
            assert tensor.dtype is (torch.float32 if "layers.1." in name else torch.bfloat16)


def test_a_float32_adapter_of_a_bfloat16_base_is_not_rounded(saved: Saved) -> None:
    base = tiny_llama().to(torch.bfloat16)
    model = adapted(base, saved, dtype=torch.float32)
    stored = saved.tensors()
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    live = model.state_dict()[key.replace("lora_A", "lora_A.it")]
    assert torch.equal(live, stored.host(key))


@pytest.mark.parametrize("kind", ["cpu", "disk"])
def test_an_offloaded_base_gives_the_same_logits(kind: str, saved: Saved, tmp_path: Path) -> None:
    from accelerate import cpu_offload, disk_offload

    base = tiny_llama()
    alone = logits(base)
    if kind == "cpu":
        cpu_offload(base, execution_device=torch.device("cpu"))
    else:
        disk_offload(base, str(tmp_path), execution_device=torch.device("cpu"))
    assert base.model.layers[0].self_attn.q_proj.weight.is_meta
    before = {n: dict(vars(m)).keys() for n, m in base.named_modules()}
    model = adapted(base, saved)
    assert {t.device.type for t in model.state_dict().values()} == {"cpu"}
    assert close(logits(model), saved.answer)
    assert torch.equal(logits(base), alone)
    with model.disable_adapter():
        assert torch.equal(logits(model), alone)
    assert model.generate(ids(), max_new_tokens=3, do_sample=False).shape == (2, 10)
    model.detach()
    assert {n: dict(vars(m)).keys() for n, m in base.named_modules()} == before
    assert torch.equal(logits(base), alone)


def test_trained_biases_of_an_offloaded_base_are_differences_from_its_own(tmp_path: Path) -> None:
    from accelerate import cpu_offload

    base = tiny_bert()
    one = peft_saves(base, tmp_path / "it", target_modules=["query"], bias="all")
    cpu_offload(base, execution_device=torch.device("cpu"))
    assert close(logits(adapted(base, one)), one.answer)


def test_offloading_after_attaching_works(saved: Saved) -> None:
    from accelerate import cpu_offload
    from accelerate.hooks import remove_hook_from_submodules

    base = tiny_llama()
    alone = logits(base)
    model = adapted(base, saved)
    cpu_offload(base, execution_device=torch.device("cpu"))
    assert close(logits(model), saved.answer)
    model.detach()
    assert not any(
        isinstance(value, Interception) for m in base.modules() for value in vars(m).values()
    )
    assert torch.equal(logits(base), alone)
    remove_hook_from_submodules(base)
    assert torch.equal(logits(base), alone)


@pytest.mark.parametrize("trainable", [True, False])
def test_float32_replacements_on_a_half_precision_base_return_half_precision(
    trainable: bool, tmp_path: Path
) -> None:
    base = tiny_llama()
    one = peft_saves(
        base,
        tmp_path / "it",
        target_modules=["q_proj"],
        modules_to_save=["lm_head", "embed_tokens", "model.norm", "layers.1.mlp"],
    )
    base.to(torch.bfloat16)
    model = adapted(base, one, trainable=trainable, dtype=torch.float32)
    answer = logits(model)
    assert answer.dtype is torch.bfloat16
    assert close(answer, one.answer, 32)
    if trainable:
        model(ids(), labels=ids()).loss.backward()
        grads = [p.grad for p in model.parameters() if p.requires_grad]
        assert grads
        assert all(g is not None and g.dtype is torch.float32 for g in grads)


class Quantised(nn.Linear):
    """Like quantisers: a packed integer weight, and a separate compute dtype."""

    def __init__(self, plain: nn.Linear, dtype: torch.dtype | None) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=False)
        self.scale = plain.weight.abs().max().item() / 127
        packed = (plain.weight / self.scale).round().to(torch.int8).flatten()[:, None]
        self.weight = nn.Parameter(packed, requires_grad=False)
        if dtype is not None:
            self.compute_dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.view(self.out_features, self.in_features).to(x.dtype) * self.scale
        return nn.functional.linear(x, weight)


@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_a_quantised_linear_is_fitted_by_its_features_and_computed_in_its_dtype(
    dtype: torch.dtype | None, saved: Saved
) -> None:
    base = tiny_llama()
    for layer in base.model.layers:
        layer.self_attn.q_proj = Quantised(layer.self_attn.q_proj, dtype)
    model = adapted(base, saved)
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32}
    alone, answer = logits(base), logits(model)
    assert differs(answer, alone)
    assert close(answer, saved.answer, 32, computed_in=torch.bfloat16)


def test_dtype_and_device_of_odd_modules() -> None:
    model = nn.Sequential(nn.Linear(2, 2).to(torch.bfloat16), nn.ReLU())
    assert compute_dtype(model[1], model) is torch.bfloat16
    assert device_of(model, model) == torch.device("cpu")
    assert device_of(nn.ReLU(), nn.ReLU()) is None
    assert device_of(nn.Linear(2, 2, device="meta"), model) is None


def test_an_adapter_of_a_cpu_model_stays_on_the_cpu(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    model = adapted(tiny_llama(), saved)
    assert {t.device.type for t in model.state_dict().values()} == {"cpu"}


def test_a_shared_embedding_of_t5_is_refused_and_its_projections_are_not(tmp_path: Path) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Embedding(8, 4)
            self.encoder = nn.Module()
            self.encoder.embed_tokens = self.shared

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.encoder.embed_tokens(x) + self.shared(x)

    tensors = {"a": torch.randn(2, 8), "b": torch.randn(4, 2)}
    roles = {"embedding_A": "a", "embedding_B": "b"}
    plan = AdapterPlan((SitePlan("shared", "LORA", roles, 2, 2.0, 1.0),))
    with pytest.raises(AttachError) as caught:
        attach_adapter(AdaptedModel(Shared()), "it", plan, tensors_of(tensors))
    assert caught.value.code == "AD714"
    tied = copy.deepcopy(Shared())
    tied.encoder.embed_tokens = nn.Embedding(8, 4)
    tied.encoder.embed_tokens.weight = tied.shared.weight
    attach_adapter(AdaptedModel(tied), "it", plan, tensors_of(tensors))
