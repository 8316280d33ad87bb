"""A LoRA as a GGUF file for llama.cpp, written with the ``gguf`` package.

Format: llama.cpp, ``src/llama-adapter.cpp``. ``lora_a`` is (r, in) and ``lora_b`` (out, r), both
float32. ``adapter.lora.alpha`` is one number for the whole file, by which llama.cpp multiplies
``alpha / r``, with the r of each module; 0 means a factor of 1. So the true scale of each module is
in its ``lora_b``, and alpha is 0: that is right for rsLoRA and ``alpha_pattern`` too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...manifests.findings import serving as codes
from ...manifests.findings.finding import Finding, Where
from ...registry.files.arrays import Array
from .architectures import Architecture
from .dense import DenseLora

SUFFIX = ".gguf"


def unnamed(
    lora: DenseLora, architecture: Architecture, config: Mapping[str, Any], where: Where
) -> list[Finding]:
    """Findings where llama.cpp has no name for a module, or config.json lacks the heads."""
    odd = [module for module in lora.ranks if architecture.gguf_name(module) is None]
    if odd:
        return [
            codes.FORMAT_LACKS.finding(
                f"Cannot write {lora.name!r} as GGUF: no name is proved for these modules",
                where,
                found=", ".join(odd[:3]),
                expected=f"linear layers of {architecture.name}: "
                f"{', '.join(architecture.modules)} or an untied lm_head",
            )
        ]
    for module in lora.ranks:
        try:
            heads = architecture.heads_of(module, config)
        except ValueError as error:
            return [_no_heads(lora.name, str(error), where)]
        rows = lora.rows[module]
        if heads is not None and rows % (2 * heads):
            return [_no_heads(lora.name, f"{module} has {rows} rows, {heads} heads", where)]
    return []


def write_gguf(
    path: Path, lora: DenseLora, architecture: Architecture, config: Mapping[str, Any]
) -> None:
    """Write a new file.

    Args:
        path: The file, which must not exist.
        lora: The adapter, in which :func:`unnamed` finds nothing.
        architecture: The base's row of the table.
        config: The base's config.json.

    Raises:
        OSError: It cannot be written, or a file of the adapter cannot be read.
        ImportError: The ``gguf`` package is not installed.
    """
    import gguf
    import numpy

    writer = gguf.GGUFWriter(path, architecture.gguf)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 0.0)
    writer.add_name(lora.name)
    for module, pair in lora.pairs():
        heads = architecture.heads_of(module, config)
        b = pair.b if heads is None else permuted(pair.b, heads)
        name = architecture.gguf_name(module)
        for suffix, array in (("lora_a", pair.a), ("lora_b", b)):
            writer.add_tensor(f"{name}.{suffix}", numpy.ascontiguousarray(array, numpy.float32))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def permuted(rows: Array, heads: int) -> Array:
    """Rows of q or k in llama.cpp's order: in each head, transformers has the two halves of the
    rotation one after the other, llama.cpp has them in pairs (``convert_hf_to_gguf.py``,
    ``LlamaModel.permute``)."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _no_heads(name: str, found: str, where: Where) -> Finding:
    return codes.FORMAT_LACKS.finding(
        f"Cannot write {name!r} as GGUF: the base's config.json does not fit its heads",
        where,
        found=found,
        expected="num_attention_heads and num_key_value_heads that divide the rows of q and k",
    )
