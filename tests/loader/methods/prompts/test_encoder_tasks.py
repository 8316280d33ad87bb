"""Virtual tokens on encoders, with and without heads, and for question answering and features: what
PEFT answers; and what PEFT cannot compute, or computes without the prefix, is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.manifests.findings.errors import AttachError, FitError, RoutingError
from support.near import close, differs
from support.peft_adapters import (
    Saved,
    adapted,
    ids,
    logits,
    peft_loads,
    peft_saves,
    randomise,
    tiny_llama,
)

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
HEADS = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}


def tiny(kind: str, task: str) -> Any:
    """A model of this kind with the head of the task."""
    import transformers

    torch.manual_seed(0)
    labels: dict[str, Any] = {"num_labels": 2 if task == "QUESTION_ANS" else 3}
    if kind == "T5Encoder":
        config = transformers.T5Config(
            vocab_size=61, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2
        )
        model = transformers.T5EncoderModel(config)
    elif kind == "T5":
        config = transformers.T5Config(
            vocab_size=61, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, **labels
        )
        model = getattr(transformers, HEADS[task]).from_config(config)
    elif kind == "DistilBert":
        config = transformers.DistilBertConfig(
            vocab_size=61, dim=16, hidden_dim=24, n_layers=2, n_heads=2, **labels
        )
        head = HEADS[task].removeprefix("Auto").removeprefix("Model") or "Model"
        model = getattr(transformers, f"DistilBert{head}")(config)
    else:
        more = {"pad_token_id": 0} if kind in ("Llama", "ModernBert") else {}
        config = getattr(transformers, f"{kind}Config")(**SIZES, **labels, **more)
        model = getattr(transformers, HEADS[task]).from_config(config)
    return model.eval()


def saved(model: Any, kind: str, task: str, folder: Path) -> Saved:
    from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig

    kinds = {"prompt": PromptTuningConfig, "p": PromptEncoderConfig, "prefix": PrefixTuningConfig}
    sizes: dict[str, Any] = {
        "token_dim": 16,
        "num_attention_heads": 2,
        "num_layers": 2,
    }  # DistilBert's config
    return peft_saves(
        model, folder, kind=kinds[kind], task_type=task, num_virtual_tokens=3, **sizes
    )


def masked() -> dict[str, torch.Tensor]:
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[0, 5:] = 0
    return {"input_ids": ids(), "attention_mask": mask}


CASES = [
    ("prompt", "Bert", "QUESTION_ANS"),
    ("p", "Bert", "QUESTION_ANS"),
    ("prefix", "Bert", "QUESTION_ANS"),
    ("prompt", "DistilBert", "QUESTION_ANS"),
    ("prefix", "Llama", "QUESTION_ANS"),
    ("prompt", "Roberta", "FEATURE_EXTRACTION"),
    ("prefix", "Roberta", "FEATURE_EXTRACTION"),
    ("p", "DistilBert", "FEATURE_EXTRACTION"),
    ("p", "T5Encoder", "FEATURE_EXTRACTION"),
    ("prefix", "Llama", "FEATURE_EXTRACTION"),
    ("prefix", "Bert", "SEQ_CLS"),
    ("prefix", "Roberta", "SEQ_CLS"),
    ("prefix", "Electra", "TOKEN_CLS"),
    ("prompt", "T5", "TOKEN_CLS"),
]


def answers(model: Any, inputs: Any) -> list[torch.Tensor]:
    """All tensors of an answer."""
    with torch.no_grad():
        return [value for value in model(**inputs).values() if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize(("kind", "base", "task"), CASES, ids=lambda part: part)
def test_answers_match_peft(kind: str, base: str, task: str, tmp_path: Path) -> None:
    plain = tiny(base, task)
    adapter = saved(plain, kind, task, tmp_path / "it")
    oracle = peft_loads(plain, adapter.folder)
    model = AdaptedModel(plain)
    model.load_adapter(adapter.folder, "it")
    model.set_adapter("it")
    for inputs in ({"input_ids": ids()}, masked()):
        expected, found = answers(oracle, inputs), answers(model, inputs)
        assert len(found) == len(expected) > 0
        assert all(close(one, other) for one, other in zip(found, expected, strict=True))
    assert differs(answers(plain, masked())[0][:, -1], found[0][:, -1])


def test_question_answering_losses_match_peft(tmp_path: Path) -> None:
    """Positions count from the first virtual token, as in training with PEFT."""
    at = {"start_positions": torch.tensor([1, 4]), "end_positions": torch.tensor([2, 6])}
    for kind in ("prompt", "prefix"):
        plain = tiny("Bert", "QUESTION_ANS")
        adapter = saved(plain, kind, "QUESTION_ANS", tmp_path / kind)
        with torch.no_grad():
            expected = peft_loads(plain, adapter.folder)(**masked(), **at).loss
            assert close(adapted(plain, adapter)(**masked(), **at).loss, expected)


@pytest.mark.parametrize("task", ["QUESTION_ANS", "FEATURE_EXTRACTION"])
@pytest.mark.parametrize("kind", ["prefix", "prompt", "p"])
def test_token_types_of_zeros_change_nothing(kind: str, task: str, tmp_path: Path) -> None:
    """A tokenizer of BERT's returns them for a text without a second part."""
    plain = tiny("Bert", task)
    adapter = saved(plain, kind, task, tmp_path / "it")
    types = {**masked(), "token_type_ids": torch.zeros(2, 7, dtype=torch.long)}
    model, oracle = adapted(plain, adapter), peft_loads(plain, adapter.folder)
    for ours, theirs in zip(answers(model, types), answers(oracle, types), strict=True):
        assert close(ours, theirs)
    types["token_type_ids"][1, 3:] = 1
    with pytest.raises(RoutingError, match="other than zeros"):
        model(**types)


@pytest.mark.parametrize("task", ["QUESTION_ANS", "FEATURE_EXTRACTION"])
def test_inputs_that_peft_drops_are_refused(task: str, tmp_path: Path) -> None:
    """For both tasks PEFT computes without the token types."""
    plain = tiny("Bert", task)
    adapter = saved(plain, "prefix", task, tmp_path / "it")
    types = {**masked(), "token_type_ids": torch.ones(2, 7, dtype=torch.long)}
    oracle = peft_loads(plain, adapter.folder)
    assert torch.equal(answers(oracle, types)[0], answers(oracle, masked())[0])
    model = adapted(plain, adapter)
    with pytest.raises(RoutingError, match="AD775"):
        model(**types)
    positions = torch.arange(7).expand(2, 7)
    if task == "QUESTION_ANS":
        with pytest.raises(RoutingError, match="AD775"):
            model(**masked(), position_ids=positions)
    else:
        moved = {**masked(), "position_ids": positions.flip(1)}
        assert close(answers(model, moved)[0], answers(oracle, moved)[0])


@pytest.mark.parametrize(
    ("base", "task"),
    [
        ("DistilBert", "SEQ_CLS"),
        ("DistilBert", "FEATURE_EXTRACTION"),
        ("ModernBert", "TOKEN_CLS"),
        ("T5Encoder", "FEATURE_EXTRACTION"),
    ],
)
def test_a_prefix_that_peft_cannot_put_anywhere_is_refused(
    base: str, task: str, tmp_path: Path
) -> None:
    """With a head PEFT raises; without one it answers as if there were no prefix."""
    from peft import PrefixTuningConfig, get_peft_model

    plain = tiny(base, task)
    sizes: dict[str, Any] = {"token_dim": 16, "num_attention_heads": 2, "num_layers": 2}
    config = PrefixTuningConfig(task_type=task, num_virtual_tokens=3, **sizes)
    theirs = get_peft_model(tiny(base, task), config).eval()
    randomise(theirs)
    if task == "FEATURE_EXTRACTION":
        assert close(logits(theirs), logits(plain))
    else:
        with pytest.raises(ValueError, match="does not support past key values"):
            logits(theirs)
    theirs.save_pretrained(str(tmp_path / "it"))
    model = AdaptedModel(plain)
    with pytest.raises((AttachError, FitError), match=r"AD387|AD776"):
        model.load_adapter(tmp_path / "it", "it")
    assert not model.adapters


@pytest.mark.parametrize("task", ["QUESTION_ANS", "FEATURE_EXTRACTION"])
def test_models_with_a_decoder_of_their_own_are_refused(task: str, tmp_path: Path) -> None:
    """PEFT raises, or leaves the decoder out."""
    adapter = saved(tiny("Bert", task), "prompt", task, tmp_path / "it")
    with pytest.raises((AttachError, FitError), match="AD385"):
        AdaptedModel(tiny("T5", task)).load_adapter(adapter.folder, "it")


def test_the_files_alone_tell_which_encoders_take_a_prefix(tmp_path: Path) -> None:
    plain = tiny("Bert", "SEQ_CLS")
    plain.save_pretrained(tmp_path / "bert")
    tiny("DistilBert", "SEQ_CLS").save_pretrained(tmp_path / "distil")
    saved(plain, "prefix", "SEQ_CLS", tmp_path / "it")
    for base, fits in (("bert", True), ("distil", False)):
        manifest = tmp_path / f"{base}.yaml"
        lines = {
            "version": 1,
            "base": {"model": f"./{base}"},
            "adapters": {"it": {"source": "./it"}},
        }
        manifest.write_text(json.dumps(lines))
        report = adapterdock.validate(manifest)
        assert report.ok is fits, str(report)
        assert fits or "AD387" in {finding.code for finding in report.findings}


def test_a_new_adapter_for_question_answering_trains_its_head_as_in_peft() -> None:
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(task_type="QUESTION_ANS", num_virtual_tokens=3)
    model = AdaptedModel(tiny("Bert", "QUESTION_ANS"))
    model.add_adapter("it", config)
    theirs = get_peft_model(tiny("Bert", "QUESTION_ANS"), config)
    trained = [p.shape for p in model.parameters() if p.requires_grad]
    assert sorted(trained) == sorted(p.shape for p in theirs.parameters() if p.requires_grad)


def test_a_task_that_no_model_has_stays_refused(tmp_path: Path) -> None:
    adapter = saved(tiny_llama(), "prompt", "CAUSAL_LM", tmp_path / "it")
    said = {**adapter.config, "task_type": "SOMETHING"}
    (adapter.folder / "adapter_config.json").write_text(json.dumps(said))
    with pytest.raises((AttachError, FitError), match="AD385"):
        AdaptedModel(tiny_llama()).load_adapter(adapter.folder, "it")
