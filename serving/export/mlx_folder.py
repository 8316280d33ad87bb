"""A LoRA as a folder for mlx-lm: ``adapter_config.json`` and ``adapters.safetensors``.

Format: mlx-lm 0.32, ``tuner/utils.py``; :mod:`adapterdock.registry.files.mlx` reads it. mlx-lm has
one rank and one scale for the whole adapter. So the true scale of each module is in its ``lora_b``,
the scale is 1, and factors of a smaller rank are filled with zeros, which change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...manifests.findings import serving as codes
from ...manifests.findings.finding import Finding, Where
from ...registry.files.mlx import WEIGHTS
from ...registry.files.names import ADAPTER_CONFIG
from .architectures import Architecture, inside_layer, layer_of
from .dense import DenseLora

FILES = (ADAPTER_CONFIG, WEIGHTS)


def outside(lora: DenseLora, architecture: Architecture, where: Where) -> list[Finding]:
    """A finding where a module is not one of the proved linear layers."""
    odd = [m for m in lora.ranks if inside_layer(m) not in architecture.modules]
    if not odd:
        return []
    return [
        codes.FORMAT_LACKS.finding(
            f"Cannot write {lora.name!r} as MLX: no name is proved for these modules",
            where,
            found=", ".join(odd[:3]),
            expected=f"linear layers of {architecture.name}: {', '.join(architecture.modules)}",
        )
    ]


def mlx_config(lora: DenseLora, layers: int, model: str | None) -> dict[str, Any]:
    """The fields that mlx-lm reads. ``layers`` is how many the base has, ``model`` its name."""
    first = min(n for n in map(layer_of, lora.ranks) if n is not None)
    keys = sorted({inside for m in lora.ranks if (inside := inside_layer(m)) is not None})
    return {
        "fine_tune_type": "lora",
        "lora_parameters": {"rank": lora.rank, "scale": 1.0, "dropout": 0.0, "keys": keys},
        "num_layers": max(layers - first, 1),
        **({} if model is None else {"model": model}),
    }


def write_mlx(folder: Path, lora: DenseLora, layers: int, model: str | None) -> None:
    """Write the two files into a folder that exists.

    Args:
        folder: Where they are written.
        lora: The adapter, in which :func:`outside` finds nothing.
        layers: The number of layers of the base.
        model: The base's name for mlx-lm's config, if it has one.

    Raises:
        OSError: They cannot be written, or a file of the adapter cannot be read.
        ImportError: numpy is not installed.
    """
    import numpy
    from safetensors.numpy import save_file

    tensors: dict[str, Any] = {}
    for module, pair in lora.pairs():
        more = lora.rank - pair.a.shape[0]
        a = numpy.pad(pair.a, ((0, more), (0, 0))).T
        b = numpy.pad(pair.b, ((0, 0), (0, more))).T
        tensors[f"{module}.lora_a"] = numpy.ascontiguousarray(a, numpy.float32)
        tensors[f"{module}.lora_b"] = numpy.ascontiguousarray(b, numpy.float32)
    save_file(tensors, folder / WEIGHTS)
    text = json.dumps(mlx_config(lora, layers, model), indent=2, sort_keys=True)
    (folder / ADAPTER_CONFIG).write_text(text + "\n", encoding="utf-8")


def layers_in(config: Mapping[str, Any]) -> int | None:
    """The number of layers that a base's config.json says."""
    value = config.get("num_hidden_layers")
    return value if type(value) is int and value > 0 else None
