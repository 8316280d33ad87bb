"""``base.vocab_size``: a base whose embeddings are resized as it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
import transformers as tf
from adapterdock.manifests.findings import fit as codes
from adapterdock.manifests.findings.errors import AttachError, FingerprintError, FitError
from adapterdock.manifests.findings.finding import Finding, Severity
from safetensors.torch import load_file, save_file
from support.heads import NAME, edit, manifest_over, write_manifest
from support.near import close
from support.peft_adapters import (
    logits,
    peft_loads,
    peft_saves,
    tiny_bert,
    tiny_gpt2,
    tiny_llama,
    tiny_t5,
)

ROWS = 65
NEW = [61, 62, 63, 64]
IDS = {"input_ids": torch.tensor([[3, 61, 64, 5], [62, 7, 63, 60]])}
BOTH = {"decoder_input_ids": torch.tensor([[0, 61], [0, 62]])}


def tied_llama() -> Any:
    return tiny_llama(tie_word_embeddings=True)


CASES: dict[str, tuple[Any, dict[str, Any], int]] = {
    "rows, tied": (tied_llama, {"trainable_token_indices": NEW}, ROWS),
    "rows, untied": (tiny_llama, {"trainable_token_indices": NEW}, ROWS),
    "rows of gpt2": (
        tiny_gpt2,
        {"trainable_token_indices": NEW, "target_modules": ["c_attn"]},
        ROWS,
    ),
    "rows of t5": (tiny_t5, {"trainable_token_indices": NEW, "target_modules": ["q"]}, ROWS),
    "rows of bert": (
        tiny_bert,
        {"trainable_token_indices": NEW, "target_modules": ["query"]},
        ROWS,
    ),
    "saved modules": (tiny_llama, {"modules_to_save": ["embed_tokens", "lm_head"]}, ROWS),
    "an embedding with factors": (tied_llama, {"target_modules": ["embed_tokens"]}, ROWS),
    "fewer rows": (tiny_llama, {}, 58),
}


def resized(make: Any, rows: int, seed: int = 1) -> Any:
    """As in training: with transformers' random rows."""
    base = make()
    torch.manual_seed(seed)
    base.resize_token_embeddings(rows)
    return base


def trained(case: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    """A base of 61 rows in ``base``, an adapter ``it`` of a resized copy, that copy, and the
    manifest of both that says so."""
    make, config, rows = CASES[case]
    make().save_pretrained(folder / "base")
    base = resized(make, rows)
    settings = {"target_modules": ["q_proj"], **config}
    peft_saves(base, folder / "it", save={"save_embedding_layers": True}, **settings)
    edit(folder / "it" / "adapter_config.json", base_model_name_or_path=NAME)
    said = {"vocab_size": rows}
    return base, manifest_over(folder / "base", {"it": folder / "it"}, said, active="it")


def asked(case: str) -> dict[str, torch.Tensor]:
    ids = {"input_ids": IDS["input_ids"].clamp(max=CASES[case][2] - 1)}
    return {**ids, **(BOTH if "t5" in case else {})}


def wrong(manifest: Any) -> list[Finding]:
    found = adapterdock.validate(manifest).findings
    return [f for f in found if f.severity is not Severity.WARNING]


@pytest.mark.parametrize("case", CASES)
def test_a_base_resized_at_loading_gives_pefts_logits(case: str, tmp_path: Path) -> None:
    base, manifest = trained(case, tmp_path)
    want = logits(peft_loads(base, tmp_path / "it"), asked(case))
    assert wrong(manifest) == []
    assert close(logits(adapterdock.load(manifest), asked(case)), want)
    if case == "rows of t5":  # resizing alone makes one module of its three embeddings
        base.save_pretrained(tmp_path / "big")
        base = tf.T5ForConditionalGeneration.from_pretrained(tmp_path / "big").eval()
    alone = logits(base, asked(case))
    live = adapterdock.attach(base, manifest, accept=shrunk(case))
    assert close(logits(live, asked(case)), want)
    assert torch.equal(logits(live.base_model, asked(case)), alone)


def shrunk(case: str) -> tuple[str, ...]:
    """A user may accept a live model with fewer rows than its files: they are not compared."""
    return ("AD432", "AD435") if case == "fewer rows" else ()


def test_a_lock_pins_the_base_before_resizing(tmp_path: Path) -> None:
    base, manifest = trained("rows, tied", tmp_path)
    plain = manifest_over(tmp_path / "base", {})
    before = adapterdock.lock(write_manifest(tmp_path / "plain.yaml", plain)).base
    file = write_manifest(tmp_path / "m.yaml", manifest)
    made = adapterdock.lock(file).base
    assert before is not None and made is not None and made.loaded_as is not None
    assert (made.loaded_as.vocab_size, made.loaded_as.resized_from) == (ROWS, 61)
    assert made.model_copy(update={"loaded_as": None}) == before
    want = logits(peft_loads(base, tmp_path / "it"), IDS)
    assert close(logits(adapterdock.load(file, frozen=True), IDS), want)
    live = adapterdock.attach(base, file, frozen=True)  # compared with the lock's fingerprint
    assert close(logits(live, IDS), want)


def test_another_base_is_found_even_if_resized(tmp_path: Path) -> None:
    base, manifest = trained("rows, tied", tmp_path)
    with torch.no_grad():
        base.model.layers[0].self_attn.q_proj.weight += 1
    with pytest.raises(FingerprintError):
        adapterdock.attach(base, manifest)


def test_a_live_model_that_was_not_resized_is_refused_unchanged(tmp_path: Path) -> None:
    _, manifest = trained("rows, tied", tmp_path)
    base = tied_llama()
    del manifest["adapters"], manifest["active"]
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    with pytest.raises(AttachError) as caught:
        adapterdock.attach(base, manifest)
    (found,) = caught.value.findings
    assert found.code == codes.VOCABULARY_NOT_RESIZED.id
    assert "resize_token_embeddings" in str(found.hint)
    after = base.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_new_rows_are_the_mean_of_the_old(tmp_path: Path) -> None:
    _, manifest = trained("rows, untied", tmp_path)
    base = adapterdock.load(manifest).base_model
    for weight in (base.model.embed_tokens.weight, base.lm_head.weight):
        mean = weight[:61].mean(0)
        assert close(weight[61:], mean.expand(4, -1))


def test_a_converted_base_can_be_resized(tmp_path: Path) -> None:
    base, manifest = trained("rows, tied", tmp_path)
    manifest["base"]["dtype"] = "bfloat16"
    model = adapterdock.load(manifest)
    assert model.base_model.get_input_embeddings().weight.shape == (ROWS, 16)
    want = logits(peft_loads(base, tmp_path / "it"), IDS)
    assert close(logits(model, IDS), want, 8)


def test_an_adapter_without_the_new_rows_of_the_head_is_refused(tmp_path: Path) -> None:
    _, manifest = trained("rows, untied", tmp_path)
    file = tmp_path / "it" / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: t for name, t in tensors.items() if "lm_head" not in name}, file)
    (found,) = wrong(manifest)
    assert found.code == codes.NEW_UNCOVERED.id
    assert "61 to 64 of lm_head" in found.message
    with pytest.raises(FitError):
        adapterdock.load(manifest)


def test_rows_for_only_some_new_tokens_are_refused(tmp_path: Path) -> None:
    _, manifest = trained("rows, tied", tmp_path)
    base = resized(tied_llama, ROWS)
    peft_saves(base, tmp_path / "it", target_modules=["q_proj"], trainable_token_indices=NEW[:-1])
    edit(tmp_path / "it" / "adapter_config.json", base_model_name_or_path=NAME)
    assert [f.code for f in wrong(manifest)] == [codes.NEW_UNCOVERED.id]


def test_an_adapter_without_the_new_rows_is_refused_beside_one_with_them(tmp_path: Path) -> None:
    _, manifest = trained("rows, tied", tmp_path)
    model = adapterdock.load(manifest)
    peft_saves(tied_llama(), tmp_path / "plain", target_modules=["q_proj"])
    edit(tmp_path / "plain" / "adapter_config.json", base_model_name_or_path=NAME)
    with pytest.raises(FitError) as caught:
        model.load_adapter(tmp_path / "plain", "plain")
    assert [f.code for f in caught.value.findings] == [codes.NEW_UNCOVERED.id]
    manifest["adapters"]["plain"] = {"source": str(tmp_path / "plain")}
    (found,) = wrong(manifest)
    assert found.code == codes.NEW_UNCOVERED.id and found.where.path == ("adapters", "plain")


def test_a_plain_adapter_works_on_a_base_with_fewer_rows(tmp_path: Path) -> None:
    _, manifest = trained("fewer rows", tmp_path)
    peft_saves(tiny_llama(), tmp_path / "plain", target_modules=["q_proj"])
    edit(tmp_path / "plain" / "adapter_config.json", base_model_name_or_path=NAME)
    manifest["adapters"]["plain"] = {"source": str(tmp_path / "plain")}
    assert wrong(manifest) == []


def test_resizing_to_the_same_size_changes_nothing(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path / "base")
    peft_saves(tiny_llama(), tmp_path / "it", target_modules=["q_proj"])
    edit(tmp_path / "it" / "adapter_config.json", base_model_name_or_path=NAME)
    said = {"vocab_size": 61}
    manifest = manifest_over(tmp_path / "base", {"it": tmp_path / "it"}, said, active="it")
    made = adapterdock.lock(write_manifest(tmp_path / "m.yaml", manifest))
    assert made.base is not None and made.base.loaded_as is None
    assert adapterdock.load(tmp_path / "m.yaml", frozen=True).active_adapters() == ["it"]


@pytest.mark.parametrize("case", ["rows, tied", "saved modules", "an embedding with factors"])
def test_findings_suggest_the_missing_options(case: str, tmp_path: Path) -> None:
    _, manifest = trained(case, tmp_path)
    del manifest["base"]["vocab_size"]
    found = wrong(manifest)
    assert found and any("base.vocab_size: 65" in str(f.hint) for f in found)


def test_an_adapter_saved_on_a_resized_base_records_the_original(tmp_path: Path) -> None:
    _, manifest = trained("rows, tied", tmp_path)
    model = adapterdock.load(manifest)
    model.save_adapter(tmp_path / "again", "it")
    manifest["adapters"]["it"]["source"] = str(tmp_path / "again")
    assert wrong(manifest) == []
    again = adapterdock.load(manifest)
    assert torch.equal(logits(again, IDS), logits(model, IDS))


def test_a_classifier_with_new_tokens(tmp_path: Path) -> None:
    tied_llama().save_pretrained(tmp_path / "base")
    torch.manual_seed(3)
    base = tf.LlamaForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3).eval()
    base.resize_token_embeddings(ROWS)
    config = {"task_type": "SEQ_CLS", "target_modules": ["q_proj"], "trainable_token_indices": NEW}
    peft_saves(base, tmp_path / "it", **config)
    edit(tmp_path / "it" / "adapter_config.json", base_model_name_or_path=NAME)
    said = {"vocab_size": ROWS}
    manifest = manifest_over(tmp_path / "base", {"it": tmp_path / "it"}, said, active="it")
    want = logits(peft_loads(base, tmp_path / "it"), IDS)
    assert wrong(manifest) == []
    assert close(logits(adapterdock.load(manifest), IDS), want)
