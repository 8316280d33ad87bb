"""Saved adapters of every native method equal PEFT's, and PEFT loads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from safetensors.torch import load_file
from support.merge_cases import CASES, Case
from support.near import close
from support.peft_adapters import (
    inputs_of,
    logits,
    peft_loads,
    peft_saves,
    tiny_llama,
    tiny_t5,
)

PROMPTS = {
    f"{kind} on {name}": Case(make, kind, {"num_virtual_tokens": 3, "task_type": task})
    for kind in ("PromptTuningConfig", "PromptEncoderConfig", "PrefixTuningConfig")
    for name, make, task in (
        ("llama", tiny_llama, "CAUSAL_LM"),
        ("t5", tiny_t5, "SEQ_2_SEQ_LM"),
    )
}


@pytest.mark.parametrize("case", [*CASES, *PROMPTS])
def test_saved_tensors_equal_pefts(case: str, tmp_path: Path) -> None:
    import peft

    found = {**CASES, **PROMPTS}[case]
    kind = getattr(peft, found.kind) if isinstance(found.kind, str) else found.kind
    base = found.make()
    saved = peft_saves(base, tmp_path / "first", kind=kind, **found.config)
    model = AdaptedModel(base)
    model.load_adapter(saved.folder, "it", accept=["AD364"])
    model.save_adapter(tmp_path / "again", "it")

    old, new = (
        load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("first", "again")
    )
    assert new.keys() <= old.keys()
    assert all(torch.equal(new[key], old[key]) for key in new)
    config = json.loads((tmp_path / "again" / "adapter_config.json").read_text())
    assert config == saved.config
    theirs = logits(peft_loads(base, tmp_path / "again"), inputs_of(base))
    assert close(theirs, saved.answer)
    model.load_adapter(tmp_path / "again", "back")
    ours = logits(model, adapter="back")
    assert torch.equal(ours, logits(model, adapter="it"))
    assert close(ours, saved.answer)
