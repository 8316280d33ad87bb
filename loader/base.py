"""Loading the base model as its manifest declares it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from ..manifests.codes import loader as codes
from ..manifests.errors import AttachError
from ..manifests.findings import Where
from ..manifests.schema import Base

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def load_base(base: Base, folder: Path, where: Where = Where()) -> nn.Module:  # noqa: B008
    """The model in ``folder`` (a transformers checkpoint in safetensors), in eval mode.

    The class is the one that config.json's ``architectures`` names. ``dtype``, ``device_map``,
    ``quantization``, ``attn_implementation`` and ``trust_remote_code`` go to transformers'
    ``from_pretrained``; ``auto`` means the checkpoint's own dtype. Raises :class:`AttachError`
    where transformers cannot load it, or where weights would be left as random numbers.
    """
    config = json.loads((folder / "config.json").read_bytes())
    options: dict[str, Any] = {
        "dtype": DTYPES.get(base.dtype, "auto"),
        "trust_remote_code": base.trust_remote_code,
        "local_files_only": True,
        "output_loading_info": True,
        "use_safetensors": True,
    }
    if base.device_map is not None:
        options["device_map"] = (
            dict(base.device_map) if isinstance(base.device_map, Mapping) else base.device_map
        )
    if base.attn_implementation is not None:
        options["attn_implementation"] = base.attn_implementation
    if base.quantization is not None:
        options["quantization_config"] = _quantization(dict(base.quantization), where)
    try:
        model, info = _class_of(config, base.trust_remote_code).from_pretrained(folder, **options)
    except Exception as error:
        raise AttachError(
            codes.BASE_NOT_LOADED.finding(
                "transformers could not load the base",
                where,
                found=f"{type(error).__name__}: {str(error).strip()[:500]}",
            )
        ) from error
    left = [
        f"{len(info[kind])} {kind.replace('_', ' ')} ({sorted(map(str, info[kind]))[0]})"
        for kind in ("missing_keys", "mismatched_keys")
        if info.get(kind)
    ]
    if left:
        raise AttachError(
            codes.BASE_INCOMPLETE.finding(
                "the checkpoint does not fill the model, whose rest would be random numbers",
                where,
                found="; ".join(left),
                expected="every parameter in the checkpoint",
            )
        )
    return model.eval()


def _class_of(config: Mapping[str, Any], remote_code: bool) -> Any:
    name = (config.get("architectures") or [None])[0]
    found = getattr(transformers, name, None) if isinstance(name, str) else None
    if found is not None:
        return found
    for auto, key in (config.get("auto_map") or {}).items():
        if remote_code and auto.startswith("AutoModel") and str(key).endswith(f".{name}"):
            return getattr(transformers, auto)
    return transformers.AutoModel


def _quantization(declared: dict[str, Any], where: Where) -> Any:
    """transformers' quantization config from the manifest's mapping, by its ``quant_method``."""
    from transformers.quantizers.auto import AutoQuantizationConfig

    if "quant_method" not in declared:
        raise AttachError(
            codes.QUANTIZATION_UNKNOWN.finding(
                "base.quantization does not say which method",
                where,
                found=", ".join(sorted(declared)) or "nothing",
                expected="quant_method: bitsandbytes, torchao, ... and that method's fields",
            )
        )
    try:
        return AutoQuantizationConfig.from_dict(declared)
    except Exception as error:
        raise AttachError(
            codes.QUANTIZATION_UNKNOWN.finding(
                "transformers does not accept base.quantization",
                where,
                found=f"{type(error).__name__}: {str(error).strip()[:300]}",
            )
        ) from error
