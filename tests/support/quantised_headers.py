"""Headers of quantised checkpoints of a Llama of one layer, as the quantisers write them.

The shapes are those that transformers' integrations and the libraries' own modules declare (see
``registry.base.packings``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adapterdock.registry.files.facts import TensorInfo

Header = dict[str, tuple[str, tuple[int, ...]]]
Stored = Callable[[int, int], Header]

HIDDEN, INNER, KV, VOCAB = 128, 256, 64, 96
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": 1,
    "tie_word_embeddings": False,
}
LINEARS = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KV, HIDDEN),
    "self_attn.v_proj": (KV, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
REST: Header = {
    "model.embed_tokens.weight": ("BF16", (VOCAB, HIDDEN)),
    "model.layers.0.input_layernorm.weight": ("BF16", (HIDDEN,)),
    "model.layers.0.post_attention_layernorm.weight": ("BF16", (HIDDEN,)),
    "model.norm.weight": ("BF16", (HIDDEN,)),
    "lm_head.weight": ("BF16", (VOCAB, HIDDEN)),
}
GROUP = 32


def plain(out: int, inner: int) -> Header:
    return {"weight": ("BF16", (out, inner))}


def in_four_bits(dtype: str = "U8", size: int = 1) -> Stored:
    return lambda out, inner: {
        "weight": (dtype, (out * inner // 2 // size, 1)),
        "weight.absmax": ("U8", (out * inner // 64,)),
        "weight.nested_absmax": ("F32", (1,)),
        "weight.nested_quant_map": ("F32", (256,)),
        "weight.quant_map": ("F32", (16,)),
        "weight.quant_state.bitsandbytes__nf4": ("U8", (170,)),
    }


def gptq(bits: int, order: bool = True) -> Stored:
    def stored(out: int, inner: int) -> Header:
        groups = inner // GROUP
        found: Header = {
            "qweight": ("I32", (inner * bits // 32, out)),
            "qzeros": ("I32", (groups, out * bits // 32)),
            "scales": ("F16", (groups, out)),
        }
        return found | ({"g_idx": ("I32", (inner,))} if order else {})

    return stored


def packed_columns(bits: int, group: int | None) -> Stored:
    def stored(out: int, inner: int) -> Header:
        return {
            "weight_packed": ("I32", (out, inner * bits // 32)),
            "weight_scale": ("BF16", (out, inner // group if group else 1)),
            "weight_shape": ("I64", (2,)),
        }

    return stored


def scheme(bits: int, group: int | None) -> dict[str, Any]:
    weights = {"num_bits": bits, "group_size": group, "type": "int"}
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"weights": weights}},
    }


KNOWN: dict[str, tuple[Stored, dict[str, Any]]] = {
    "bitsandbytes 8 bits": (
        lambda o, i: {"weight": ("I8", (o, i)), "SCB": ("F32", (o,)), "weight_format": ("U8", ())},
        {"quant_method": "bitsandbytes"},
    ),
    **{f"GPTQ {bits} bits": (gptq(bits), {"quant_method": "gptq"}) for bits in (2, 3, 4, 8)},
    "GPTQ without g_idx": (gptq(4, order=False), {"quant_method": "gptq"}),
    "GPTQ without g_idx, 3 bits": (gptq(3, order=False), {"quant_method": "gptq"}),
    "AWQ gemm": (
        lambda o, i: {
            "qweight": ("I32", (i, o // 8)),
            "qzeros": ("I32", (i // GROUP, o // 8)),
            "scales": ("F16", (i // GROUP, o)),
        },
        {"quant_method": "awq", "bits": 4},
    ),
    "AWQ gemv": (
        lambda o, i: {
            "qweight": ("I32", (o, i // 8)),
            "qzeros": ("I32", (o, 1)),
            "scales": ("F16", (o, 8)),
        },
        {"quant_method": "awq", "bits": 4, "version": "gemv"},
    ),
    "Marlin": (
        lambda o, i: {
            "B": ("I32", (i // 16, o * 2)),
            "s": ("F16", (i // GROUP, o)),
            "workspace": ("I32", (o // 128 * 16 or 1,)),
        },
        {"quant_method": "gptq"},
    ),
    "FP8 by blocks": (
        lambda o, i: {
            "weight": ("F8_E4M3", (o, i)),
            "weight_scale_inv": ("F32", (-(-o // 128), -(-i // 128))),
        },
        {"quant_method": "fp8"},
    ),
    "FP8 by tensor": (
        lambda o, i: {
            "weight": ("F8_E4M3", (o, i)),
            "weight_scale_inv": ("F32", ()),
            "activation_scale": ("F32", ()),
        },
        {"quant_method": "fp8"},
    ),
    "FP8 in another spelling": (
        lambda o, i: {"weight": ("F8_E4M3", (o, i)), "scale": ("F8_E8M0", (1, 1))},
        {"quant_method": "fp8"},
    ),
    "FP4 with scales": (
        lambda o, i: {"weight": ("I8", (o, i // 2)), "scale": ("F8_E8M0", (o, i // 32))},
        {"quant_method": "fp8"},
    ),
    "fbgemm": (
        lambda o, i: {"weight": ("F8_E4M3", (o, i)), "weight_scale": ("F32", (o, 1))},
        {"quant_method": "fbgemm_fp8"},
    ),
    "compressed-tensors packed, 4 bits": (packed_columns(4, GROUP), scheme(4, GROUP)),
    "compressed-tensors packed, 8 bits": (packed_columns(8, None), scheme(8, None)),
    "compressed-tensors int8": (
        lambda o, i: {
            "weight": ("I8", (o, i)),
            "weight_scale": ("BF16", (o, 1)),
            "weight_zero_point": ("I8", (o, 1)),
        },
        {"quant_method": "compressed-tensors"},
    ),
    "compressed-tensors float8": (
        lambda o, i: {
            "weight": ("F8_E4M3", (o, i)),
            "weight_scale": ("BF16", (1,)),
            "input_scale": ("BF16", (1,)),
        },
        {"quant_method": "compressed-tensors"},
    ),
    "compressed-tensors nvfp4": (
        lambda o, i: {
            "weight_packed": ("U8", (o, i // 2)),
            "weight_scale": ("F8_E4M3", (o, i // 16)),
            "weight_global_scale": ("F32", (1,)),
            "input_global_scale": ("F32", (1,)),
        },
        {"quant_method": "compressed-tensors"},
    ),
    "compressed-tensors mxfp4": (
        lambda o, i: {"weight_packed": ("U8", (o, i // 2)), "weight_scale": ("U8", (o, i // 32))},
        {"quant_method": "compressed-tensors"},
    ),
    "ModelOpt nvfp4": (
        lambda o, i: {
            "weight": ("U8", (o, i // 2)),
            "weight_scale": ("F8_E4M3", (o, i // 16)),
            "weight_scale_2": ("F32", ()),
            "input_scale": ("F32", ()),
        },
        {"quant_method": "modelopt"},
    ),
    "torchao float8": (
        lambda o, i: {"_weight_qdata": ("F8_E4M3", (o, i)), "_weight_scale": ("F32", (o, 1))},
        {"quant_method": "torchao"},
    ),
    "quanto 8 bits": (
        lambda o, i: {"weight._data": ("I8", (o, i)), "weight._scale": ("F32", (o, 1))},
        {"quant_method": "quanto"},
    ),
    "EETQ": (
        lambda o, i: {"weight": ("I8", (i, o)), "weight_scales": ("F16", (o,))},
        {"quant_method": "eetq"},
    ),
    "AQLM": (
        lambda o, i: {
            "codes": ("I16", (o, i // 8, 1)),
            "codebooks": ("F16", (1, 65536, 1, 8)),
            "scales": ("F16", (o, 1, 1, 1)),
        },
        {"quant_method": "aqlm"},
    ),
    "HIGGS": (
        lambda o, i: {
            "weight": ("I16", (o // 4, i)),
            "scales": ("F16", (o, 1)),
            "tables": ("F16", (16,)),
            "tables2": ("F16", (16, 16, 2)),
        },
        {"quant_method": "higgs"},
    ),
    "BitNet": (
        lambda o, i: {"weight": ("U8", (o // 4, i)), "weight_scale": ("BF16", (1,))},
        {"quant_method": "bitnet"},
    ),
    "Gemma 8 bits": (
        lambda o, i: {
            "weight": ("I8", (o, i)),
            "weight_scale": ("F32", (o, 1)),
            "input_activation_scale": ("F32", ()),
            "output_activation_scale": ("F32", ()),
        },
        {"quant_method": "gemma"},
    ),
    "Metal": (
        lambda o, i: {
            "weight": ("U32", (o, i // 8)),
            "scales": ("BF16", (o, i // GROUP)),
            "qbiases": ("BF16", (o, i // GROUP)),
        },
        {"quant_method": "metal", "bits": 4, "group_size": GROUP},
    ),
    "MLX": (
        lambda o, i: {
            "weight": ("U32", (o, i // 8)),
            "scales": ("BF16", (o, i // GROUP)),
            "biases": ("BF16", (o, i // GROUP)),
        },
        {"bits": 4, "group_size": GROUP},
    ),
    "FP-Quant": (
        lambda o, i: {
            "qweight": ("U8", (o, i // 2)),
            "scales": ("U8", (o, i // 32)),
            "weight_global_scale": ("F32", (1,)),
            "act_global_scale": ("F32", (1,)),
            "forward_hadamard_matrix": ("BF16", (32, 32)),
            "backward_hadamard_matrix": ("BF16", (32, 32)),
        },
        {"quant_method": "fp_quant"},
    ),
}
UNSIZED: dict[str, tuple[Stored, dict[str, Any]]] = {
    "bitsandbytes 4 bits": (in_four_bits(), {"quant_method": "bitsandbytes"}),
    "bitsandbytes 4 bits in bfloat16": (in_four_bits("BF16", 2), {"quant_method": "bitsandbytes"}),
    "GPTQ that contradicts itself": (
        lambda o, i: gptq(4)(o, i) | {"g_idx": ("I32", (i + 1,))},
        {"quant_method": "gptq"},
    ),
    "compressed-tensors of several widths": (
        packed_columns(4, GROUP),
        {"config_groups": scheme(4, GROUP)["config_groups"] | {"b": {"weights": {"num_bits": 8}}}},
    ),
    "compressed-tensors of 3 bits": (packed_columns(3, GROUP), scheme(3, GROUP)),
    "compressed-tensors 2:4": (
        lambda o, i: {
            "weight_packed": ("I32", (i // 32, o * 2)),
            "scale_packed": ("F16", (i // GROUP, o)),
            "meta": ("I16", (i // 32, o * 2)),
        },
        scheme(4, GROUP),
    ),
    "torchao int4": (
        lambda o, i: {
            "_weight_qdata": ("I8", (o, i // 2)),
            "_weight_scale": ("BF16", (i // GROUP, o)),
            "_weight_zero_point": ("BF16", (i // GROUP, o)),
        },
        {"quant_method": "torchao"},
    ),
    "HQQ": (
        lambda o, i: {
            "W_q": ("U8", (GROUP, o * i // 64)),
            "scale": ("F16", (1, o * i // GROUP)),
            "zero": ("F16", (1, o * i // GROUP)),
            "shape": ("I64", (2,)),
            "nbits": ("I32", ()),
            "group_size": ("I32", ()),
            "axis": ("I32", ()),
            "packing": ("U8", (11,)),
            "compute_dtype": ("U8", (14,)),
            "view_as_float": ("U8", ()),
            "unpack_view_dtype": ("U8", (11,)),
            "stores_quant_config": ("U8", ()),
            "encoded_state_dict": ("U8", ()),
            "offload_meta": ("U8", ()),
            "channel_wise": ("U8", ()),
            "optimize": ("U8", ()),
            "round_zero": ("U8", ()),
        },
        {"quant_method": "hqq"},
    ),
    "quanto 4 bits": (
        lambda o, i: {
            "weight._data._data": ("U8", (o // 2, i)),
            "weight._scale": ("F32", (o, 1)),
            "weight._shift": ("F32", (o, 1)),
        },
        {"quant_method": "quanto"},
    ),
    "VPTQ": (
        lambda o, i: {
            "indices": ("I32", (1, o // 8, i)),
            "centroids.weight": ("BF16", (1, 65536 * 8)),
            "res_centroids.weight": ("BF16", (1, 256 * 8)),
            "weight_scale": ("BF16", (i,)),
            "weight_bias": ("BF16", (i,)),
            "perm": ("I16", (i,)),
        },
        {"quant_method": "vptq"},
    ),
    "SpQR": (
        lambda o, i: {
            "dense_weights": ("I64", (o * i // 16,)),
            "row_offsets": ("I32", (o + 1,)),
            "col_vals": ("I32", (7,)),
            "in_perm": ("I16", (i,)),
        },
        {"quant_method": "spqr"},
    ),
    "Gemma 4 bits": (
        lambda o, i: {"weight": ("U8", (o, i // 2)), "weight_scale": ("F32", (o, 1))},
        {"quant_method": "gemma"},
    ),
}


def header_of(stored: Stored) -> Header:
    """The whole checkpoint, with its linears stored so."""
    header = dict(REST)
    for name, (out, inner) in LINEARS.items():
        for own, row in stored(out, inner).items():
            header[f"model.layers.0.{name}.{own}"] = row
    return header


def checkpoint(stored: Stored) -> dict[str, TensorInfo]:
    return {name: TensorInfo(*row) for name, row in header_of(stored).items()}
