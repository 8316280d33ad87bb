"""Methods that only PEFT knows: what is checked without PEFT."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest
from adapterdock.loader.tables.peft_facts import types_of
from adapterdock.manifests.findings.finding import Severity, Where
from adapterdock.registry.checks.options import PEFT_METHODS, check_method
from adapterdock.registry.files.facts import AdapterFacts, Header, TensorInfo
from adapterdock.registry.methods.peft_table import PEFT_REFUSED, PEFT_TABLE
from adapterdock.registry.methods.table import METHODS, THROUGH_PEFT
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils.peft_types import PeftType
from support.method_fit import codes, facts_of, look, retensored, tampered, text
from support.peft_adapters import tiny_llama
from support.peft_methods import CASES, saved_by_peft

DOCS = Path(__file__).parents[3] / "docs" / "reference" / "methods.md"
COMMON = {"peft_type", "peft_version", "base_model_name_or_path", "revision"}
Q = "model.layers.0.self_attn.q_proj."


@pytest.fixture(scope="module")
def base() -> Any:
    return tiny_llama()


@pytest.fixture(scope="module")
def saved(base: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, AdapterFacts]:
    folder = tmp_path_factory.mktemp("methods")
    return {
        method: facts_of(saved_by_peft(method, folder / method, base).folder)
        for method in ("HRA", "DELORA", "VBLORA", "UNILORA", "GLORA", "FROD", "OSF")
    }


def test_every_method_of_peft_is_native_through_peft_or_refused() -> None:
    ours = [*METHODS, *THROUGH_PEFT, *PEFT_REFUSED]
    assert len(ours) == len(set(ours))
    theirs = {member.value for member in PeftType}
    assert theirs <= set(ours) == PEFT_METHODS
    assert set(ours) - theirs == {"BONE"}, "known to an older PEFT"
    assert set(CASES) == set(THROUGH_PEFT), "each has a test"


def test_the_table_in_the_docs_classifies_every_method() -> None:
    table = DOCS.read_text().partition("\n## ")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("|")]
    said = {
        name: cells[2].strip()
        for cells in rows
        if len(cells) > 3
        for name in PEFT_METHODS
        if f"`{name}`" in cells[1]
    }
    assert said.keys() == PEFT_METHODS
    for name, becomes in said.items():
        kind = "native" if name in METHODS else "PEFT" if name in THROUGH_PEFT else "refused"
        assert becomes.startswith(kind), name


_SAMPLES: dict[type, Any] = {bool: True, float: 1.5, str: "x", dict: {"a": 1}, list: [1]}


@pytest.mark.parametrize("method", PEFT_TABLE)
def test_a_field_is_of_the_kind_that_peft_annotates(method: str) -> None:
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(method)]
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name not in PEFT_TABLE[method].fields:
            continue
        expect = PEFT_TABLE[method].fields[field.name]
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        assert field.name == "bias" or expect(default) is None, field.name
        allowed = types_of(hints[field.name])
        for type_, value in _SAMPLES.items():
            if (
                field.name != "bias"
                and type_ not in allowed
                and not (
                    type_ is float and int in allowed and field.name.endswith(("alpha", "lambda"))
                )
            ):
                assert expect(value) is not None, (field.name, value)


@pytest.mark.parametrize("method", PEFT_REFUSED)
def test_a_method_that_cannot_be_attached_is_refused_with_the_reason(method: str) -> None:
    row, (finding,) = check_method({"peft_type": method}, Where())
    assert row is None and finding.code == "AD312"
    assert finding.message == f"Cannot attach the method {method}: {PEFT_REFUSED[method]}"
    assert "through PEFT: ADAMSS" in (finding.expected or "")


@pytest.mark.parametrize("method", CASES)
def test_tensors_are_placed_without_peft_and_one_check_is_left_open(
    method: str, tmp_path: Path
) -> None:
    base = CASES[method][0]()
    findings, plan = look(facts_of(saved_by_peft(method, tmp_path / "it", base).folder), base)
    (finding,) = [f for f in findings if f.severity is not Severity.WARNING]
    assert finding.code == "AD390" and finding.severity is Severity.UNCHECKED
    assert method in finding.message and "lock --accept AD390" in (finding.hint or "")
    assert plan is not None and plan.peft is not None and plan.peft.method == method
    assert len(plan.sites) == 4 and plan.leftovers == ()
    assert [site.module for site in plan.sites] == list(plan.peft.authors)


def test_sites_are_in_the_models_order(saved: dict[str, AdapterFacts], base: Any) -> None:
    _, plan = look(saved["HRA"], base)
    assert plan is not None
    assert [site.module for site in plan.sites] == [
        f"model.layers.{n}.{m}" for n in (0, 1) for m in ("self_attn.q_proj", "mlp.down_proj")
    ]
    assert plan.rank == 4


def test_shared_tensors_are_placed_outside_the_model(
    saved: dict[str, AdapterFacts], base: Any
) -> None:
    for method, shared in (("VBLORA", "vblora_vector_bank"), ("UNILORA", "unilora_theta_d")):
        _, plan = look(saved[method], base)
        assert plan is not None and plan.peft is not None
        assert plan.peft.shared == {shared: f"base_model.{shared}"}


def test_an_adapter_of_an_inner_model_fits_the_complete_model(
    saved: dict[str, AdapterFacts], base: Any
) -> None:
    facts = saved["HRA"]
    tensors = {n.replace("model.model.", "model."): t for n, t in facts.header.tensors.items()}
    inner = dataclasses.replace(facts, header=Header(tensors))
    findings, plan = look(inner, base)
    assert [f.code for f in findings if f.severity is Severity.ERROR] == []
    assert plan is not None and plan.peft is not None
    assert plan.peft.authors["model.layers.0.mlp.down_proj"] == "layers.0.mlp.down_proj"


TAMPERED: dict[str, tuple[str, dict[str, Any], str]] = {
    "a field of another method": ("HRA", {"lora_alpha": 3}, "AD315"),
    "a field that nobody knows": ("HRA", {"new": 3}, "AD359"),
    "a rank that is none": ("HRA", {"r": "8"}, "AD313"),
    "a rank beyond measure": ("HRA", {"r": 1 << 40}, "AD313"),
    "a number beyond measure": ("VBLORA", {"num_vectors": 1 << 40}, "AD313"),
    "an object": ("HRA", {"init_weights": {"a": {"b": object}}}, "AD313"),
    "biases of another method": ("HRA", {"bias": "lora_only"}, "AD313"),
    "weights that would be moved": ("FROD", {"runtime_offload_base_weight": True}, "AD314"),
    "ranks by PEFT's own search": ("OSF", {"rank_pattern": {"q_proj": 2}}, "AD314"),
    "other targets": ("HRA", {"target_modules": ["v_proj", "down_proj"]}, "AD334"),
    "more targets": ("HRA", {"target_modules": ["q_proj", "v_proj", "down_proj"]}, "AD333"),
    "a pattern that is none": ("DELORA", {"rank_pattern": {"(": 2}}, "AD319"),
    "targets that are no pattern": ("HRA", {"target_modules": "("}, "AD319"),
    "a module to save that is not stored": ("HRA", {"modules_to_save": ["lm_head"]}, "AD3"),
    "targets of what has no tensors": ("UNILORA", {"target_modules": ["nothing"]}, "AD330"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_an_invalid_config_is_refused(case: str, saved: dict[str, AdapterFacts], base: Any) -> None:
    method, config, code = TAMPERED[case]
    found = [f.code for f in look(tampered(saved[method], **config), base)[0]]
    errors = {c for c in found if c.startswith(code)}
    assert errors - {"AD390"}, text(tampered(saved[method], **config), base)


def test_a_catastrophic_pattern_is_refused_and_does_not_reach_peft(
    saved: dict[str, AdapterFacts], base: Any
) -> None:
    slow = tampered(saved["DELORA"], rank_pattern={"((a{1000}){1000}){1000}": 2})
    assert codes(slow, base) == ["AD320"]
    fine = tampered(saved["DELORA"], rank_pattern={r"layers\.0\..*": 5})
    _, plan = look(fine, base)
    assert plan is not None and plan.peft is not None
    assert plan.peft.config["rank_pattern"] == {
        "model.layers.0.self_attn.q_proj": 5,
        "model.layers.0.mlp.down_proj": 5,
    }


TENSORS: dict[str, tuple[str, dict[str, tuple[int, ...] | None], str]] = {
    "a module that is not there": ("HRA", {"model.layers.7.self_attn.q_proj.hra_u": (4,)}, "AD342"),
    "a tensor of another method": ("HRA", {f"{Q}lora_A.weight": (4, 16)}, "AD332"),
    "a weight of the base": ("HRA", {f"{Q}weight": (16, 16)}, "AD332"),
    "something shared that is not": ("HRA", {"vblora_vector_bank": (8, 8)}, "AD332"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_a_tensor_without_a_place_is_refused(
    case: str, saved: dict[str, AdapterFacts], base: Any
) -> None:
    method, changes, code = TENSORS[case]
    assert code in codes(retensored(saved[method], changes), base)


def test_integer_tensors_are_accepted_only_for_methods_that_have_them(
    saved: dict[str, AdapterFacts], base: Any
) -> None:
    def with_dtype(facts: AdapterFacts, name: str, dtype: str) -> AdapterFacts:
        tensors = dict(facts.header.tensors)
        key = next(key for key in tensors if key.endswith(name))
        tensors[key] = TensorInfo(dtype, tensors[key].shape)
        return dataclasses.replace(facts, header=Header(tensors))

    frod = saved["FROD"]
    kinds = {name.split(".")[1]: info.dtype for name, info in frod.header.tensors.items()}
    assert kinds["frod_s_indices"] == "I64"
    assert codes(frod, base) == ["AD390"]
    assert codes(with_dtype(saved["HRA"], "hra_u", "I64"), base) == ["AD337", "AD390"]


def test_an_adapter_is_checked_without_a_base(saved: dict[str, AdapterFacts]) -> None:
    from adapterdock.registry.checks.check_adapter import check_adapter

    for method, facts in saved.items():
        findings, plan = check_adapter(facts, None)
        errors = [f for f in findings if f.severity is Severity.ERROR]
        assert not errors, (method, errors)
        assert plan is not None and plan.peft is not None
