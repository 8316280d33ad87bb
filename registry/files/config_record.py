"""The config that an adapter's weights were saved with, recorded in their file.

Rank, alpha and targets lie in another file than the weights they belong to. A save that was killed
between the two, or two saves at once, leave one file of each; most such mixes load. So the metadata
of ``adapter_model.safetensors`` has the digest of the config (:data:`CONFIG_RECORD`), which a
reader compares before it downloads the weights. PEFT and all other readers pass over it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .digests import sha256_bytes

CONFIG_RECORD = "adapterdock.config"
"""The key of the metadata."""

_TOLD_ONLY = frozenset(
    {"auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision"}
)
"""Fields that say where an adapter is from. People correct them by hand."""


def config_digest(config: Mapping[str, Any]) -> str:
    """The digest of what a config says of how its weights act: the same whatever the order of its
    fields and of lists of names, and whether a field is ``null`` or left out."""
    acting = {
        name: _ordered(value)
        for name, value in config.items()
        if name not in _TOLD_ONLY and value is not None
    }
    text = json.dumps(acting, sort_keys=True, separators=(",", ":"), default=repr)
    return sha256_bytes(text.encode())


def _ordered(value: Any) -> Any:
    names = isinstance(value, list) and all(isinstance(one, str) for one in value)
    return sorted(value) if names else value
