"""The table of architectures that GGUF and MLX are proved for."""

from __future__ import annotations

import pytest
from adapterdock.serving.export.architectures import ARCHITECTURES
from adapterdock.serving.targets.engines import ENGINES

LLAMA, QWEN = ARCHITECTURES["LlamaForCausalLM"], ARCHITECTURES["Qwen3ForCausalLM"]


def test_what_validate_says_of_these_engines_is_what_export_writes() -> None:
    for engine, rows in (
        ("llama.cpp", ARCHITECTURES.values()),
        ("mlx", [row for row in ARCHITECTURES.values() if row.mlx]),
    ):
        (row,) = ENGINES[engine].rows
        assert row.architectures == {one.name for one in rows}


def test_no_mixture_of_experts_is_in_the_table() -> None:
    moe = {"MixtralForCausalLM", "Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM", "Llama4ForCausalLM"}
    assert not moe & ARCHITECTURES.keys()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("model.layers.11.self_attn.q_proj", "blk.11.attn_q.weight"),
        ("model.layers.0.mlp.down_proj", "blk.0.ffn_down.weight"),
        ("lm_head", "output.weight"),
        ("model.embed_tokens", None),
        ("model.layers.0.mlp.gate_up_proj", None),
        ("model.layers.0.mlp.experts.3.up_proj", None),
        ("model.layers.x.self_attn.q_proj", None),
        ("encoder.model.layers.0.self_attn.q_proj", None),
    ],
)
def test_a_module_has_the_name_of_llama_cpp_or_none(module: str, name: str | None) -> None:
    assert LLAMA.gguf_name(module) == name


def test_names_agree_with_those_of_the_gguf_package() -> None:
    import gguf

    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    for row in ARCHITECTURES.values():
        names = gguf.get_tensor_name_map(kinds[row.gguf], 2)
        for inside in row.modules:
            module = f"model.layers.1.{inside}"
            assert row.gguf_name(module) == f"{names.get_name(module)}.weight"


def test_rows_of_q_and_k_are_turned_by_their_own_number_of_heads() -> None:
    config = {"num_attention_heads": 8, "num_key_value_heads": 2}
    q, k, v = (f"model.layers.0.self_attn.{letter}_proj" for letter in "qkv")
    assert [LLAMA.heads_of(module, config) for module in (q, k, v)] == [8, 2, None]
    assert LLAMA.heads_of(k, {"num_attention_heads": 8}) == 8
    assert [QWEN.heads_of(module, config) for module in (q, k, v)] == [None, None, None]
    for wrong in (
        {},
        {"num_attention_heads": "8"},
        {"num_attention_heads": 0},
        {"num_attention_heads": True},
    ):
        with pytest.raises(ValueError, match="heads"):
            LLAMA.heads_of(q, wrong)
