"""A base whose modules are not known: the finding says why, and what to do in this case."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from adapterdock.registry.checks.check_adapter import check_adapter
from support.builders import adapter_facts, base_facts

ACME = {"model_type": "acme", "architectures": ["AcmeForCausalLM"]}
CODE = {"auto_map": {"AutoModelForCausalLM": "modeling_acme.AcmeForCausalLM"}}


@pytest.mark.parametrize(
    ("config", "why", "what"),
    [
        (
            {**ACME, **CODE},
            "AcmeForCausalLM comes from the repository's own code (auto_map in config.json)",
            "set base.trust_remote_code: true",
        ),
        (
            ACME,
            "the table does not know AcmeForCausalLM as a class of transformers",
            "Correct `architectures`",
        ),
        ({"model_type": "llama"}, "names no class under `architectures`", "Name the model's class"),
        (
            {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
            "tensors or parts do not match LlamaForCausalLM",
            "`adapterdock validate --deep`",
        ),
    ],
    ids=["remote code", "another transformers", "no class", "other tensors"],
)
def test_an_unknown_architecture_says_why_and_what_to_do(
    config: dict[str, Any], why: str, what: str
) -> None:
    base = dataclasses.replace(base_facts(), layout=None, config=config)
    findings, _ = check_adapter(adapter_facts(), base)
    (found,) = [one for one in findings if one.code == "AD341"]
    assert why in found.message
    assert what in found.hint and "--accept AD341" in found.hint


def test_a_known_architecture_is_not_reported() -> None:
    findings, _ = check_adapter(adapter_facts(), base_facts())
    assert "AD341" not in {one.code for one in findings}
