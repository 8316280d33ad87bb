"""Exported MLX adapters in mlx-lm itself: the logits of each architecture in the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from adapterdock.serving.export.architectures import ARCHITECTURES
from adapterdock.serving.export.mlx_folder import write_mlx
from support.exported import CONFIGS, LINEAR, PROMPTS, base_to_export, dense_of, expected
from support.llama_cpp import LOCAL_PYTHON
from support.mlx_lm import log_probabilities
from support.near import close, differs
from support.peft_adapters import peft_loads, peft_saves

pytestmark = [
    pytest.mark.serving,
    pytest.mark.skipif(not LOCAL_PYTHON, reason="ADAPTERDOCK_TEST_LOCAL names no Python"),
]


@pytest.mark.parametrize("architecture", [n for n, row in ARCHITECTURES.items() if row.mlx])
def test_logits_with_the_exported_adapter_are_those_of_peft(
    architecture: str, tmp_path: Path
) -> None:
    model = base_to_export(architecture)
    base = tmp_path / "base"
    model.save_pretrained(base)
    file = base / "config.json"
    config = json.loads(file.read_text())
    theta = config["rope_parameters"]["rope_theta"]  # mlx-lm reads the older field
    file.write_text(json.dumps({**config, "rope_theta": theta}))
    alone = log_probabilities(base, None, PROMPTS)
    assert close(alone, expected(model))
    for name, changes in CONFIGS.items():
        settings = {"target_modules": [*LINEAR], **changes}
        if name == "plain":
            settings["layers_to_transform"] = [1]
        saved = peft_saves(model, tmp_path / name, **settings)
        folder = tmp_path / f"{name}-mlx"
        folder.mkdir()
        write_mlx(folder, dense_of(model, saved.folder, "MLX"), 2, None)
        found = log_probabilities(base, folder, PROMPTS)
        assert close(found, expected(peft_loads(model, saved.folder))), name
        assert differs(found, alone)
