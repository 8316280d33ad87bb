"""What docs/reference/architectures.md says of each class is so, and can only get better."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import transformers
from adapterdock.loader.base.empty_model import build
from adapterdock.loader.base.layout import layout_of_model
from adapterdock.loader.tables import architecture_check
from adapterdock.loader.tables.architecture_check import (
    CHECKED,
    SIZES,
    UNKNOWN,
    WRONG,
    Verdict,
    compare,
    differences,
    layout_from_header,
    main,
    read,
    verify,
)
from adapterdock.loader.tables.architecture_survey import model_classes
from adapterdock.loader.tables.architecture_table import UNSURE
from adapterdock.loader.tables.variants import config_with
from adapterdock.registry.base.architectures import architecture_table
from adapterdock.registry.files.facts import Layout
from support.table_version import of_the_tables_transformers
from support.tiny_models import tiny_model

pytestmark = [of_the_tables_transformers, pytest.mark.usefixtures("quiet_transformers")]

SAMPLE = (
    "BartPretrainedModel",
    "BertForMaskedLM",
    "BambaModel",
    "CLIPModel",
    "EncodecModel",
    "GPT2LMHeadModel",
    "Gemma4Model",
    "GraniteMoeHybridModel",
    "JambaModel",
    "Lfm2ForCausalLM",
    "LlamaForCausalLM",
    "MarianMTModel",
    "MixtralModel",
    "NemotronHModel",
    "Qwen3NextModel",
    "RecurrentGemmaModel",
    "T5ForConditionalGeneration",
    "ViTModel",
    "ZambaModel",
)
"""Classes of every verdict that is quick to get."""


@pytest.fixture(scope="module")
def quiet_transformers() -> None:
    transformers.logging.set_verbosity_error()


def share(verdicts: dict[str, Verdict]) -> float:
    counts = Counter(one.verdict for one in verdicts.values())
    built = sum(counts[one] for one in (CHECKED, SIZES, UNKNOWN, WRONG))
    return counts[CHECKED] / built


@pytest.mark.parametrize("name", SAMPLE)
def test_the_committed_verdict_is_what_trying_the_class_gives(name: str) -> None:
    assert verify(getattr(transformers, name)) == read()[name]


def test_the_verdicts_are_of_the_installed_transformers_and_the_page_is_of_the_verdicts() -> None:
    assert differences() == []
    assert main(["--check"]) == 0


def test_every_class_has_a_verdict() -> None:
    assert read().keys() == model_classes().keys()


def test_the_share_of_checked_classes_only_grows() -> None:
    checked = sum(one.verdict == CHECKED for one in read().values())
    assert checked >= 1645  # raise it when more are
    assert share(read()) >= 0.973


def test_no_layout_is_wrong() -> None:
    verdicts = read().items()
    assert [name for name, one in verdicts if one.verdict == WRONG] == []
    assert [name for name, one in verdicts if one.why.startswith("not the same")] == []


def test_of_a_class_that_is_unsure_nothing_is_said() -> None:
    verdicts, rows = read(), architecture_table()["rows"]
    unsure = {name for name, row in rows.items() if "unsure" in row}
    assert unsure == UNSURE
    assert {verdicts[name].verdict for name in UNSURE} == {UNKNOWN}


@pytest.fixture
def llama() -> Layout:
    return layout_of_model(tiny_model("llama"))


def changed(layout: Layout, name: str, **fields: Any) -> Layout:
    module = replace(layout.modules[name], **fields)
    return replace(layout, modules={**layout.modules, name: module})


def test_a_layout_is_judged_by_its_worst_module(llama: Layout) -> None:
    name = "model.layers.0.self_attn.q_proj"
    assert compare(llama, llama).verdict == CHECKED
    less = changed(llama, name, in_features=None, out_features=None, parameters={})
    assert compare(llama, less) == Verdict(SIZES, name)
    assert compare(llama, changed(llama, name, in_features=31)) == Verdict(WRONG, name)
    assert compare(llama, replace(llama, modules={})).verdict == UNKNOWN
    assert compare(llama, replace(llama, tied={"a": "b"})).verdict == UNKNOWN
    assert compare(llama, None).verdict == UNKNOWN


def encodec(**options: Any) -> Verdict:
    cls = transformers.EncodecModel
    model = build(cls, config_with(cls, options))
    return compare(layout_of_model(model), layout_from_header("EncodecModel", model))


def test_members_of_a_list_are_told_apart_only_where_they_are_those_that_were_surveyed() -> None:
    assert encodec().verdict == CHECKED
    assert encodec(upsampling_ratios=[4, 2]).verdict == SIZES  # never a guess by the number


def test_a_page_that_is_not_current_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "architectures.md"
    page.write_text("old")
    monkeypatch.setattr(architecture_check, "PAGE", page)
    assert main(["--check"]) == 1
    assert "is not the page of" in capsys.readouterr().out
