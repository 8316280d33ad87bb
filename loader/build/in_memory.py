"""Adapters handed over in memory: a config and tensors, or the bytes of their files."""

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


def files_in(given: Any) -> dict[str, bytes]:
    """An adapter's files by name, where the config and the weights may be objects as
    :func:`files_of` takes them. Raises :class:`AttachError` for anything else."""
    if not isinstance(given, Mapping):
        raise _refused("the adapter in memory", given, "a mapping of its files' names to bytes")
    others = {n: d for n, d in given.items() if n not in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)}
    for name, data in others.items():
        if not isinstance(name, str) or not isinstance(data, bytes | bytearray):
            raise _refused(f"the file {name!r}", data, "its bytes")
    if ADAPTER_WEIGHTS not in given and any(n.endswith(".safetensors") for n in others):
        own = {ADAPTER_CONFIG: config_bytes(given.get(ADAPTER_CONFIG))}  # mlx-lm's, or shards
    else:
        own = files_of(given.get(ADAPTER_CONFIG), given.get(ADAPTER_WEIGHTS))
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


def config_bytes(given: Any) -> bytes:
    """``adapter_config.json`` from a PEFT config object, a mapping with its fields, or its bytes.
    Raises :class:`AttachError` for anything else."""
    if isinstance(given, bytes | bytearray):
        return bytes(given)
    try:
        if hasattr(given, "to_dict"):
            given = given.to_dict()
        elif is_dataclass(given) and not isinstance(given, type):
            given = asdict(given)
        if isinstance(given, Mapping):
            return json.dumps(dict(given), default=_plain).encode()
    except (TypeError, ValueError) as error:
        raise _refused("peft_config", given, f"values that JSON can hold ({error})") from error
    raise _refused("peft_config", given, "a PEFT config, a mapping, or bytes of JSON")


def _weights(given: Any) -> bytes:
    if isinstance(given, bytes | bytearray):
        return bytes(given)
    if not isinstance(given, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in given.items()
    ):
        raise _refused("adapter_state_dict", given, "names to tensors, or bytes of safetensors")
    try:
        # Cloned: a tensor on the CPU would share its memory with the caller's, or with another.
        return save({n: t.detach().to("cpu").contiguous().clone() for n, t in given.items()})
    except Exception as error:
        raise _refused("adapter_state_dict", given, f"dense tensors ({error})") from error


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "value"):
        return value.value
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _refused(what: str, given: Any, expected: str) -> AttachError:
    return AttachError(
        codes.GIVEN_UNUSABLE.finding(
            f"{what} cannot be used", found=type(given).__name__, expected=expected
        )
    )
