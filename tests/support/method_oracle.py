"""What every native method has to keep: PEFT's answers, exact sums, and a base left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AttachError
from torch import nn

from support.near import close, differs

from .peft_adapters import (
    adapted,
    attach,
    by_peft_name,
    inputs_of,
    logits,
    one_layer,
    peft_loads,
    peft_saves,
    same_traces,
    tiny_llama,
    traces,
)


def check_answers(make: Callable[[], Any], folder: Path, kind: Any, **config: Any) -> None:
    """PEFT's logits, to 1e-5 in float32; the base's own beside them; nothing left behind."""
    base = make()
    alone, before = logits(base), traces(base)
    saved = peft_saves(base, folder, kind=kind, **config)
    assert differs(saved.answer, alone), "the adapter must matter"

    model = adapted(base, saved)
    assert close(logits(model), saved.answer)
    assert torch.equal(logits(base), alone)
    with model.disable_adapter():
        assert torch.equal(logits(model), alone)
    assert close(logits(model), saved.answer)
    assert model.findings == ()
    live = {name for name in model.state_dict() if ".bias." not in name}  # PEFT's are the base's
    assert live <= {name for name, _ in peft_loads(base, folder).named_parameters()}

    assert model.detach() is base
    assert same_traces(traces(base), before)

    model = AdaptedModel(base)  # by the road with all checks
    model.load_adapter(folder, "it")
    assert close(logits(model, adapter="it"), saved.answer)


def check_sums(layer: str, folder: Path, kind: Any, change: Any = None, **config: Any) -> None:
    """With one layer the deltas add up: weights of 0.5, -1, 2 and 0, alone and beside a LoRA and
    another adapter of the method, in any order, are dense arithmetic."""
    base = one_layer(layer)
    alone = logits(base)
    config = {"target_modules": ["layer"], **config}
    saved = peft_saves(base, folder / "it", kind=kind, change=change, **config)
    other = peft_saves(base, folder / "other", kind=kind, seed=3, change=change, **config)
    lora = peft_saves(base, folder / "lora", seed=5, target_modules=["layer"])
    deltas = {
        name: one.answer - alone for name, one in (("it", saved), ("other", other), ("lora", lora))
    }
    assert all(delta.abs().max() > 1e-3 for delta in deltas.values())

    model = AdaptedModel(base)
    for name, one in (("it", saved), ("lora", lora), ("other", other)):
        attach(model, one, name)
    for weights in (
        {"it": 0.5},
        {"it": -1.0},
        {"it": 0.0},
        {"it": 2.0, "lora": -1.0},
        {"lora": 0.5, "it": 1.0},
        {"it": 1.0, "other": 1.0, "lora": 1.0},
        {"other": -0.5, "lora": 2.0, "it": 0.5},
    ):
        expected = alone + sum(weight * deltas[name] for name, weight in weights.items())
        model.set_adapter(weights)
        assert close(logits(model), expected), weights


def check_half_precision(folder: Path, kind: Any, **config: Any) -> None:
    """A bfloat16 base answers in bfloat16, as PEFT with float32 factors; with factors in its own
    dtype it stays near."""
    base = tiny_llama()
    saved = peft_saves(base, folder, kind=kind, **config)
    half = base.to(torch.bfloat16)
    oracle = logits(peft_loads(half, folder), inputs_of(base))
    for dtype, roundings in ((torch.float32, 4), (None, 16)):
        model = adapted(half, saved, dtype=dtype)
        answer = logits(model)
        assert answer.dtype is torch.bfloat16
        assert close(answer, oracle, roundings)
        model.detach()


def check_quantised_and_offloaded(folder: Path, kind: Any, **config: Any) -> None:
    """On an int8 base the answer is that of the same base with its weights written out; under
    accelerate's offload it is PEFT's."""
    from accelerate import cpu_offload
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    base = tiny_llama()
    saved = peft_saves(base, folder, kind=kind, **config)
    quantised, dense = tiny_llama(), tiny_llama()
    quantize_(quantised.model.layers, Int8WeightOnlyConfig(version=2))
    for name, parameter in dense.named_parameters():
        kept = quantised.get_parameter(name)
        if type(kept.data) is not torch.Tensor:
            parameter.data = kept.dequantize().to(parameter.dtype)
    assert not torch.equal(logits(dense), logits(base))
    expected = logits(adapted(dense, saved))
    assert close(logits(adapted(quantised, saved)), expected)

    offloaded = cpu_offload(base)
    assert offloaded.model.layers[0].mlp.up_proj.weight.is_meta
    model = adapted(offloaded, saved)
    assert close(logits(model), saved.answer)
    assert offloaded.model.layers[0].mlp.up_proj.weight.is_meta


def check_untrained_is_refused(
    make: Callable[[], Any],
    folder: Path,
    kind: Any,
    change: Any,
    trains: bool = True,
    **config: Any,
) -> None:
    """``change`` makes it an adapter that does nothing: refused, unless training continues."""
    base = make()
    before = traces(base)
    saved = peft_saves(base, folder, kind=kind, change=change, **config)
    model = AdaptedModel(base)
    with pytest.raises(AttachError, match="changes nothing anywhere"):
        attach(model, saved)
    assert same_traces(traces(model.detach()), before)
    if trains:
        model = adapted(base, saved, trainable=True)
        assert close(logits(model), saved.answer)


def check_gradients(folder: Path, kind: Any, prefix: str, **config: Any) -> None:
    """A trainable adapter has PEFT's gradients under PEFT's names, and the base none."""
    base = tiny_llama()
    saved = peft_saves(base, folder, kind=kind, **config)
    oracle = peft_loads(base, folder)
    for name, parameter in oracle.named_parameters():
        parameter.requires_grad_(prefix in name)
    batch = {**inputs_of(base), "labels": inputs_of(base)["input_ids"]}
    oracle(**batch).loss.backward()

    model = adapted(base, saved, name=folder.name, trainable=True)
    model(**batch).loss.backward()
    theirs = {n: p.grad for n, p in oracle.named_parameters() if p.grad is not None}
    ours = {n: p.grad for n, p in by_peft_name(model).items() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    assert all(close(ours[n], theirs[n]) for n in ours)
    assert all(p.grad is None for p in base.parameters())


def fill(value: float, part: str) -> Callable[[nn.Module], None]:
    """A change of a model that gives every parameter named ``part`` this value."""

    def change(model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if part in name:
                parameter.data.fill_(value)

    return change
