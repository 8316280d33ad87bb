"""A model saved as a checkpoint, and what its config and headers say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adapterdock.registry.files.facts import TensorInfo
from safetensors import safe_open


def config_and_tensors(folder: Path) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
    """``config.json`` and every tensor's row, of all the safetensors files in ``folder``."""
    tensors: dict[str, TensorInfo] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), "pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                part = opened.get_slice(name)
                tensors[name] = TensorInfo(part.get_dtype(), tuple(part.get_shape()))
    return json.loads((folder / "config.json").read_text()), tensors
