"""The tests' own builders: what they write is what transformers and PEFT would."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapterdock.registry.files.facts import ModuleKind
from support.builders import base_layout, write_adapter, write_base, write_tokenizer


@pytest.mark.parametrize(
    ("kind", "tied"), [("llama", False), ("llama", True), ("gpt2", True), ("bert", False)]
)
def test_a_tiny_base_loads_with_transformers_and_has_our_layout(
    tmp_path: Path, kind: str, tied: bool
) -> None:
    import torch
    import transformers

    fields = {"tie_word_embeddings": tied} if kind == "llama" else {}
    folder = write_base(tmp_path / "base", kind, **fields)
    auto = {"bert": transformers.AutoModelForSequenceClassification}.get(
        kind, transformers.AutoModelForCausalLM
    )
    model, info = auto.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    layout = base_layout(kind, tied)
    assert layout.prefix == model.base_model_prefix
    live = {
        f"{name}.{parameter}" if name else parameter: tuple(value.shape)
        for name, module in model.named_modules(remove_duplicate=False)
        for parameter, value in module.named_parameters(recurse=False, remove_duplicate=False)
    }
    ours = {
        f"{name}.{parameter}": shape
        for name, module in layout.modules.items()
        for parameter, shape in module.parameters.items()
    }
    assert ours == live
    kinds = {torch.nn.Linear: ModuleKind.LINEAR, torch.nn.Embedding: ModuleKind.EMBEDDING}
    for name, module in model.named_modules():
        if type(module) in kinds:
            assert layout.modules[name].kind is kinds[type(module)], name
        if type(module).__name__ == "Conv1D":
            assert layout.modules[name].kind is ModuleKind.CONV1D, name


def test_a_tiny_adapter_loads_with_peft_and_acts(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = write_base(tmp_path / "base", tokenizer=True)
    base = AutoModelForCausalLM.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder)("w5 w6 w7", return_tensors="pt")["input_ids"]
    assert ids.tolist() == [[5, 6, 7]]
    plain = base(ids).logits
    adapted = PeftModel.from_pretrained(base, write_adapter(tmp_path / "tone"))(ids).logits
    assert not torch.equal(plain, adapted)
    added = write_tokenizer(tmp_path / "more", {"<tool>": 64})
    assert len(AutoTokenizer.from_pretrained(added)) == 65
