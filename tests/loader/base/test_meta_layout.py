"""The layout of an architecture that the table does not know, from transformers without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import adapterdock
import pytest
from adapterdock.cli.main import app
from adapterdock.loader.base.layout import layout_of_model
from adapterdock.loader.base.meta_layout import layout_of_config
from adapterdock.registry import read_facts as gather
from support.peft_adapters import peft_saves, tiny_bert, tiny_gpt2, tiny_llama
from typer.testing import CliRunner


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_bert])
def test_the_built_layout_equals_the_live_one(make: Any, tmp_path: Path) -> None:
    model = make()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert layout_of_config(config) == layout_of_model(model)


def test_a_tied_head_is_tied_in_the_layout(tmp_path: Path) -> None:
    model = tiny_llama(tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    found = layout_of_config(json.loads((tmp_path / "config.json").read_text()))
    assert found is not None
    assert found.tied == {"lm_head.weight": "model.embed_tokens.weight"}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"architectures": ["MyCompanyForCausalLM"]},
        {"architectures": ["torch"]},
        {"architectures": ["LlamaForCausalLM"], "num_attention_heads": "many"},
    ],
    ids=str,
)
def test_a_model_that_transformers_cannot_build_has_no_layout(config: dict[str, Any]) -> None:
    assert layout_of_config(config) is None


def test_deep_is_used_only_for_unknown_architectures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_llama()
    base.save_pretrained(tmp_path / "base")
    saved = peft_saves(base, tmp_path / "it", target_modules=["q_proj"])
    manifest = tmp_path / "adapters.yaml"
    manifest.write_text(
        f"version: 1\nbase: {{model: ./base}}\nadapters: {{it: {{source: {saved.folder}}}}}\n"
    )
    monkeypatch.setattr(gather, "layout_of", lambda *_: None)
    assert "AD341" in {f.code for f in adapterdock.validate(manifest).findings}
    report = adapterdock.validate(manifest, ask=layout_of_config)
    assert "AD341" not in {f.code for f in report.findings}

    misfit = peft_saves(tiny_llama(hidden_size=24), tmp_path / "misfit", target_modules=["q_proj"])
    manifest.write_text(manifest.read_text().replace(str(saved.folder), str(misfit.folder)))
    result = CliRunner().invoke(app, ["validate", "--deep", "--json", str(manifest)])
    found = {f["code"] for f in json.loads(result.stdout)["findings"]}
    assert "AD343" in found and "AD341" not in found
    assert result.exit_code == 1
