"""From a manifest to logits, for each native method: checks of the headers, and PEFT's output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapterdock
import pytest
from adapterdock.registry.checks.options import PEFT_METHODS
from adapterdock.registry.methods.table import METHODS
from peft import LNTuningConfig, TrainableTokensConfig, VeraConfig
from support import merge_cases
from support.moes import tiny_gpt_oss, tiny_mixtral, tiny_qwen_moe
from support.near import close
from support.peft_adapters import (
    adapted,
    inputs_of,
    logits,
    peft_loads,
    peft_saves,
    tiny_llama,
    tiny_t5,
)

EXPERTS: dict[str, Any] = {
    "target_modules": ["q_proj"],
    "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
}


def tied_llama() -> Any:
    return tiny_llama(tie_word_embeddings=True)


CASES: dict[str, tuple[Callable[..., Any], str, dict[str, Any]]] = {
    "mixtral": (tiny_mixtral, "LORA", EXPERTS),
    "all-linear": (tiny_mixtral, "LORA", {"target_modules": "all-linear"}),
    "qwen": (tiny_qwen_moe, "LORA", EXPERTS),
    "gpt-oss": (tiny_gpt_oss, "LORA", EXPERTS),
    "dora": (
        tied_llama,
        "LORA+TRAINABLE_TOKENS",
        {"target_modules": ["q_proj"], "use_dora": True, "trainable_token_indices": [5, 7]},
    ),
    "tokens": (
        tiny_t5,
        "TRAINABLE_TOKENS",
        {"kind": TrainableTokensConfig, "token_indices": [5, 7]},
    ),
    "vera": (
        tiny_llama,
        "VERA",
        {"kind": VeraConfig, "r": 4, "target_modules": ["q_proj"], "save_projection": False},
    ),
    "ln": (tiny_llama, "LN_TUNING", {"kind": LNTuningConfig, "target_modules": ["norm"]}),
}


@pytest.mark.parametrize("case", CASES)
def test_manifest_validates_from_headers_and_matches_peft(case: str, tmp_path: Path) -> None:
    make, methods, config = CASES[case]
    base = make()
    base.save_pretrained(tmp_path / "base")  # one tensor for each expert, with their old names
    saved = peft_saves(base, tmp_path / "it", **config)
    recorded = {**saved.config, "base_model_name_or_path": None}
    (saved.folder / "adapter_config.json").write_text(json.dumps(recorded))
    manifest = tmp_path / "desk.yaml"
    manifest.write_text(
        "version: 1\nbase: {model: ./base}\nadapters:\n  it: {source: ./it}\nactive: it\n"
    )
    report = adapterdock.validate(manifest)
    assert [str(finding) for finding in (*report.errors, *report.unchecked)] == []
    adapterdock.lock(manifest)
    model = adapterdock.load(manifest, frozen=True)
    assert "+".join(model.adapters["it"].methods) == methods
    assert close(logits(model, inputs_of(base)), saved.answer)


@pytest.mark.parametrize(
    "name",
    ["ia3", "loha conv", "lokr both low", "oft embedding", "adalora", "dora embedding", "tokens"],
)
def test_live_names_match_peft(name: str, tmp_path: Path) -> None:
    base = merge_cases.CASES[name].make()
    saved = merge_cases.saved_for(merge_cases.CASES[name], base, tmp_path / "it")
    ours = adapted(base, saved).state_dict().keys()
    assert ours
    assert ours <= peft_loads(base, saved.folder).state_dict().keys()


def test_every_native_method_is_a_peft_method() -> None:
    assert METHODS.keys() <= PEFT_METHODS
    assert all(row.peft_type == name for name, row in METHODS.items())


def test_layer_replication_is_refused_with_a_reason() -> None:
    from adapterdock.registry.checks.check_adapter import check_adapter
    from adapterdock.registry.files.facts import AdapterFacts, Header

    config = {"peft_type": "LORA", "layer_replication": [[0, 2], [1, 2]], "target_modules": ["q"]}
    findings, _ = check_adapter(AdapterFacts("it", None, config, Header({})), None)
    (finding,) = [f for f in findings if f.code == "AD314"]
    assert "rebuilds the base with repeated layers, which is not done" in finding.message
