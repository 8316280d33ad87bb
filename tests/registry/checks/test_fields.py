"""Every field of every method, holding what it should not: each is told, and nothing is raised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from adapterdock.manifests.findings.finding import Finding, Severity
from adapterdock.registry.checks.check_adapter import check_adapter
from adapterdock.registry.checks.new_adapter import plan_new_adapter
from adapterdock.registry.methods.foreign_fields import FOREIGN_FIELDS
from adapterdock.registry.methods.options import COMMON, Support
from adapterdock.registry.methods.table import METHODS, THROUGH_PEFT
from support.builders import adapter_facts, base_layout, lora_config

ROWS = {**METHODS, **THROUGH_PEFT}
NAMES = sorted({*COMMON, *FOREIGN_FIELDS, *(o.name for m in ROWS.values() for o in m.options)})
WRONG: tuple[Any, ...] = (
    None,
    True,
    120,
    -1,
    10**400,
    1.5,
    1e308,
    "",
    "(",
    "x" * 20_000,
    [],
    [1],
    [None],
    ["(", 1],
    [[{}]],
    {},
    {"a": 1},
    {"(": 1},
    {"a": None},
    {"": ""},
    {"a": [10**400]},
    {"a": {"b": [None]}},
)
NEVER_RIGHT: tuple[Any, ...] = ([[{}]], {"a": {"b": [None]}})
"""What no field may hold."""
FEW: tuple[Any, ...] = (True, 120, [[{}]])
"""For fields that the method does not have."""


def config_of(method: str, **fields: Any) -> dict[str, Any]:
    plain = {"peft_type": method, "target_modules": ["q_proj", "v_proj"], **fields}
    if method in ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"):
        plain = {"peft_type": method, "task_type": "CAUSAL_LM", "num_virtual_tokens": 4, **fields}
    return plain


def looked_at(config: Mapping[str, Any]) -> list[Finding]:
    layout = base_layout("llama")
    findings, _ = check_adapter(adapter_facts(config), None, layout=layout)
    new = plan_new_adapter(config, {"model_type": "llama", "hidden_size": 16}, layout)[1]
    assert all(isinstance(finding.message, str) for finding in (*findings, *new))
    return findings


def read_fields() -> Iterator[tuple[str, str]]:
    """(method, field) of those that change what is computed."""
    for method, row in ROWS.items():
        for option in row.options:
            if option.support is not Support.NO_EFFECT:
                yield method, option.name


@pytest.mark.parametrize("method", ROWS)
def test_no_value_of_a_field_raises(method: str) -> None:
    own = {*COMMON, *(option.name for option in ROWS[method].options)}
    for name in NAMES:
        for value in WRONG if name in own else FEW:
            looked_at(config_of(method, **{name: value}))


@pytest.mark.parametrize("value", NEVER_RIGHT, ids=["a list of lists", "a map of maps"])
def test_a_field_of_another_type_is_reported(value: Any) -> None:
    for method, name in read_fields():
        told = [f for f in looked_at(config_of(method, **{name: value})) if name in str(f)]
        assert any(f.severity is Severity.ERROR for f in told), (method, name)


@pytest.mark.parametrize("method", ["OSF", "DELORA", "HIRA", "LORA"])
def test_a_pattern_of_ranks_that_is_a_number_is_one_finding(method: str) -> None:
    found = [f for f in looked_at(config_of(method, rank_pattern=120)) if f.code == "AD313"]
    assert len(found) == 1 and found[0].found == "120"
    twin = looked_at(config_of(method, rank_pattern={}))
    assert "AD313" not in {f.code for f in twin}


# -- fields that are none of PEFT's ------------------------------------------------------------


def codes_and_hints(**fields: Any) -> dict[str, Finding]:
    findings, plan = check_adapter(
        adapter_facts(lora_config(**fields)), None, layout=base_layout("llama")
    )
    assert plan is not None
    return {f.code: f for f in findings if f.code not in ("AD363", "AD364")}


@pytest.mark.parametrize("method", ["LORA", "IA3", "HRA", "PREFIX_TUNING"])
def test_training_fields_of_other_trainers_are_only_noted(method: str) -> None:
    fields = {"lora_dtype": "float32", "lorap_lr_ratio": 16.0, "lorap_emb_lr": 1e-06}
    plain = {f.code for f in looked_at(config_of(method))}
    more = {f.code: f for f in looked_at(config_of(method, **fields, _from_model_config=True))}
    assert more.keys() - plain == {"AD367"}
    assert more["AD367"].severity is Severity.WARNING
    assert "lorap_lr_ratio is ms-swift's learning rate of B" in more["AD367"].message


def test_an_unset_training_field_is_not_mentioned() -> None:
    assert not codes_and_hints(lora_dtype=None, lorap_lr_ratio=None)


@pytest.mark.parametrize(
    "fields", [{"use_qa_lora": True}, {"context_length": 32768}, {"lora_parameters": {"rank": 8}}]
)
def test_a_known_field_with_an_effect_stays_refused(fields: dict[str, Any]) -> None:
    found = codes_and_hints(**fields)
    assert found.keys() == {"AD314"} and next(iter(fields)) in found["AD314"].message


def test_an_unknown_field_is_unchecked() -> None:
    found = codes_and_hints(new_scaling=0.5)
    assert found.keys() == {"AD359"} and found["AD359"].severity is Severity.UNCHECKED
    assert "--accept AD359" in (found["AD359"].hint or "")


def test_a_misspelt_field_is_an_error_with_the_right_name() -> None:
    config = {n: v for n, v in lora_config().items() if n != "lora_alpha"}
    findings, _ = check_adapter(
        adapter_facts({**config, "lora_alhpa": 32}), None, layout=base_layout("llama")
    )
    (finding,) = [f for f in findings if f.code == "AD315"]
    assert finding.severity is Severity.ERROR and finding.hint == "Did you mean 'lora_alpha'?"


def test_a_field_is_no_misspelling_of_a_field_that_is_set() -> None:
    assert codes_and_hints(lora_alphas=32).keys() == {"AD359"}


def test_a_field_of_another_method_is_an_error_that_names_the_method() -> None:
    found = codes_and_hints(feedforward_modules=["down_proj"])
    assert found.keys() == {"AD315"} and "IA3" in (found["AD315"].hint or "")


def test_an_unknown_field_of_a_new_adapter_is_an_error() -> None:
    config = config_of("LORA", new_scaling=0.5)
    found = plan_new_adapter(config, {"model_type": "llama"}, base_layout("llama"))[1]
    assert "AD315" in {f.code for f in found}
    assert "AD359" not in {f.code for f in found}
