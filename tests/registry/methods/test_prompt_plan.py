"""Virtual tokens on disk: their plan, and misfits of config, file and base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.finding import Finding
from adapterdock.registry.checks.check_adapter import check_adapter
from adapterdock.registry.checks.prompts import KeysAndValues
from adapterdock.registry.files.facts import AdapterPlan
from adapterdock.registry.methods.options import Support
from adapterdock.registry.methods.prompt_config import P_OPTIONS, PREFIX_OPTIONS, PROMPT_OPTIONS
from support.builders import HIDDEN, Spec, adapter_facts, base_config, base_facts, write_base
from support.method_fit import planned

QUIET = {"AD363"}
TOKENS = 5
KIND = {"PROMPT_TUNING": PROMPT_OPTIONS, "P_TUNING": P_OPTIONS, "PREFIX_TUNING": PREFIX_OPTIONS}


def sizes(kind: str = "llama") -> KeysAndValues:
    found = KeysAndValues.of(base_config(kind))
    assert isinstance(found, KeysAndValues)
    return found


def config(method: str = "PROMPT_TUNING", **fields: Any) -> dict[str, Any]:
    own = sizes()
    assert own.heads and own.head_dim and own.layers
    width = own.heads * own.head_dim if method == "PREFIX_TUNING" else HIDDEN
    return {
        "peft_type": method,
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": TOKENS,
        "token_dim": width,
        "num_transformer_submodules": 1,
        "num_layers": own.layers,
        "num_attention_heads": own.heads,
        **fields,
    }


def tensors(method: str = "PROMPT_TUNING", shape: tuple[int, ...] | None = None) -> Any:
    said = config(method)
    wide = said["token_dim"] * (2 * said["num_layers"] if method == "PREFIX_TUNING" else 1)
    return {"prompt_embeddings": ("F32", shape or (TOKENS, wide))}


def look(
    said: Mapping[str, Any], found: Mapping[str, Spec], kind: str = "llama"
) -> tuple[list[Finding], AdapterPlan | None]:
    findings, plan = check_adapter(adapter_facts(said, found), base_facts(kind))
    return [f for f in findings if f.code not in QUIET], plan


def codes(said: Mapping[str, Any], found: Mapping[str, Spec], kind: str = "llama") -> list[str]:
    return sorted({f.code for f in look(said, found, kind)[0]})


@pytest.mark.parametrize("method", KIND)
def test_fitting_virtual_tokens_have_a_plan_and_no_finding(method: str) -> None:
    findings, plan = look(config(method), tensors(method))
    assert findings == []
    assert plan is not None and plan.prompt is not None
    assert (plan.prompt.module, plan.prompt.method) == ("", method)
    assert plan.prompt.tensors == {"prompt_embeddings": "prompt_embeddings"}
    assert (plan.sites, plan.rank, plan.leftovers) == ((), 0, ())


@pytest.mark.parametrize("method", KIND)
def test_every_field_of_pefts_config_is_classified(method: str) -> None:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType

    ours = {option.name for option in KIND[method]}
    common = {"peft_type", "base_model_name_or_path", "revision", "peft_version"}
    theirs = set(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(method)].__dataclass_fields__)
    assert theirs - common == ours
    assert all(o.support in (Support.SUPPORTED, Support.NO_EFFECT) for o in KIND[method])


@pytest.mark.parametrize("method", KIND)
def test_a_tensor_of_another_shape_than_the_config_says_is_refused(method: str) -> None:
    good = tensors(method)["prompt_embeddings"][1]
    for shape in ((TOKENS + 1, good[1]), (TOKENS, good[1] + 4), (TOKENS,), (*good, 1)):
        assert codes(config(method), tensors(method, shape)) == ["AD386"]
    for field in ("num_virtual_tokens", "token_dim"):
        assert codes(config(method, **{field: None}), tensors(method)) == ["AD386"]


def test_virtual_tokens_with_a_wrong_width_are_refused() -> None:
    wide = {"prompt_embeddings": ("F32", (TOKENS, 2 * HIDDEN))}
    findings, _ = look(config(token_dim=2 * HIDDEN), wide)
    assert [f.code for f in findings] == ["AD387"]
    assert str(findings[0].expected) == str(HIDDEN)


def test_a_prefix_for_other_layers_or_heads_is_refused() -> None:
    said = config("PREFIX_TUNING")
    layers, width, heads = said["num_layers"], said["token_dim"], said["num_attention_heads"]
    deeper = config("PREFIX_TUNING", num_layers=layers + 1)
    shape = (TOKENS, (layers + 1) * 2 * width)
    assert codes(deeper, tensors("PREFIX_TUNING", shape)) == ["AD387"]
    more = config("PREFIX_TUNING", num_attention_heads=heads * 2)
    assert codes(more, tensors("PREFIX_TUNING")) == ["AD387"]
    wider = config("PREFIX_TUNING", token_dim=width * 2)
    shape = (TOKENS, layers * 4 * width)
    assert codes(wider, tensors("PREFIX_TUNING", shape)) == ["AD387"]
    odd = config("PREFIX_TUNING", num_attention_heads=width - 1)
    assert codes(odd, tensors("PREFIX_TUNING")) == ["AD386"]


def test_unsupported_tasks_are_refused_by_name() -> None:
    for task in ("MULTIPLE_CHOICE", None, "SOMETHING"):
        findings, _ = look(config(task_type=task), tensors())
        assert [f.code for f in findings] == ["AD385"]
        assert str(task) in findings[0].message
    assert codes(config(task_type="SEQ_2_SEQ_LM"), tensors()) == ["AD385"]  # the base has none
    assert codes(config(num_transformer_submodules=2), tensors(shape=(10, HIDDEN))) == ["AD385"]


def test_saved_modules_without_virtual_tokens_are_refused() -> None:
    from support.builders import VOCAB

    said = config(modules_to_save=["lm_head"])
    head = {"base_model.lm_head.weight": ("F32", (VOCAB, HIDDEN))}
    assert codes(said, head) == ["AD386"]
    assert codes(said, {**head, **tensors()}) == []
    assert codes(config(), {}) == ["AD330"]


def test_tensors_without_a_place_are_refused() -> None:
    more = {"base_model.model.layers.0.mlp.down_proj.weight": ("F32", (4, 4))}
    assert codes(config(), {**tensors(), **more}) == ["AD332"]


def test_layers_of_several_kinds_are_reported() -> None:
    llama = base_config("llama")
    for field, value in (
        ("layer_types", ["full_attention", "linear_attention"]),
        ("per_layer_config", {"0": {"head_dim": 8}}),
        ("kv_lora_rank", 64),
        ("num_kv_shared_layers", 2),
    ):
        assert isinstance(KeysAndValues.of({**llama, field: value}), str)
    plain = KeysAndValues.of({**llama, "layer_types": ["full_attention", "sliding_attention"]})
    assert plain == sizes()
    nested = KeysAndValues.of({"model_type": "a-vlm", "text_config": llama})
    assert nested == sizes()


def test_sizes_that_no_config_has_are_unchecked(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "base", "llama")
    said = json.loads((folder / "config.json").read_text())
    bare = {n: v for n, v in said.items() if "layers" not in n and "heads" not in n}
    found = KeysAndValues.of(bare)
    assert isinstance(found, KeysAndValues) and found.layers is None and found.heads is None


def test_a_plan_without_a_layout_has_the_same_places() -> None:
    plan = planned("PROMPT_TUNING", config(), adapter_facts(config(), tensors()).header.tensors)
    assert plan.prompt is not None and plan.leftovers == ()
