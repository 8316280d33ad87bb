"""A field that nobody knows: not a pass, and for a person to accept into the lock."""

from __future__ import annotations

import json
from pathlib import Path

import adapterdock
import pytest
import yaml
from adapterdock.manifests.findings.errors import AdapterdockError
from support.peft_adapters import logits, peft_saves, tiny_llama
from support.shelf import write_manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    base = tiny_llama()
    base.save_pretrained(tmp_path / "base")
    peft_saves(base, tmp_path / "it", target_modules=["q_proj"])
    path = tmp_path / "it" / "adapter_config.json"
    config = {**json.loads(path.read_text()), "new_scaling": 0.5, "lorap_emb_lr": 1e-06}
    path.write_text(json.dumps({**config, "base_model_name_or_path": "org/base"}))
    return write_manifest(
        tmp_path,
        base={"model": tmp_path / "base", "aliases": ["org/base"], "dtype": "float32"},
        adapters={"it": {"source": tmp_path / "it"}},
        active=["it"],
    )


def test_it_is_accepted_into_the_lock_and_loads_from_then_on(manifest: Path) -> None:
    report = adapterdock.validate(manifest)
    assert not report.ok and [f.code for f in report.findings] == ["AD359", "AD367"]
    with pytest.raises(AdapterdockError, match="AD359"):
        adapterdock.lock(manifest)
    adapterdock.lock(manifest, accept=["AD359"])
    written = yaml.safe_load(next(manifest.parent.glob("*.lock")).read_text())
    assert written["accepted"] == ["AD359"]
    model = adapterdock.load(manifest, frozen=True)
    base = tiny_llama()
    assert logits(model).shape == logits(base).shape
    assert not (logits(model) - logits(base)).abs().max() < 1e-3


def test_a_misspelt_field_cannot_be_accepted(manifest: Path) -> None:
    path = manifest.parent / "it" / "adapter_config.json"
    config = json.loads(path.read_text())
    config["lora_alhpa"] = config.pop("lora_alpha")
    path.write_text(json.dumps(config))
    assert "AD315" in {f.code for f in adapterdock.validate(manifest).findings}
    with pytest.raises(AdapterdockError, match="lora_alpha"):
        adapterdock.lock(manifest, accept=["AD359"])
