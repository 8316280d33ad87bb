"""Which modules a config selects: the same as PEFT's own matcher, name by name."""

from __future__ import annotations

import re
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from adapterdock.registry.methods.lora import KINDS
from adapterdock.registry.methods.lora_config import LoraConfig
from adapterdock.registry.methods.naming import Naming
from adapterdock.registry.methods.patterns import PatternError, Patterns
from adapterdock.registry.methods.targets import TargetSelection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft.tuners.tuners_utils import check_target_module_exists
from support.builders import base_layout

PARTS = st.sampled_from(["model", "layers", "h", "0", "1", "11", "attn", "q", "k", "aq", "experts"])
NAMES = st.lists(PARTS, min_size=1, max_size=6).map(".".join)
LISTS = st.lists(NAMES | PARTS, max_size=3)
TEXTS = st.sampled_from([r".*q", r".*\.(q|k)", "q", r"model\..*", r".*layers\.[01]\..*", "", "a("])
CONFIGS = st.fixed_dictionaries(
    {
        "target_modules": LISTS | TEXTS,
        "exclude_modules": st.none() | LISTS | TEXTS,
        "modules_to_save": st.none() | LISTS,
        "layers_to_transform": st.none() | st.integers(0, 2) | st.lists(st.integers(0, 11)),
        "layers_pattern": st.none()
        | st.sampled_from(["layers", "h", "l.*s", "", "model|layers"])
        | LISTS,
    }
)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CONFIGS, st.lists(NAMES, min_size=1, max_size=5))
def test_a_config_selects_what_peft_selects(config: dict[str, Any], names: list[str]) -> None:
    theirs = SimpleNamespace(target_parameters=None, **config)
    ours = TargetSelection(LoraConfig.of(config), Patterns(), KINDS)
    for name in names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                wanted = bool(check_target_module_exists(theirs, name))
            except re.error:
                with pytest.raises(PatternError):
                    ours.selects(name)
                continue
        assert ours.selects(name) is wanted, name


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize(
    "targets", ["all-linear", "All-Linear", r".*(q_proj|c_attn|query)", ["dense", "up_proj", "wte"]]
)
def test_live_modules_are_those_that_peft_adapts(
    tmp_path: Any, kind: str, targets: str | list[str]
) -> None:
    import peft
    import transformers
    from support.builders import write_base

    auto = {"bert": transformers.AutoModelForSequenceClassification}.get(
        kind, transformers.AutoModelForCausalLM
    )
    model = auto.from_pretrained(write_base(tmp_path / "base", kind))
    task = "SEQ_CLS" if kind == "bert" else "CAUSAL_LM"
    wanted: set[str] = set()
    try:
        adapted = peft.get_peft_model(
            model, peft.LoraConfig(target_modules=targets, task_type=task)
        )
        wanted = set(adapted.base_model.targeted_module_names)
    except ValueError as error:
        assert "not found in the base model" in str(error)
    fields = {"target_modules": targets}
    if kind == "bert":
        fields["modules_to_save"] = ["classifier", "score"]  # PEFT adds them by the task
    selection = TargetSelection(LoraConfig.of(fields), Patterns(), KINDS)
    assert selection.live_modules(base_layout(kind), Naming()) == wanted


@pytest.mark.parametrize(
    ("naming", "author", "live"),
    [
        (Naming(), "model.layers.0", "model.layers.0"),
        (Naming(add="model"), "layers.0", "model.layers.0"),
        (Naming(add="model"), "", "model"),
        (Naming(strip="model"), "model.layers.0", "layers.0"),
        (Naming(strip="model"), "model", ""),
    ],
)
def test_names_go_to_the_live_model_and_back(naming: Naming, author: str, live: str) -> None:
    assert naming.live(author) == live
    assert naming.author(live) == author
