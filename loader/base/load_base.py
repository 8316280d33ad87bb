"""Loading the base model that a manifest declares."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AttachError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.schema import Base
from ...manifests.lockfile import LoadedAs
from ...registry.checks.fetching import attentions_of, is_of_the_hub
from ...registry.files.facts import config_as
from ...registry.files.wording import some
from ..weights.dtypes import DTYPES
from .model_class import class_of
from .resized import resize
from .streamed_load import converting_options
from .transformers_log import failed, quiet


def load_base(
    base: Base,
    folder: Path,
    where: Where = Where(),  # noqa: B008 - frozen
    offload_folder: Path | None = None,
    loaded_as: LoadedAs | None = None,
) -> tuple[nn.Module, list[Finding]]:
    """The model in ``folder`` (a transformers checkpoint in safetensors), in eval mode, and
    warnings: tensors that the model does not use, and transformers' warnings during loading.

    The class is the first of config.json's ``architectures``, unless ``loaded_as`` names another;
    its new modules are initialised as in transformers, with a fixed seed. ``dtype``,
    ``device_map``, ``quantization``, ``attn_implementation`` and ``trust_remote_code`` are passed
    to transformers' ``from_pretrained``; ``auto`` means the checkpoint's own dtype. A part that
    ``device_map`` puts on ``disk`` is read from ``folder`` when it is needed. Tensors that
    transformers has to convert first are kept in ``offload_folder``.
    Raises :class:`AttachError` where transformers cannot load it, where it would run code that the
    manifest does not trust, or where weights would remain random.
    """
    config = json.loads((folder / "config.json").read_bytes())
    for named in (base.attn_implementation, *attentions_of(config)):
        _check_attention(named, where)
    loaded = loaded_as or LoadedAs()
    said = config_as(config, loaded)
    kind = class_of(said, base.trust_remote_code, where)
    labels: dict[str, Any] = {}
    if loaded.num_labels is not None:
        labels["id2label"] = {int(at): name for at, name in said["id2label"].items()}
        labels["label2id"] = said["label2id"]
    options: dict[str, Any] = {
        "dtype": DTYPES.get(base.dtype, "auto"),
        "trust_remote_code": base.trust_remote_code,
        "local_files_only": True,
        "output_loading_info": True,
        "use_safetensors": True,
        "ignore_mismatched_sizes": bool(loaded.new),
    }
    if base.device_map is not None:
        parts = base.device_map
        options["device_map"] = dict(parts) if isinstance(parts, Mapping) else parts
        options["offload_folder"] = offload_folder
    if base.attn_implementation is not None:
        options["attn_implementation"] = base.attn_implementation
    if base.quantization is not None:
        options["quantization_config"] = _quantization(dict(base.quantization), where)
    try:
        # new modules are the same each time, and the caller's random numbers are not affected
        with quiet() as warned, torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(0)
            converting = converting_options(kind, config, base, folder, labels)
            if converting is None:
                model, info = kind.from_pretrained(folder, **options, **labels)
            else:
                model, info = kind.from_pretrained(None, **options, **converting)
                model.name_or_path = model.config.name_or_path = str(folder)
    except Exception as error:
        message = "transformers could not load the base"
        raise failed(codes.BASE_NOT_LOADED, message, error, where) from error
    _check_filled(info, loaded.new, where)
    # another class of the same base does not use the checkpoint's head
    unused = _unused(info, where) if loaded.architecture is None else []
    if loaded.vocab_size is not None:
        resize(model, loaded.vocab_size, where)
    warnings = [
        codes.BASE_WARNING.finding("transformers warned", where, found=text[:500])
        for text in warned
    ]
    return model.eval(), [*unused, *warnings]


def offloads_to_disk(base: Base) -> bool:
    """Whether the declared ``device_map`` may leave a part of the base on disk."""
    parts = base.device_map
    return "disk" in parts.values() if isinstance(parts, Mapping) else parts in _PLANNED


_PLANNED = frozenset({"auto", "balanced", "balanced_low_0", "sequential"})
"""Device maps that accelerate plans itself; it uses ``disk`` last."""


def _check_filled(info: Mapping[str, Any], new: Collection[str], where: Where) -> None:
    """Raise where a parameter is not in the files, unless it is in one of the ``new`` modules,
    which every adapter replaces."""
    left: list[str] = []
    for kind in ("missing_keys", "mismatched_keys"):
        keys = (key[0] if isinstance(key, tuple) else key for key in info.get(kind) or ())
        inside = tuple(f"{name}." for name in new)
        if names := sorted(name for name in map(str, keys) if not name.startswith(inside)):
            left.append(f"{len(names)} {kind.replace('_', ' ')} ({names[0]})")
    if left:
        raise AttachError(
            codes.BASE_INCOMPLETE.finding(
                "The checkpoint does not have every parameter of the model",
                where,
                found="; ".join(left),
                expected="every parameter in the checkpoint",
            )
        )


def _unused(info: Mapping[str, Any], where: Where) -> list[Finding]:
    names = sorted(map(str, info.get("unexpected_keys") or ()))
    if not names:
        return []
    return [
        codes.BASE_TENSORS_UNUSED.finding(
            f"The model does not use {len(names)} of the checkpoint's tensors",
            where,
            found=some(names, 5),
        )
    ]


def _check_attention(named: object, where: Where) -> None:
    """Raise for an attention that is named like a repository: transformers would download its
    code from the Hub, unpinned, and run it."""
    if is_of_the_hub(named) or _is_replaced(named):
        raise AttachError(
            codes.REMOTE_CODE_ELSEWHERE.finding(
                "The attention implementation is code of another repository",
                where,
                found=named,
                expected="eager, sdpa, or an installed one",
            )
        )


def _is_replaced(named: object) -> bool:
    """Whether transformers would download a kernel from the Hub instead of a flash attention that
    is not installed (it does if the package ``kernels`` is installed)."""
    version = re.fullmatch(r"(?:paged\|)?flash_attention_(\d)", str(named))
    if version is None or find_spec("kernels") is None:
        return False
    from transformers import modeling_flash_attention_utils as flash

    known = getattr(flash, "FLASH_ATTENTION_COMPATIBILITY_MATRIX", {}).get(int(version[1]))
    return known is None or not known["general_availability_check"]()


def _quantization(declared: dict[str, Any], where: Where) -> Any:
    """transformers' quantization config from the manifest's mapping, by its ``quant_method``."""
    from transformers.quantizers.auto import AutoQuantizationConfig

    if "quant_method" not in declared:
        raise AttachError(
            codes.QUANTIZATION_UNKNOWN.finding(
                "base.quantization has no quant_method",
                where,
                found=", ".join(sorted(declared)) or "nothing",
                expected="quant_method: bitsandbytes, torchao, ... and that method's fields",
            )
        )
    try:
        return AutoQuantizationConfig.from_dict(declared)
    except Exception as error:
        message = "transformers does not accept base.quantization"
        raise failed(codes.QUANTIZATION_UNKNOWN, message, error, where) from error
