"""Bases that are loaded for their adapters' task, for which their files have no head."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
import transformers as tf
from adapterdock.loader.merge_files import merge_to_folder
from adapterdock.manifests.findings import fit as codes
from adapterdock.manifests.findings import language, lock
from adapterdock.manifests.findings.errors import AttachError, FitError, LockError
from adapterdock.manifests.findings.finding import Severity
from support.heads import answer, edit, manifest_over, saved_adapter, tiny
from support.heads import write_manifest as write
from support.near import close
from support.peft_adapters import peft_loads

CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (tf.LlamaForCausalLM, tf.LlamaForSequenceClassification, {}),
    "llama, tied": (
        tf.LlamaForCausalLM,
        tf.LlamaForSequenceClassification,
        {"base": {"tie_word_embeddings": True}},
    ),
    "tokens": (tf.LlamaForCausalLM, tf.LlamaForTokenClassification, {"task_type": "TOKEN_CLS"}),
    "questions": (
        tf.RobertaForMaskedLM,
        tf.RobertaForQuestionAnswering,
        {"task_type": "QUESTION_ANS", "target_modules": ["query"]},
    ),
    "roberta": (
        tf.RobertaForMaskedLM,
        tf.RobertaForSequenceClassification,
        {"target_modules": ["query"]},
    ),
    "bare roberta": (
        tf.RobertaModel,
        tf.RobertaForSequenceClassification,
        {"target_modules": ["query"]},
    ),
    "distilbert": (
        tf.DistilBertForMaskedLM,
        tf.DistilBertForSequenceClassification,
        {"target_modules": ["q_lin"]},
    ),
    "gpt2": (tf.GPT2LMHeadModel, tf.GPT2ForSequenceClassification, {"target_modules": ["c_attn"]}),
}


def classifier(case: str, folder: Path, labels: int = 3) -> tuple[Any, dict[str, Any]]:
    """A base in ``folder / "base"``, an adapter ``it`` that was trained on it with a head, the
    model that PEFT loads it on, and a manifest of both."""
    kind, headed, config = CASES[case]
    tiny(kind, **config.get("base", {})).save_pretrained(folder / "base")
    more = {} if config.get("task_type") == "QUESTION_ANS" else {"num_labels": labels}
    base = with_head(headed, folder / "base", **more)
    settings = {"task_type": "SEQ_CLS", "target_modules": ["q_proj"], **config}
    settings.pop("base", None)
    saved_adapter(base, folder / "it", **settings)
    return base, manifest_over(folder / "base", {"it": folder / "it"}, active="it")


def with_head(kind: Any, folder: Path, **labels: Any) -> Any:
    torch.manual_seed(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind.from_pretrained(folder, **labels).eval()


def errors(manifest: Any) -> list[str]:
    found = adapterdock.validate(manifest).findings
    return [f.code for f in found if f.severity is not Severity.WARNING]


@pytest.mark.parametrize("case", CASES)
def test_a_classifier_on_a_base_without_a_head_gives_pefts_logits(
    case: str, tmp_path: Path
) -> None:
    base, manifest = classifier(case, tmp_path)
    want = answer(peft_loads(base, tmp_path / "it"))
    assert errors(manifest) == []
    model = adapterdock.load(manifest)
    assert type(model.base_model) is type(base)
    assert close(answer(model), want)
    again = adapterdock.attach(base, manifest)
    assert close(answer(again), want)


def test_loading_uses_the_class_in_the_lock(tmp_path: Path) -> None:
    base, manifest = classifier("llama", tmp_path)
    file = write(tmp_path / "m.yaml", manifest)
    made = adapterdock.lock(file)
    assert made.base is not None and made.base.loaded_as is not None
    assert made.base.loaded_as.architecture == "LlamaForSequenceClassification"
    assert (made.base.loaded_as.num_labels, made.base.loaded_as.new) == (3, ("score",))
    assert made.base.fingerprint is not None  # of the files, not of the model
    assert made.base.fingerprint.architecture == "LlamaForCausalLM"
    model = adapterdock.load(file, frozen=True)
    want = answer(peft_loads(base, tmp_path / "it"))
    assert close(answer(model), want)
    assert adapterdock.lock(file) == made


def test_a_base_that_loads_as_its_files_say_locks_as_before(tmp_path: Path) -> None:
    base = tiny(tf.LlamaForCausalLM)
    base.save_pretrained(tmp_path / "base")
    saved_adapter(base, tmp_path / "it", target_modules=["q_proj"], task_type="CAUSAL_LM")
    file = write(tmp_path / "m.yaml", manifest_over(tmp_path / "base", {"it": tmp_path / "it"}))
    made = adapterdock.lock(file)
    assert made.base is not None and made.base.loaded_as is None
    assert "loaded_as" not in (tmp_path / "m.lock").read_text()


def test_the_head_of_the_base_alone_is_the_same_each_time(tmp_path: Path) -> None:
    _, manifest = classifier("llama", tmp_path)
    torch.manual_seed(1)
    one, next_one = adapterdock.load(manifest).base_model, torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), next_one)  # the caller's random numbers are not affected
    assert torch.equal(one.score.weight, adapterdock.load(manifest).base_model.score.weight)


def test_a_manifest_can_set_task_and_labels(tmp_path: Path) -> None:
    _, manifest = classifier("llama", tmp_path)
    names = {"0": "bad", "1": "fair", "2": "good"}
    manifest["base"] |= {"task": "SEQ_CLS", "num_labels": 3, "id2label": names}
    config = adapterdock.load(manifest).base_model.config
    assert config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert config.label2id == {"bad": 0, "fair": 1, "good": 2}


def test_a_number_of_labels_that_differs_from_the_head_is_refused(tmp_path: Path) -> None:
    _, manifest = classifier("llama", tmp_path)
    manifest["base"] |= {"num_labels": 2}
    assert errors(manifest) == [codes.SAVED_MODULE.id]


def test_wrong_label_names_are_refused(tmp_path: Path) -> None:
    _, manifest = classifier("llama", tmp_path)
    manifest["base"] |= {"num_labels": 3, "id2label": {"0": "bad", "2": "good", "1": "bad"}}
    assert errors(manifest) == [language.BAD_VALUE.id]


def test_an_adapter_for_another_task_is_refused_by_name(tmp_path: Path) -> None:
    _, manifest = classifier("llama", tmp_path)
    saved_adapter(
        tiny(tf.LlamaForCausalLM), tmp_path / "lm", target_modules=["q_proj"], task_type="CAUSAL_LM"
    )
    manifest["adapters"]["lm"] = {"source": str(tmp_path / "lm")}
    (found,) = [f for f in adapterdock.validate(manifest).findings if f.code == "AD308"]
    assert found.found == "CAUSAL_LM: lm; SEQ_CLS: it"
    with pytest.raises(FitError):
        adapterdock.load(manifest)


def test_adapters_that_need_no_other_class_may_have_any_task(tmp_path: Path) -> None:
    base = tiny(tf.LlamaForCausalLM)
    base.save_pretrained(tmp_path / "base")
    for name, task in (("one", "CAUSAL_LM"), ("two", "FEATURE_EXTRACTION"), ("three", None)):
        saved_adapter(base, tmp_path / name, target_modules=["q_proj"])
        edit(tmp_path / name / "adapter_config.json", task_type=task)
    folders = {name: tmp_path / name for name in ("one", "two", "three")}
    assert errors(manifest_over(tmp_path / "base", folders)) == []


def test_an_adapter_without_the_new_head_is_refused_by_name(tmp_path: Path) -> None:
    _, manifest = classifier("llama", tmp_path)
    saved_adapter(tiny(tf.LlamaForCausalLM), tmp_path / "plain", target_modules=["q_proj"])
    manifest["adapters"]["plain"] = {"source": str(tmp_path / "plain")}
    (found,) = [f for f in adapterdock.validate(manifest).findings if f.code == "AD309"]
    assert found.where.path == ("adapters", "plain") and "score" in found.message
    del manifest["adapters"]["plain"]
    model = adapterdock.load(manifest)
    with pytest.raises(FitError) as caught:  # in this way as well
        model.load_adapter(tmp_path / "plain", "plain")
    assert codes.NEW_UNCOVERED.id in [f.code for f in caught.value.findings]


def test_a_plain_adapter_beside_a_classifier_whose_head_the_base_has(tmp_path: Path) -> None:
    base = tiny(tf.LlamaForSequenceClassification, num_labels=3)
    base.save_pretrained(tmp_path / "base")
    saved_adapter(base, tmp_path / "it", target_modules=["q_proj"], task_type="SEQ_CLS")
    saved_adapter(base, tmp_path / "plain", target_modules=["q_proj"])
    folders = {name: tmp_path / name for name in ("it", "plain")}
    assert errors(manifest_over(tmp_path / "base", folders)) == []


def test_a_pooler_that_is_in_no_file_is_not_left_random(tmp_path: Path) -> None:
    tiny(tf.BertForMaskedLM).save_pretrained(tmp_path / "base")  # without a pooler
    base = with_head(tf.BertForSequenceClassification, tmp_path / "base", num_labels=3)
    config = {"target_modules": ["query"], "task_type": "SEQ_CLS"}
    saved_adapter(base, tmp_path / "it", **config)
    manifest = manifest_over(tmp_path / "base", {"it": tmp_path / "it"}, active="it")
    assert codes.NEW_UNCOVERED.id in errors(manifest)
    saved_adapter(base, tmp_path / "it", modules_to_save=["pooler"], **config)
    assert set(errors(manifest)) <= {codes.SIZE_UNKNOWN.id}
    model = adapterdock.load(manifest, accept=[codes.SIZE_UNKNOWN.id])
    assert close(answer(model), answer(peft_loads(base, tmp_path / "it")))


def test_a_token_classifier_does_not_run_as_a_sequence_classifier(tmp_path: Path) -> None:
    tiny(tf.LlamaForSequenceClassification, num_labels=3).save_pretrained(tmp_path / "base")
    base = with_head(tf.LlamaForTokenClassification, tmp_path / "base", num_labels=3)
    saved_adapter(base, tmp_path / "it", target_modules=["q_proj"], task_type="TOKEN_CLS")
    manifest = manifest_over(tmp_path / "base", {"it": tmp_path / "it"}, active="it")
    model = adapterdock.load(manifest)
    assert close(answer(model), answer(peft_loads(base, tmp_path / "it")))


def test_a_task_without_a_class_is_refused(tmp_path: Path) -> None:
    _, manifest = classifier("llama", tmp_path)
    manifest["base"] |= {"task": "SEQ_2_SEQ_LM"}
    assert codes.TASK_CLASS.id in errors(manifest)


def test_feature_extraction_without_a_pooler_is_refused(tmp_path: Path) -> None:
    full = tiny(tf.RobertaForMaskedLM)
    full.save_pretrained(tmp_path / "base")
    base = with_head(tf.RobertaModel, tmp_path / "base", add_pooling_layer=False)
    saved_adapter(base, tmp_path / "it", target_modules=["query"], task_type="FEATURE_EXTRACTION")
    manifest = manifest_over(tmp_path / "base", {"it": tmp_path / "it"}, active="it")
    assert type(adapterdock.load(manifest).base_model).__name__ == "RobertaForMaskedLM"
    manifest["base"] |= {"task": "FEATURE_EXTRACTION"}
    assert codes.NEW_UNCOVERED.id in errors(manifest)  # RobertaModel has a pooler


def test_a_lock_with_other_loading_options_is_stale(tmp_path: Path) -> None:
    _, manifest = classifier("llama", tmp_path)
    adapterdock.lock(write(tmp_path / "m.yaml", manifest))
    manifest["base"] |= {"task": "SEQ_CLS"}
    with pytest.raises(LockError) as caught:
        adapterdock.load(write(tmp_path / "m.yaml", manifest))
    assert [f.code for f in caught.value.findings] == [lock.LOCK_STALE.id]


def test_a_merge_refuses_files_of_another_class(tmp_path: Path) -> None:
    base, manifest = classifier("llama", tmp_path)
    with pytest.raises(AttachError) as caught:
        merge_to_folder(manifest, tmp_path / "out")
    assert [f.code for f in caught.value.findings] == [codes.MERGE_LOADED_AS.id]
    assert not (tmp_path / "out").exists()
    want = answer(peft_loads(base, tmp_path / "it"))
    merged = adapterdock.load(manifest).merge_and_unload()
    assert close(answer(merged), want)


def test_a_new_classifier_is_created_on_a_causal_base(tmp_path: Path) -> None:
    tiny(tf.LlamaForCausalLM).save_pretrained(tmp_path / "base")
    manifest = manifest_over(tmp_path / "base", {}, {"num_labels": 4})
    config = {"peft_type": "LORA", "task_type": "SEQ_CLS", "target_modules": ["q_proj"], "r": 2}
    manifest["adapters"] = {"new": {"config": config, "trainable": True}}
    model = adapterdock.load(manifest)
    assert "score" in model._host.adapters.by_name["new"].replaced
    assert answer(model, adapter="new").shape == (2, 4)


def test_a_base_without_a_class_is_loaded_for_the_task(tmp_path: Path) -> None:
    base, manifest = classifier("roberta", tmp_path)
    edit(tmp_path / "base" / "config.json", architectures=None)
    want = answer(peft_loads(base, tmp_path / "it"))
    assert errors(manifest) == []
    assert close(answer(adapterdock.load(manifest)), want)


def test_a_base_without_a_class_needs_a_task(tmp_path: Path) -> None:
    base = tiny(tf.LlamaForCausalLM)
    base.save_pretrained(tmp_path / "base")
    edit(tmp_path / "base" / "config.json", architectures=None)
    saved_adapter(base, tmp_path / "it", target_modules=["q_proj"])
    manifest = manifest_over(tmp_path / "base", {"it": tmp_path / "it"}, active="it")
    assert codes.ARCHITECTURE_UNKNOWN.id in errors(manifest)
    manifest["base"]["task"] = "CAUSAL_LM"
    assert errors(manifest) == []
    assert type(adapterdock.load(manifest).base_model) is tf.LlamaForCausalLM
