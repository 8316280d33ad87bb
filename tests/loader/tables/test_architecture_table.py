"""The committed table equals the export from the installed transformers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import transformers
from adapterdock.loader.tables import architecture_table
from adapterdock.loader.tables.architecture_survey import describe, model_classes
from adapterdock.loader.tables.architecture_table import SECTIONS, text_of, tie_states
from adapterdock.registry.base.architectures import architecture_table as committed
from support.table_version import of_the_tables_transformers
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


@of_the_tables_transformers
@pytest.mark.slow
def test_exporting_a_sample_again_gives_the_committed_rows(sample: dict[str, Any]) -> None:
    table = committed()
    assert sample["transformers"] == table["transformers"] == transformers.__version__
    assert sample["conversions"] == dict(table["conversions"])
    assert {n: table["rows"][n] for n in SAMPLE} == {n: sample["rows"][n] for n in SAMPLE}


def test_the_committed_file_has_the_format_of_the_export() -> None:
    text = architecture_table.TABLE.read_text(encoding="utf-8")
    assert text_of(json.loads(text), *SECTIONS) == text


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
def test_the_model_type_gives_the_class_for_a_task(auto: str, kind: str, name: str) -> None:
    assert committed()["auto"][auto][kind] == name


def test_modules_that_need_a_sub_config_are_listed_with_it() -> None:
    assert committed()["rows"]["Gemma4Model"]["needs"] == {
        "audio_tower": "audio_config",
        "embed_audio": "audio_config",
        "embed_vision": "vision_config",
        "vision_tower": "vision_config",
    }


def test_every_sub_model_of_a_row_has_a_row() -> None:
    rows = committed()["rows"]

    def slots(tree: dict[str, Any]) -> Any:
        for key, value in tree.items():
            if key == "@":
                yield value[0]
            elif isinstance(value, dict):
                yield from slots(value)

    assert {name for row in rows.values() for name in slots(row["modules"])} <= rows.keys()


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
def test_a_module_is_described_by_its_parameters_and_buffers(
    module: nn.Module, words: set[str]
) -> None:
    assert describe(module) == words


@pytest.mark.parametrize(
    ("config", "digits"),
    [
        (transformers.LlamaConfig, "001"),  # untied unless it says so
        (transformers.BertConfig, "101"),  # tied unless it says not
        (transformers.T5Config, "111"),  # tied even if it says not
        (transformers.LlavaConfig, "001001111"),  # its text config's value counts too
    ],
)
def test_tie_states_follow_the_config_class(config: Any, digits: str) -> None:
    assert tie_states(config, config()) == digits
