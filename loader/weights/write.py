"""An adapter as the bytes of its two files: the same values always give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save

from ...registry.files.config_record import CONFIG_RECORD, config_digest
from ...registry.read_facts import ADAPTER_CONFIG, ADAPTER_WEIGHTS


def adapter_bytes(
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
) -> dict[str, bytes]:
    """The files of an adapter in PEFT's format, by name. The weights come first; their metadata has
    the digest of the config, so that an old config beside new weights is noticed. ``tensors`` must
    be on the CPU, contiguous, and share no memory."""
    recorded = {"format": "pt", **(metadata or {}), CONFIG_RECORD: config_digest(config)}
    return {
        ADAPTER_WEIGHTS: safetensors_bytes(tensors, recorded),
        ADAPTER_CONFIG: json.dumps(config, indent=2, sort_keys=True).encode() + b"\n",
    }


def safetensors_bytes(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with sorted metadata: the library writes it in an order that differs
    between processes."""
    data = save(dict(tensors), dict(metadata))
    end = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(data)[end:]))


def on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies that share no memory, as safetensors requires."""
    return {n: t.detach().to("cpu").contiguous().clone() for n, t in tensors.items()}
