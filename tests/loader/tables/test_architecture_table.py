"""The committed table is what the generator makes of the installed transformers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import transformers
from adapterdock.loader.tables import architecture_table
from adapterdock.loader.tables.architecture_survey import describe, model_classes
from adapterdock.loader.tables.architecture_table import differences, main, text_of, tie_states
from adapterdock.registry.base.architectures import architecture_table as committed
from torch import nn
from transformers.pytorch_utils import Conv1D

SAMPLE = (
    "BertForMaskedLM",
    "BertModel",
    "GPT2LMHeadModel",
    "GPT2Model",
    "LlamaForCausalLM",
    "LlamaForSequenceClassification",
    "LlamaModel",
    "MixtralForCausalLM",
    "MixtralModel",
    "Wav2Vec2Model",
)


@pytest.fixture(scope="module")
def sample() -> dict[str, Any]:
    return architecture_table.table(SAMPLE)


@pytest.mark.slow
def test_a_new_export_of_a_sample_is_the_committed_one(sample: dict[str, Any]) -> None:
    table = committed()
    assert sample["transformers"] == table["transformers"] == transformers.__version__
    assert sample["conversions"] == dict(table["conversions"])
    assert {n: table["rows"][n] for n in SAMPLE} == {n: sample["rows"][n] for n in SAMPLE}


def test_the_file_is_written_as_the_generator_writes_it() -> None:
    text = architecture_table.TABLE.read_text(encoding="utf-8")
    assert text_of(json.loads(text)) == text


def test_the_table_knows_nearly_every_class_that_transformers_has() -> None:
    missing = model_classes().keys() - committed()["rows"].keys()
    assert len(missing) < 0.025 * len(committed()["rows"])


@pytest.mark.parametrize(
    ("auto", "kind", "name"),
    [
        ("AutoModelForCausalLM", "llama", "LlamaForCausalLM"),
        ("AutoModelForSequenceClassification", "roberta", "RobertaForSequenceClassification"),
        ("AutoModelForTokenClassification", "bert", "BertForTokenClassification"),
        ("AutoModelForQuestionAnswering", "distilbert", "DistilBertForQuestionAnswering"),
        ("AutoModelForMaskedLM", "electra", "ElectraForMaskedLM"),
        ("AutoModelForSeq2SeqLM", "t5", "T5ForConditionalGeneration"),
        ("AutoModelForImageClassification", "vit", "ViTForImageClassification"),
    ],
)
def test_the_class_of_a_task_is_told_by_the_model_type(auto: str, kind: str, name: str) -> None:
    assert committed()["auto"][auto][kind] == name


def test_modules_that_a_sub_config_decides_are_told_with_it() -> None:
    assert committed()["rows"]["Gemma4Model"]["needs"] == {
        "audio_tower": "audio_config",
        "embed_audio": "audio_config",
        "embed_vision": "vision_config",
        "vision_tower": "vision_config",
    }


def test_every_part_of_every_row_is_a_row() -> None:
    rows = committed()["rows"]

    def slots(tree: dict[str, Any]) -> Any:
        for key, value in tree.items():
            if key == "@":
                yield value[0]
            elif isinstance(value, dict):
                yield from slots(value)

    assert {name for row in rows.values() for name in slots(row["modules"])} <= rows.keys()


@pytest.mark.slow
def test_every_difference_is_told(sample: dict[str, Any]) -> None:
    assert differences(sample, sample) == []
    other = json.loads(json.dumps(sample))
    other["transformers"] = "4.0"
    other["rows"]["BertModel"]["prefix"] = "burt"
    del other["rows"]["LlamaModel"]
    del other["conversions"]["legacy"]
    other["rows"]["NeedsALibrary"] = {}
    other["conversions"]["nobody"] = []
    assert differences(other, sample) == [
        f"transformers 4.0, not {transformers.__version__}",
        "conversions: legacy is new",
        "conversions: nobody is gone",
        "rows: LlamaModel is new",
        "rows: BertModel differs",
    ]


@pytest.mark.slow
def test_check_fails_where_the_file_is_not_current(
    sample: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(architecture_table, "TABLE", tmp_path / "architectures.json")
    monkeypatch.setattr(architecture_table, "table", lambda: sample)
    assert main([]) == 0
    assert main(["--check"]) == 0
    assert "is current" in capsys.readouterr().out
    monkeypatch.setattr(architecture_table, "table", lambda: {**sample, "transformers": "9"})
    assert main(["--check"]) == 1
    assert "not 9" in capsys.readouterr().out
    assert main(["--nonsense"]) == 2


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Linear(2, 3), {"2"}),
        (Conv1D(3, 2), {"2T"}),
        (nn.Embedding(3, 2), {"2E"}),
        (nn.LayerNorm(2), {"1"}),
        (nn.BatchNorm1d(2), {"1"}),
        (nn.Conv1d(4, 4, 2, groups=4), {"3", "C=*"}),
        (nn.Conv2d(4, 8, 2, groups=2), {"4", "C=2"}),
        (nn.ConvTranspose1d(2, 3, 2), {"3O"}),
        (nn.MultiheadAttention(4, 2), {"+in_proj_weight", "+in_proj_bias"}),
        (nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 3, 2)), {"3", "C=1"}),
        (nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(2, 3, 2)), {"3O"}),
        (nn.ReLU(), set()),
    ],
)
def test_a_module_is_described_by_what_it_owns(module: nn.Module, words: set[str]) -> None:
    assert describe(module) == words


@pytest.mark.parametrize(
    ("config", "digits"),
    [
        (transformers.LlamaConfig, "001"),  # untied unless it says so
        (transformers.BertConfig, "101"),  # tied unless it says not
        (transformers.T5Config, "111"),  # tied whatever it says
        (transformers.LlavaConfig, "001001111"),  # its text config's word counts too
    ],
)
def test_what_ties_the_embeddings_is_the_config_classs_own_rule(config: Any, digits: str) -> None:
    assert tie_states(config, config()) == digits
