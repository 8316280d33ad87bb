"""The config that an adapter's weights were saved with, recorded in their file.

Rank, alpha and targets are in another file than their weights. A save that was killed between the
two, or two saves at once, leave one file of each; most such mixes load. So the metadata of
``adapter_model.safetensors`` has the digest of the config (:data:`CONFIG_RECORD`), which a reader
compares before it downloads the weights. PEFT and other readers ignore it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .digests import sha256_bytes

CONFIG_RECORD = "adapterdock.config"
"""The key of the metadata."""

_ORIGIN_FIELDS = frozenset(
    {"auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision"}
)
"""Fields about the origin of an adapter, which people correct by hand."""


def config_digest(config: Mapping[str, Any]) -> str:
    """The digest of the fields that determine how the weights act. The order of fields and of lists
    of names does not matter, nor whether a field is ``null`` or left out."""
    acting: dict[str, Any] = {}
    for name, value in config.items():
        if name not in _ORIGIN_FIELDS and value is not None:
            names = isinstance(value, list) and all(isinstance(item, str) for item in value)
            acting[name] = sorted(value) if names else value
    text = json.dumps(acting, sort_keys=True, separators=(",", ":"), default=repr)
    return sha256_bytes(text.encode())
