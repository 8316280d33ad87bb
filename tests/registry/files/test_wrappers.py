"""Adapters that were saved from a wrapped model: read where that is sure, else refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from adapterdock.manifests.findings import fit as codes
from adapterdock.registry.checks.check_adapter import check_adapter
from adapterdock.registry.files.facts import Header, TensorInfo
from adapterdock.registry.files.reading import Reading
from adapterdock.registry.files.wrappers import unwrapped
from support.builders import LLAMA_QV, adapter_facts, base_facts, lora_config, lora_tensors

AT = "base_model.model."


def reading(*names: str, **fields: Any) -> Reading:
    tensors = {name: TensorInfo("F32", (1,), n, n + 4) for n, name in enumerate(names)}
    return Reading(lora_config(**fields), Header(tensors))


@pytest.mark.parametrize(
    ("written", "read", "part"),
    [
        (f"{AT}_orig_mod.model.q.lora_A.weight", f"{AT}model.q.lora_A.weight", "_orig_mod"),
        (f"_orig_mod.{AT}model.q.lora_A.weight", f"{AT}model.q.lora_A.weight", "_orig_mod"),
        (f"{AT}m.layers.0._orig_mod.q.lora_A.weight", f"{AT}m.layers.0.q.lora_A.weight", "_orig"),
        (
            f"{AT}m.layers.0._fsdp_wrapped_module._checkpoint_wrapped_module.q.lora_A.weight",
            f"{AT}m.layers.0.q.lora_A.weight",
            "_fsdp_wrapped_module",
        ),
        (f"module.{AT}q.lora_A.weight", f"{AT}q.lora_A.weight", "module"),
        (f"pretrained_model.{AT}q.lora_A.weight", f"{AT}q.lora_A.weight", "pretrained_model"),
        (f"module._orig_mod.{AT}q.lora_A.weight", f"{AT}q.lora_A.weight", "module"),
    ],
)
def test_a_wrapper_s_part_of_a_name_is_left_out(written: str, read: str, part: str) -> None:
    found = unwrapped(reading(written))
    assert list(found.header.tensors) == [read]
    assert found.origin is not None and found.origin.wrappers[0].startswith(part)


@pytest.mark.parametrize(
    "names",
    [
        (f"{AT}module.q.lora_A.weight",),  # a part of the model's own
        (f"module.{AT}q.lora_A.weight", "v_head.summary.weight"),
        (f"{AT}my_orig_mod.q.lora_A.weight",),
        (f"{AT}_orig_mod.q.lora_A.weight", f"{AT}q.lora_A.weight"),  # two would become one
    ],
)
def test_names_that_may_be_the_models_own_are_kept(names: tuple[str, ...]) -> None:
    found = unwrapped(reading(*names))
    assert tuple(found.header.tensors) == names and found.origin is None


def test_fields_that_name_modules_lose_the_wrapper_too() -> None:
    found = unwrapped(
        reading(
            f"{AT}_orig_mod.q.lora_A.weight",
            target_modules=["_orig_mod.layers.0.q_proj", "v_proj"],
            rank_pattern={r"_orig_mod\.layers\.0\.q_proj": 8, r".*\._orig_mod.k": 2},
            modules_to_save=["_orig_mod.lm_head"],
        )
    ).config
    assert found["target_modules"] == ["layers.0.q_proj", "v_proj"]
    assert found["rank_pattern"] == {r"layers\.0\.q_proj": 8, r".*\.k": 2}
    assert found["modules_to_save"] == ["lm_head"]


def test_a_pattern_of_targets_loses_the_wrapper_too() -> None:
    found = unwrapped(
        reading(f"{AT}_orig_mod.q.lora_A.weight", target_modules=r".*\._orig_mod\.layers\.\d\.q")
    )
    assert found.config["target_modules"] == r".*\.layers\.\d\.q"


def prefixed(prefix: str) -> Mapping[str, Any]:
    return lora_tensors({f"{prefix}.{name}": sizes for name, sizes in LLAMA_QV.items()})


@pytest.mark.parametrize("prefix", ["module", "pretrained_model"])
def test_a_wrapper_inside_peft_s_prefix_is_refused_with_a_hint_to_rename_it(
    prefix: str,
) -> None:
    facts = adapter_facts(lora_config(base_model_name_or_path=None), prefixed(prefix))
    found, _ = check_adapter(facts, base_facts())
    (finding,) = [f for f in found if f.code == codes.MODULE_MISSING.id]
    assert f"k.replace('{prefix}.', '', 1)" in str(finding.hint)
