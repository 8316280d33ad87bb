"""float32 modules inside a half-precision model: correct dtypes at every boundary."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from adapterdock.loader.base.float32 import keep_float32
from adapterdock.manifests.findings.errors import AttachError
from support.near import close
from support.peft_adapters import adapted, ids, logits, peft_saves, tiny_bert, tiny_llama
from torch import nn


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [tiny_llama, tiny_bert])
def test_float32_norms_in_a_half_precision_model_return_half_precision(
    half: torch.dtype, make: object
) -> None:
    base = make().to(half)  # type: ignore[operator]
    pattern = "*norm*" if make is tiny_llama else "*LayerNorm"
    plain = logits(base)
    names = keep_float32(base, [pattern])
    assert names
    seen: list[torch.dtype] = []
    for name in names:
        module = base.get_submodule(name)
        assert {p.dtype for p in module.parameters()} == {torch.float32}
        module.register_forward_hook(lambda m, a, out: seen.append(out.dtype))
    answer = logits(base)
    assert answer.dtype is half
    assert set(seen) == {half}
    assert close(answer, plain, 16)


def test_a_linear_kept_in_float32_is_computed_in_float32() -> None:
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)).to(torch.bfloat16)
    wide = copy.deepcopy(base[1]).float()
    keep_float32(base, ["1"])
    x = torch.randn(2, 64, dtype=torch.bfloat16)
    assert torch.equal(base(x), wide(base[0](x).float()).to(torch.bfloat16))
    assert base[1](x.float()).dtype is torch.float32


def test_originals_restore_the_digits_that_loading_rounded_off() -> None:
    full = tiny_llama()
    with torch.no_grad():
        full.model.norm.weight.add_(torch.linspace(0, 1e-3, 16))
    half = copy.deepcopy(full).to(torch.bfloat16)
    keep_float32(half, ["model.norm"], dict(full.named_parameters()))
    assert torch.equal(half.model.norm.weight, full.model.norm.weight)


def test_adapters_work_with_float32_modules(tmp_path: Path) -> None:
    base = tiny_llama()
    saved = peft_saves(
        base,
        tmp_path / "it",
        target_modules=["q_proj", "lm_head"],
        modules_to_save=["model.norm", "layers.1.input_layernorm"],
    )
    base.to(torch.bfloat16)
    keep_float32(base, ["*norm*", "lm_head"])
    alone = logits(base)
    model = adapted(base, saved)
    dtypes = {n: p.dtype for n, p in model.state_dict().items()}
    assert {d for n, d in dtypes.items() if "norm" in n or "lm_head" in n} == {torch.float32}
    assert {d for n, d in dtypes.items() if "q_proj" in n} == {torch.bfloat16}
    answer = logits(model)
    assert answer.dtype is torch.bfloat16
    assert close(answer, saved.answer, 16)
    model.detach()
    assert torch.equal(logits(base), alone)


def test_a_pattern_without_a_module_is_an_error_and_changes_nothing() -> None:
    base = tiny_llama().to(torch.bfloat16)
    with pytest.raises(AttachError) as caught:
        keep_float32(base, ["*norm*", "*layernrom*", "NORM"])
    assert [f.code for f in caught.value.findings] == ["AD742", "AD742"]
    assert {p.dtype for p in base.parameters()} == {torch.bfloat16}
    with torch.device("meta"):
        empty = tiny_llama()
    with pytest.raises(AttachError):
        keep_float32(empty, ["*norm*"])


def test_widening_twice_changes_nothing_and_a_copy_keeps_it() -> None:
    base = tiny_llama().to(torch.bfloat16)
    keep_float32(base, ["*norm*"])
    answer = logits(base)
    keep_float32(base, ["*norm*", "model.norm"])
    assert torch.equal(logits(base), answer)
    assert torch.equal(logits(copy.deepcopy(base)), answer)


@pytest.mark.parametrize("pattern", ["lm_head", "*embed_tokens"])
@pytest.mark.parametrize("tied", [False, True])
def test_tied_and_untied_embeddings_and_heads_can_be_widened(pattern: str, tied: bool) -> None:
    """An embedding has no floating input to take the dtype from; a tied head is the same weight."""
    model = tiny_llama(tie_word_embeddings=tied).bfloat16()
    kept = keep_float32(model, [pattern])
    assert len(kept) == (2 if tied else 1)
    assert model.model.embed_tokens(ids()).dtype is torch.bfloat16
    answer = logits(model)
    assert answer.dtype is torch.bfloat16
    assert close(answer, logits(model.float()), 16)
