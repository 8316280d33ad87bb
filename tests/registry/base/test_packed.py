"""Quantised checkpoints, by headers as the quantisers write them: every module is known, and its
sizes where the packing tells them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from adapterdock.registry.base.architectures import layout_of
from adapterdock.registry.base.packed import unpacked
from adapterdock.registry.base.reported_sizes import DESCRIPTIONS, reported_sizes
from adapterdock.registry.files.facts import Layout, ModuleKind, TensorInfo
from support.quantised_headers import (
    GROUP,
    HIDDEN,
    INNER,
    KNOWN,
    LINEARS,
    LLAMA,
    UNSIZED,
    VOCAB,
    Header,
    Stored,
    checkpoint,
    gptq,
    in_four_bits,
    packed_columns,
    plain,
)


def layout(stored: Stored, quantisation: dict[str, Any] | None, **more: Any) -> Layout:
    config = LLAMA | ({} if quantisation is None else {"quantization_config": quantisation})
    got = layout_of(config, checkpoint(stored), **more)
    assert got is not None
    return got


PLAIN = layout(plain, None)
PACKED = {f"model.layers.0.{name}.weight" for name in LINEARS}


@pytest.mark.parametrize("name", KNOWN)
def test_a_packed_weight_has_the_sizes_of_its_packing(name: str) -> None:
    stored, quantisation = KNOWN[name]
    got = layout(stored, quantisation)
    assert got.modules == PLAIN.modules
    assert list(got.modules) == list(PLAIN.modules)
    assert got.packed == PACKED


@pytest.mark.parametrize("name", UNSIZED)
def test_a_module_in_an_unknown_packing_has_no_sizes(name: str) -> None:
    stored, quantisation = UNSIZED[name]
    got = layout(stored, quantisation)
    assert list(got.modules) == list(PLAIN.modules)
    assert got.packed == PACKED
    for module, shape in got.modules.items():
        assert shape.kind is PLAIN.modules[module].kind
        if f"{module}.weight" in PACKED:
            assert (shape.in_features, shape.out_features, shape.parameters) == (None, None, {})
        else:
            assert shape == PLAIN.modules[module]


@pytest.mark.parametrize("name", [*KNOWN, *UNSIZED])
def test_tensors_decide_what_is_packed_not_the_config(name: str) -> None:
    got = layout((KNOWN | UNSIZED)[name][0], None)
    assert list(got.modules) == list(PLAIN.modules)
    assert got.packed == PACKED


def test_older_configs_and_text_configs_describe_the_packing_too() -> None:
    stored, quantisation = KNOWN["compressed-tensors packed, 4 bits"]
    for config in (
        {"compression_config": quantisation},
        {"text_config": {"quantization_config": quantisation}},
    ):
        got = layout_of(LLAMA | config, checkpoint(stored))
        assert got is not None
        assert got.modules == PLAIN.modules


def test_modules_that_are_not_quantised_are_unchanged() -> None:
    """The lists in the config do not decide: here it says that nothing was left alone."""
    mixed = checkpoint(gptq(4)) | {
        name: info for name, info in checkpoint(plain).items() if "down_proj" in name
    }
    for own in gptq(4)(1, 1):
        del mixed[f"model.layers.0.mlp.down_proj.{own}"]
    config = LLAMA | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    got = layout_of(config, mixed)
    assert got is not None
    assert got.modules == PLAIN.modules
    assert got.packed == PACKED - {"model.layers.0.mlp.down_proj.weight"}


def test_plain_weights_are_not_packed_for_any_config() -> None:
    got = layout(plain, {"quant_method": "compressed-tensors"})
    assert got.modules == PLAIN.modules
    assert got.packed == frozenset()


def test_float8_without_a_scale_is_a_dtype_and_no_packing() -> None:
    got = layout(lambda o, i: {"weight": ("F8_E4M3", (o, i))}, None)
    assert (got.modules, got.packed) == (PLAIN.modules, frozenset())


def test_an_integer_tensor_in_an_unquantised_checkpoint_is_not_packed() -> None:
    odd = {
        "model.layers.0.self_attn.q_proj.weight": TensorInfo("I8", (HIDDEN, HIDDEN)),
        "model.layers.0.self_attn.steps": TensorInfo("I64", (1,)),
        "model.layers.0.mlp.up_proj.scales": TensorInfo("BF16", (INNER,)),
    }
    tensors = checkpoint(plain) | odd
    assert unpacked(LLAMA, tensors, {}).packed == frozenset()
    got = layout_of(LLAMA, tensors)
    assert got is not None
    assert {name: got.modules[name] for name in PLAIN.modules} == PLAIN.modules
    quantised = layout_of(LLAMA | {"quantization_config": {"quant_method": "new"}}, tensors)
    assert quantised is not None
    assert quantised.packed == {"model.layers.0.self_attn.q_proj.weight"}
    assert quantised.modules["model.layers.0.self_attn.q_proj"].in_features is None


def test_scales_of_a_cache_belong_to_no_module() -> None:
    stored, quantisation = KNOWN["compressed-tensors float8"]
    cache = {
        f"model.layers.0.self_attn.{own}": TensorInfo("BF16", (1,))
        for own in ("k_scale", "v_scale")
    }
    config = LLAMA | {"quantization_config": quantisation}
    got = layout_of(config, checkpoint(stored) | cache)
    assert got is not None
    assert got.modules == PLAIN.modules


# --- what the files say in so many words -----------------------------------------------------


def reader(contents: dict[str, bytes]) -> Callable[[list[str]], list[bytes]]:
    return lambda names: [contents[name] for name in names]


def described(stored: Stored, write: Callable[[int, int], tuple[str, bytes]]) -> Layout:
    """The layout with a description beside each packed weight."""
    tensors = checkpoint(stored)
    contents: dict[str, bytes] = {}
    for name, (out, inner) in LINEARS.items():
        own, data = write(out, inner)
        contents[f"model.layers.0.{name}.{own}"] = data
    return layout(
        stored, {"quant_method": "x"}, reported=reported_sizes(tensors, {}, reader(contents))
    )


def state(*shape: int) -> tuple[str, bytes]:
    data = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(shape)}
    return "weight.quant_state.bitsandbytes__nf4", json.dumps(data).encode()


def numbers(name: str) -> Callable[[int, int], tuple[str, bytes]]:
    return lambda *shape: (name, b"".join(size.to_bytes(8, "little") for size in shape))


@pytest.mark.parametrize(
    ("stored", "write"),
    [
        (in_four_bits(), state),
        (in_four_bits("BF16", 2), state),
        (packed_columns(3, GROUP), numbers("weight_shape")),
        (UNSIZED["HQQ"][0], numbers("shape")),
    ],
    ids=["bitsandbytes", "bitsandbytes in bfloat16", "compressed-tensors", "HQQ"],
)
def test_sizes_are_read_where_the_quantiser_wrote_them_down(stored: Stored, write: Any) -> None:
    got = described(stored, write)
    assert (got.modules, got.packed) == (PLAIN.modules, PACKED)


def states(out: int, inner: int) -> list[tuple[str, bytes]]:
    """What is no description of such a weight."""
    name, _ = state(out, inner)
    texts = (b"{", b"[1]", b'{"shape": [true, "9"]}', b'{"shape": [-1, 0]}', b"[" * 170)
    return [state(out, inner + 64), state(), *((name, text) for text in texts)]


@pytest.mark.parametrize("number", range(len(states(1, 1))))
def test_a_description_of_another_weight_is_ignored(number: int) -> None:
    got = described(in_four_bits(), lambda out, inner: states(out, inner)[number])
    assert list(got.modules) == list(PLAIN.modules)
    assert all(got.modules[name.removesuffix(".weight")].in_features is None for name in PACKED)


def test_torchao_reports_sizes_in_the_metadata_of_its_file() -> None:
    stored, quantisation = UNSIZED["torchao int4"]
    metadata = {"format": "pt", "tensor_names": "[]"}
    for name, (out, inner) in LINEARS.items():
        data = {"_type": "Int4Tensor", "_data": {"block_size": [1, GROUP], "shape": [out, inner]}}
        metadata[f"model.layers.0.{name}.weight"] = json.dumps(data)
    reported = reported_sizes(checkpoint(stored), metadata, reader({}))
    assert layout(stored, quantisation, reported=reported).modules == PLAIN.modules

    def whole(out: int, inner: int) -> Header:
        return {"_weight_qdata": ("I8", (out, inner)), "_weight_scale": ("F32", (out, 1))}

    entries = dict.fromkeys(PACKED, '{"_type": "Int8Tensor", "_data": {}}')
    reported = reported_sizes(checkpoint(whole), entries, reader({}))
    assert layout(whole, quantisation, reported=reported).modules == PLAIN.modules
    assert reported_sizes(checkpoint(whole), dict.fromkeys(PACKED, "{"), reader({})) == {}


def test_more_descriptions_than_a_model_has_are_not_read() -> None:
    name = "model.layers.{}.mlp.up_proj.weight"
    tensors: dict[str, TensorInfo] = {}
    for number in range(DESCRIPTIONS + 1):
        tensors[name.format(number)] = TensorInfo("U8", (8, 1))
        tensors[f"{name.format(number)}.quant_state.bitsandbytes__nf4"] = TensorInfo("U8", (80,))
    assert reported_sizes(tensors, {}, reader({})) == {}
    large = {
        name.format(0): TensorInfo("U8", (8, 1)),
        f"{name.format(0)}.quant_state.bitsandbytes__nf4": TensorInfo("U8", (9000,), 0, 9000),
    }
    assert reported_sizes(large, {}, reader({})) == {}


# --- other modules than linears --------------------------------------------------------------


def test_a_quantised_conv1d_is_a_linear() -> None:
    """bitsandbytes puts its own linear there, whose weight is (out, in) on disk as well."""
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
    tensors = {
        "transformer.wte.weight": TensorInfo("F32", (64, 16)),
        "transformer.h.0.ln_1.weight": TensorInfo("F32", (16,)),
        "transformer.h.0.attn.c_attn.weight": TensorInfo("I8", (48, 16)),
        "transformer.h.0.attn.c_attn.SCB": TensorInfo("F32", (48,)),
        "transformer.h.0.attn.c_attn.bias": TensorInfo("F32", (48,)),
        "transformer.h.0.attn.c_proj.weight": TensorInfo("F32", (16, 16)),
        "transformer.h.0.mlp.c_fc.weight": TensorInfo("F32", (16, 64)),
    }
    got = layout_of(config, tensors)
    assert got is not None
    shapes = {
        name.rpartition(".")[2]: (one.kind, one.in_features, one.out_features)
        for name, one in got.modules.items()
    }
    assert shapes["c_attn"] == (ModuleKind.LINEAR, 16, 48)
    assert shapes["c_fc"] == (ModuleKind.CONV1D, 16, 64)


@pytest.mark.parametrize("name", ["FP8 by blocks", "GPTQ 4 bits", "bitsandbytes 4 bits", "HQQ"])
def test_experts_that_were_quantised_one_by_one_are_fused_as_they_are_in_the_model(
    name: str,
) -> None:
    stored, quantisation = (KNOWN | UNSIZED)[name]
    experts = {"w1": (INNER, HIDDEN), "w3": (INNER, HIDDEN), "w2": (HIDDEN, INNER)}

    def mixtral(stored: Stored) -> Layout:
        tensors = {k: v for k, v in checkpoint(stored).items() if ".mlp." not in k}
        moe = "model.layers.0.block_sparse_moe"
        tensors[f"{moe}.gate.weight"] = TensorInfo("BF16", (2, HIDDEN))
        for number in range(2):
            for part, sizes in experts.items():
                for own, row in stored(*sizes).items():
                    tensors[f"{moe}.experts.{number}.{part}.{own}"] = TensorInfo(*row)
        config = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
        got = layout_of(config | {"quantization_config": quantisation}, tensors)
        assert got is not None
        return got

    wanted, got = mixtral(plain), mixtral(stored)
    assert list(got.modules) == list(wanted.modules)
    fused = {f"model.layers.0.mlp.experts.{part}" for part in ("gate_up_proj", "down_proj")}
    assert got.packed is not None
    assert fused <= got.packed
    assert "model.layers.0.mlp.gate.weight" not in got.packed
    if name in KNOWN:
        assert got.modules == wanted.modules
    else:
        assert got.unsized["model.layers.0.mlp.experts"] == ["down_proj", "gate_up_proj"]


def test_blocks_of_mxfp4_are_the_experts_parameters() -> None:
    tensors = {
        "model.embed_tokens.weight": TensorInfo("BF16", (VOCAB, 64)),
        "model.layers.0.mlp.router.weight": TensorInfo("BF16", (4, 64)),
        "model.layers.0.mlp.router.bias": TensorInfo("BF16", (4,)),
        "model.layers.0.mlp.experts.gate_up_proj_blocks": TensorInfo("U8", (4, 192, 2, 16)),
        "model.layers.0.mlp.experts.gate_up_proj_scales": TensorInfo("U8", (4, 192, 2)),
        "model.layers.0.mlp.experts.gate_up_proj_bias": TensorInfo("BF16", (4, 192)),
        "model.layers.0.mlp.experts.down_proj_blocks": TensorInfo("U8", (4, 64, 3, 16)),
        "model.layers.0.mlp.experts.down_proj_scales": TensorInfo("U8", (4, 64, 3)),
        "model.layers.0.mlp.experts.down_proj_bias": TensorInfo("BF16", (4, 64)),
    }
    config = {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "quantization_config": {"quant_method": "mxfp4"},
    }
    got = layout_of(config, tensors)
    assert got is not None
    assert got.modules["model.layers.0.mlp.experts"].parameters == {
        "gate_up_proj": (4, 64, 192),
        "gate_up_proj_bias": (4, 192),
        "down_proj": (4, 96, 64),
        "down_proj_bias": (4, 64),
    }
    assert got.packed == {
        f"model.layers.0.mlp.experts.{part}" for part in ("gate_up_proj", "down_proj")
    }


def test_experts_that_were_fused_before_are_packed_as_they_are() -> None:
    parts: Header = {
        "gate_up_proj": ("F8_E4M3", (4, 192, 64)),
        "gate_up_proj_scale_inv": ("F32", (4, 2, 1)),
        "gate_up_proj_activation_scale": ("F32", (4,)),
        "down_proj": ("F8_E4M3", (4, 64, 96)),
        "down_proj_scale": ("F32", (4, 64, 1)),
    }
    tensors = {f"mlp.experts.{own}": TensorInfo(*row) for own, row in parts.items()}
    got = unpacked({}, tensors, {})
    assert dict(got.shapes) == {
        "mlp.experts.gate_up_proj": (4, 192, 64),
        "mlp.experts.down_proj": (4, 64, 96),
    }
    assert got.packed == set(got.shapes)
