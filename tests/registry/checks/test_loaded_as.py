"""How a base is loaded, decided from configs and headers alone; and the table behind it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers
from adapterdock.loader.base.layout import layout_of_model
from adapterdock.loader.tables.task_classes import TABLE, classes, head_of
from adapterdock.manifests.findings import fit as codes
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.language.schema import Base
from adapterdock.manifests.language.source import Source
from adapterdock.manifests.lockfile import LoadedAs
from adapterdock.registry.base.architectures import layout_of
from adapterdock.registry.base.task_classes import class_for, task_of
from adapterdock.registry.checks.check_adapter import check_adapter
from adapterdock.registry.checks.loaded_as import Wanted, decide
from adapterdock.registry.files.facts import AdapterFacts, BaseFacts, Header, TensorInfo
from adapterdock.registry.methods.resized import resized, token_modules, token_rows
from support.table_version import of_the_tables_transformers
from support.tiny_bases import base_facts_of, fresh


def locate(path: tuple[str, ...]) -> Where:
    return Where(path=path)


@of_the_tables_transformers
def test_the_table_of_classes_is_that_of_the_installed_transformers() -> None:
    committed = json.loads(TABLE.read_text())
    assert committed["transformers"] == transformers.__version__
    assert committed["classes"] == classes()
    for name in ("LlamaForSequenceClassification", "RobertaForSequenceClassification"):
        assert committed["heads"][name] == head_of(name)


def test_most_heads_have_all_their_sizes() -> None:
    heads = json.loads(TABLE.read_text())["heads"]
    sized = [name for name, head in heads.items() if all(None not in s for s in head.values())]
    assert len(sized) >= 0.93 * len(heads) and len(heads) >= 285


@pytest.mark.parametrize("kind", ["llama", "llama tied", "gpt2", "bert masked", "t5", "gemma3"])
def test_a_resized_layout_is_that_of_a_resized_model(kind: str, tmp_path: Path) -> None:
    model = fresh(kind)
    before = layout_of_model(model)
    rows = token_rows(before)
    assert rows is not None
    model.resize_token_embeddings(rows + 8)
    model.save_pretrained(tmp_path)  # T5's embeddings are modules of their own again
    after = layout_of_model(type(model).from_pretrained(tmp_path))
    found = resized(before, rows + 8)
    for name in token_modules(before):
        assert found.modules[name] == after.modules[name], name
    if "cls.predictions" in after.modules:  # the head that owns the bias
        assert found.modules["cls.predictions"] == after.modules["cls.predictions"]


def adapter(name: str, task: str | None, **modules: tuple[int, ...]) -> AdapterFacts:
    """A LoRA on ``q_proj`` that brings these whole ``modules``, by the shape of their weight."""
    config: dict[str, Any] = {"peft_type": "LORA", "task_type": task, "target_modules": ["q_proj"]}
    start = "base_model.model."
    site = f"{start}model.layers.0.self_attn.q_proj.lora"
    shapes = {f"{site}_A.weight": (8, 32), f"{site}_B.weight": (32, 8)}
    shapes |= {f"{start}{module}.weight": shape for module, shape in modules.items()}
    header = Header({key: TensorInfo("F32", shape) for key, shape in shapes.items()})
    return AdapterFacts(name, Source.parse("./it"), config, header)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> BaseFacts:
    folder = tmp_path_factory.mktemp("llama")
    fresh("llama").save_pretrained(folder)
    facts = base_facts_of(folder)
    return replace(facts, layout=layout_of(facts.config, facts.tensors))


def decided(base: BaseFacts, said: Base, *adapters: AdapterFacts) -> Wanted:
    return decide(base, said, {one.name: one for one in adapters}, locate, layout_of)


def test_the_head_in_the_file_decides_class_and_labels(llama: BaseFacts) -> None:
    base = decided(llama, Base(), adapter("it", "SEQ_CLS", score=(3, 32))).base
    assert base.loaded_as == LoadedAs(
        architecture="LlamaForSequenceClassification", num_labels=3, new=("score",)
    )
    assert base.layout is not None
    assert base.layout.modules["score"].parameters == {"weight": (3, 32)}
    assert "lm_head" not in base.layout.modules
    assert (base.config, base.tensors) == (llama.config, llama.tensors)  # as on disk


def test_nothing_changes_where_the_base_has_all_modules(llama: BaseFacts) -> None:
    for task in ("CAUSAL_LM", "SEQ_CLS", "FEATURE_EXTRACTION", "NO_TASK", None):
        wanted = decided(llama, Base(), adapter("it", task))
        assert wanted.base is llama and not wanted.findings


def test_a_head_of_another_width_does_not_fit(llama: BaseFacts) -> None:
    it = adapter("it", "SEQ_CLS", score=(3, 48))
    base = decided(llama, Base(), it).base
    found, _ = check_adapter(it, base)
    assert codes.SAVED_MODULE.id in [f.code for f in found]
    right = adapter("it", "SEQ_CLS", score=(3, 32))
    found, _ = check_adapter(right, base)
    assert codes.SAVED_MODULE.id not in [f.code for f in found]


def test_the_manifest_decides_before_the_adapters(llama: BaseFacts) -> None:
    said = Base(task="TOKEN_CLS", id2label={"0": "no", "1": "yes"})
    loaded = decided(llama, said).base.loaded_as
    assert loaded is not None
    assert loaded.architecture == "LlamaForTokenClassification"
    assert (loaded.num_labels, loaded.id2label) == (2, {"0": "no", "1": "yes"})


def test_classes_and_tasks_are_found_both_ways() -> None:
    assert class_for("SEQ_CLS", "gpt2") == "GPT2ForSequenceClassification"
    assert class_for("SEQ_CLS", None) is None
    assert class_for("NO_TASK", "gpt2") is None
    assert task_of("GPT2ForSequenceClassification") == "SEQ_CLS"
    assert task_of("GPT2LMHeadModel") is None
