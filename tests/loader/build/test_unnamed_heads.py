"""Heads that PEFT before 0.11 saved without naming them in ``modules_to_save``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
import transformers as tf
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings import fit as codes
from adapterdock.manifests.findings.errors import FitError
from adapterdock.manifests.findings.finding import Severity
from peft import PromptTuningConfig
from safetensors.torch import load_file, save_file
from support.heads import answer, edit, manifest_over, saved_adapter, tiny
from support.near import close, differs
from support.peft_adapters import peft_loads

CLASSIFIERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "roberta": (tf.RobertaForSequenceClassification, {"target_modules": ["query", "value"]}),
    "roberta, all dense layers": (
        tf.RobertaForSequenceClassification,
        {"target_modules": ["dense"]},
    ),
    "xlm-roberta": (tf.XLMRobertaForSequenceClassification, {"target_modules": ["query"]}),
    "electra": (tf.ElectraForSequenceClassification, {"target_modules": "all-linear"}),
    "distilbert": (tf.DistilBertForSequenceClassification, {"target_modules": ["q_lin", "v_lin"]}),
    "bert": (tf.BertForSequenceClassification, {"target_modules": ["query"]}),
    "deberta": (tf.DebertaV2ForSequenceClassification, {"target_modules": ["query_proj"]}),
    "llama": (tf.LlamaForSequenceClassification, {"target_modules": ["q_proj"]}),
    "tokens": (
        tf.RobertaForTokenClassification,
        {"target_modules": ["query"], "task_type": "TOKEN_CLS"},
    ),
    "questions": (
        tf.RobertaForQuestionAnswering,
        {"target_modules": ["query"], "task_type": "QUESTION_ANS"},
    ),
    "prompt": (
        tf.BertForSequenceClassification,
        {"kind": PromptTuningConfig, "num_virtual_tokens": 3, "num_layers": 1, "token_dim": 16,
         "num_attention_heads": 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_head_that_the_config_does_not_name_gives_pefts_logits(name: str, tmp_path: Path) -> None:
    kind, config = CLASSIFIERS[name]
    base = tiny(kind, **({} if name == "questions" else {"num_labels": 3}))
    base.save_pretrained(tmp_path / "base")
    saved_adapter(base, tmp_path / "it", **{"task_type": "SEQ_CLS", **config})
    edit(tmp_path / "it" / "adapter_config.json", modules_to_save=None)
    manifest = manifest_over(tmp_path / "base", {"it": tmp_path / "it"}, active="it")
    assert not [f for f in adapterdock.validate(manifest).findings if f.severity is Severity.ERROR]
    want = answer(peft_loads(base, tmp_path / "it"))
    assert differs(want, answer(base), 0.01)
    assert close(answer(adapterdock.load(manifest)), want)


def test_a_head_that_the_file_leaves_out_stays_the_bases(tmp_path: Path) -> None:
    base = tiny(tf.RobertaForSequenceClassification, num_labels=3)
    saved_adapter(base, tmp_path / "it", target_modules=["query"])  # without a task: no head
    edit(tmp_path / "it" / "adapter_config.json", task_type="SEQ_CLS")
    model = AdaptedModel(base)
    model.load_adapter(tmp_path / "it", "it")
    assert "classifier" not in model._host.adapters.by_name["it"].replaced


@pytest.mark.parametrize(
    ("task", "module"), [("SEQ_CLS", "pooler"), ("CAUSAL_LM", "classifier"), (None, "classifier")]
)
def test_a_module_that_is_not_a_head_of_the_task_is_refused(
    task: str | None, module: str, tmp_path: Path
) -> None:
    base = tiny(tf.RobertaForSequenceClassification, num_labels=3)
    saved_adapter(base, tmp_path / "it", target_modules=["query"])
    edit(tmp_path / "it" / "adapter_config.json", task_type=task)
    file = tmp_path / "it" / "adapter_model.safetensors"
    stray = {f"base_model.model.{module}.dense.weight": torch.ones(16, 16)}
    save_file({**load_file(file), **stray}, file)
    with pytest.raises(FitError) as caught:
        AdaptedModel(base).load_adapter(tmp_path / "it", "it")
    assert [f.code for f in caught.value.findings] == [codes.TENSOR_UNEXPECTED.id]


def test_factors_at_a_head_do_not_replace_the_head(tmp_path: Path) -> None:
    base = tiny(tf.LlamaForSequenceClassification, num_labels=3)
    saved = saved_adapter(base, tmp_path / "it", target_modules=["q_proj", "score"])
    edit(tmp_path / "it" / "adapter_config.json", task_type="SEQ_CLS")  # as transformers' own does
    model = AdaptedModel(base)
    model.load_adapter(tmp_path / "it", "it")
    assert close(answer(model, adapter="it"), saved.answer)
