"""Entries of small adapters, and their files."""

from __future__ import annotations

from typing import Any

from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.oci.artifact import Artifact, pack_adapter
from adapterdock.registry.records.series import canonical

FILES = {
    "adapter_model.safetensors": ("weights", b"w" * 1000),
    "adapter_config.json": ("config", b'{"r": 8}'),
    "docs/README.md": ("card", b"# Refunds"),
    "empty": ("other", b""),
}
CONTENTS = {path: content for path, (_, content) in FILES.items()}


def entry_data(**fields: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "name": "team/refunds",
        "version": "2.1.0",
        "created": "2026-11-30T06:00:00Z",
        "digest": sha256_bytes(b"digest"),
        "folder": sha256_bytes(b"folder"),
        "files": [
            {"path": path, "size": len(content), "sha256": sha256_bytes(content), "role": role}
            for path, (role, content) in FILES.items()
        ],
        "method": {
            "peft_type": "LORA",
            "rank": 8,
            "lowest_rank": 8,
            "dtype": "F32",
            "parameters": 100,
        },
        "base": {"source": "hf://org/base"},
        **fields,
    }


def entry_bytes(**fields: Any) -> bytes:
    return canonical(entry_data(**fields))


def artifact(**fields: Any) -> Artifact:
    return pack_adapter(entry_bytes(**fields), CONTENTS)
