"""An entry says what its adapter is, and nothing of its publisher's machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from adapterdock.manifests.language.schema import Fingerprint
from adapterdock.manifests.language.source import Source
from adapterdock.registry.catalogue.make_entry import (
    describe_base,
    is_name,
    make_entry,
    published_files,
)
from adapterdock.registry.catalogue.publish import entry_bytes
from adapterdock.registry.files.digests import folder_digest
from adapterdock.registry.files.facts import AdapterPlan, FileFact, SitePlan
from support.builders import adapter_facts, base_facts, lora_config

DIGEST = "sha256:" + "a" * 64


def fact(path: str) -> FileFact:
    return FileFact(path, 5, DIGEST)


CONSUMED = (fact("adapter_config.json"), fact("adapter_model.safetensors"))
SITES = tuple(
    SitePlan(f"model.layers.0.self_attn.{name}", "LORA", {}, rank, 16, 1.0)
    for name, rank in (("q_proj", 8), ("v_proj", 4))
)


def test_an_entry_has_both_digests_the_files_roles_and_the_method() -> None:
    config = lora_config(use_rslora=True, trainable_token_indices=[1, 2, 3])
    facts = adapter_facts(config, files=CONSUMED)
    facts = replace(facts, headers={"adapter_model.safetensors": facts.header})
    files = [*CONSUMED, *map(fact, ("README.md", "tokenizer.json", "chat_template.jinja", "x.txt"))]
    base = describe_base(base_facts(), Fingerprint(weights=None, head_weights=None))
    entry = make_entry("refunds", "1.0.0", "now", facts, AdapterPlan(SITES), files, base)
    assert entry.digest == folder_digest(CONSUMED)
    assert entry.folder == folder_digest(files)
    assert {file.path: file.role for file in entry.files} == {
        "adapter_config.json": "config",
        "adapter_model.safetensors": "weights",
        "README.md": "card",
        "tokenizer.json": "tokenizer",
        "chat_template.jinja": "template",
        "x.txt": "other",
    }
    method = entry.method
    assert (method.rank, method.lowest_rank, method.alpha) == (8, 4, 16)
    assert (method.rslora, method.dora, method.dtype) == (True, False, "F32")
    assert (method.targets, method.trained_tokens) == (("q_proj", "v_proj"), 3)
    assert method.parameters > 0


def test_no_path_of_the_publishers_machine_gets_into_an_entry(tmp_path: Path) -> None:
    local = replace(base_facts(), source=Source.parse(str(tmp_path)))
    names = [
        str(tmp_path),
        "./base",
        "~/base",
        "file:///x/y",
        "C:\\models\\base",
        "org/base",
        "base",
    ]
    base = describe_base(local, Fingerprint(weights=None, head_weights=None), names)
    assert base.source is None
    assert base.aliases == ("org/base",)
    facts = adapter_facts(lora_config(base_model_name_or_path=str(tmp_path)), files=CONSUMED)
    entry = make_entry("refunds", "1.0.0", "now", facts, AdapterPlan(SITES), CONSUMED, base)
    assert str(tmp_path).encode() not in entry_bytes(entry)


@pytest.mark.parametrize("text", ["org/base", "hf://org/base", "s3://bucket/base"])
def test_names_that_mean_the_same_everywhere_are_kept(text: str) -> None:
    assert is_name(text)


def test_checkpoints_and_pickles_are_not_published() -> None:
    facts = adapter_facts(files=CONSUMED)
    paths = ["README.md", "optimizer.pt", "training_args.bin", "checkpoint-5/adapter_config.json"]
    files = {one.path: one for one in (*CONSUMED, *map(fact, paths))}
    assert [one.path for one in published_files(facts, files)] == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
