"""The verdicts in docs/reference/architectures.md are true, and can only get better."""

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
"""Classes that are quick to build, of every verdict."""


@pytest.fixture(scope="module")
def quiet_transformers() -> None:
    transformers.logging.set_verbosity_error()


def share(verdicts: dict[str, Verdict]) -> float:
    counts = Counter(one.verdict for one in verdicts.values())
    built = sum(counts[one] for one in (CHECKED, SIZES, UNKNOWN, WRONG))
    return counts[CHECKED] / built


@pytest.mark.parametrize("name", SAMPLE)
def test_trying_a_class_again_gives_the_committed_verdict(name: str) -> None:
    assert verify(getattr(transformers, name)) == read()[name]


def test_verdicts_and_page_are_current() -> None:
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


def test_unsure_classes_have_no_known_layout() -> None:
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


def test_the_worst_module_decides_the_verdict(llama: Layout) -> None:
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


def test_list_members_are_known_only_for_the_surveyed_numbers() -> None:
    assert encodec().verdict == CHECKED
    assert encodec(upsampling_ratios=[4, 2]).verdict == SIZES  # not guessed from the number


def test_an_outdated_page_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "architectures.md"
    page.write_text("old")
    monkeypatch.setattr(architecture_check, "PAGE", page)
    assert main(["--check"]) == 1
    assert "does not match" in capsys.readouterr().out
