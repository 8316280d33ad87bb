"""Adapters in memory: a config and tensors, or the bytes of their files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import torch
from safetensors.torch import save

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AttachError
from ...registry.read_facts import ADAPTER_CONFIG, ADAPTER_WEIGHTS


def files_in(files: Any) -> dict[str, bytes]:
    """An adapter's files by name, where the config and the weights may be objects as
    :func:`files_of` takes them. Raises :class:`AttachError` for anything else."""
    if not isinstance(files, Mapping):
        raise _refused("the adapter in memory", files, "a mapping of file names to bytes")
    others = {n: d for n, d in files.items() if n not in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)}
    for name, data in others.items():
        if not isinstance(name, str) or not isinstance(data, bytes | bytearray):
            raise _refused(f"the file {name!r}", data, "bytes")
    if ADAPTER_WEIGHTS not in files and any(n.endswith(".safetensors") for n in others):
        own = {ADAPTER_CONFIG: config_bytes(files.get(ADAPTER_CONFIG))}  # of mlx-lm, or shards
    else:
        own = files_of(files.get(ADAPTER_CONFIG), files.get(ADAPTER_WEIGHTS))
    return own | {name: bytes(data) for name, data in others.items()}


def files_of(peft_config: Any, adapter_state_dict: Any) -> dict[str, bytes]:
    """The two files of an adapter from what a caller has in memory.

    ``peft_config`` is a PEFT config object, a mapping with its fields, or the bytes of
    ``adapter_config.json``; ``adapter_state_dict`` maps PEFT's names on disk to tensors, or is
    the bytes of a safetensors file. Raises :class:`AttachError` for anything else.
    """
    return {
        ADAPTER_CONFIG: config_bytes(peft_config),
        ADAPTER_WEIGHTS: _weights(adapter_state_dict),
    }


def config_bytes(config: Any) -> bytes:
    """``adapter_config.json`` from a PEFT config object, a mapping with its fields, or its bytes.
    Raises :class:`AttachError` for anything else."""
    if isinstance(config, bytes | bytearray):
        return bytes(config)
    try:
        if hasattr(config, "to_dict"):
            config = config.to_dict()
        elif is_dataclass(config) and not isinstance(config, type):
            config = asdict(config)
        if isinstance(config, Mapping):
            return json.dumps(dict(config), default=_plain).encode()
    except (TypeError, ValueError) as error:
        raise _refused("peft_config", config, f"values that JSON can hold ({error})") from error
    raise _refused("peft_config", config, "a PEFT config, a mapping, or bytes of JSON")


def _weights(state: Any) -> bytes:
    if isinstance(state, bytes | bytearray):
        return bytes(state)
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise _refused("adapter_state_dict", state, "names to tensors, or bytes of safetensors")
    try:
        # Cloned: a tensor on the CPU would share its memory with the caller's, or with another.
        return save({n: t.detach().to("cpu").contiguous().clone() for n, t in state.items()})
    except Exception as error:
        raise _refused("adapter_state_dict", state, f"dense tensors ({error})") from error


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "value"):
        return value.value
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _refused(what: str, value: Any, expected: str) -> AttachError:
    return AttachError(
        codes.IN_MEMORY_UNUSABLE.finding(
            f"Cannot use {what}", found=type(value).__name__, expected=expected
        )
    )
