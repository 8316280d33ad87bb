"""Exported GGUF adapters in llama.cpp itself: the logits of each architecture in the table."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapterdock.serving.export import gguf_file
from adapterdock.serving.export.architectures import ARCHITECTURES
from support.exported import CONFIGS, LINEAR, PROMPTS, base_to_export, dense_of, expected
from support.llama_cpp import LOCAL_PYTHON, log_probabilities, write_base_gguf
from support.near import close, differs
from support.peft_adapters import peft_loads, peft_saves

pytestmark = [
    pytest.mark.serving,
    pytest.mark.skipif(not LOCAL_PYTHON, reason="ADAPTERDOCK_TEST_LOCAL names no Python"),
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_with_the_exported_adapter_are_those_of_peft(
    architecture: str, tmp_path: Path
) -> None:
    row = ARCHITECTURES[architecture]
    model = base_to_export(architecture)
    base = write_base_gguf(model, tmp_path / "base.gguf", row.gguf)
    alone = log_probabilities(base, [], PROMPTS, 64)
    assert close(alone, expected(model))
    for name, config in CONFIGS.items():
        saved = peft_saves(model, tmp_path / name, target_modules=[*LINEAR], **config)
        path = tmp_path / f"{name}.gguf"
        gguf_file.write_gguf(path, dense_of(model, saved.folder), row, model.config.to_dict())
        found = log_probabilities(base, [path], PROMPTS, 64)
        assert close(found, expected(peft_loads(model, saved.folder))), name
        assert differs(found, alone)


def test_an_untied_head_acts(tmp_path: Path) -> None:
    row = ARCHITECTURES["LlamaForCausalLM"]
    model = base_to_export(row.name)
    base = write_base_gguf(model, tmp_path / "base.gguf", row.gguf)
    alone = {"save_embedding_layers": False}
    saved = peft_saves(model, tmp_path / "it", target_modules=["lm_head"], save=alone)
    path = tmp_path / "it.gguf"
    gguf_file.write_gguf(path, dense_of(model, saved.folder), row, model.config.to_dict())
    found = log_probabilities(base, [path], PROMPTS, 64)
    assert close(found, expected(peft_loads(model, saved.folder)))


def test_an_unpermuted_file_is_read_without_a_complaint_and_answers_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ARCHITECTURES["LlamaForCausalLM"]
    model = base_to_export(row.name)
    base = write_base_gguf(model, tmp_path / "base.gguf", row.gguf)
    saved = peft_saves(model, tmp_path / "it", target_modules=["q_proj", "k_proj"])
    monkeypatch.setattr(gguf_file, "permuted", lambda rows, heads: rows)
    path = tmp_path / "it.gguf"
    gguf_file.write_gguf(path, dense_of(model, saved.folder), row, model.config.to_dict())
    found = log_probabilities(base, [path], PROMPTS, 64)
    assert differs(found, expected(peft_loads(model, saved.folder)))
