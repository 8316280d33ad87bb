"""What each engine and version serves of one adapter; and nearly the same that it serves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.lockfile import LoadedAs
from adapterdock.registry.checks.check_adapter import plan_on
from adapterdock.registry.files.facts import (
    AdapterFacts,
    AdapterPlan,
    Conversion,
    Header,
    Origin,
    SitePlan,
)
from adapterdock.serving.targets.adapters import check_adapter, check_base
from adapterdock.serving.targets.engine import Feature
from adapterdock.serving.targets.engines import ENGINES, LLAMA_CPP, MLX
from adapterdock.serving.targets.models import models_of
from adapterdock.serving.targets.target import Target
from support.asked_targets import NAME, asked, codes, facts_of, with_tensors
from support.bad_adapters import TINY, Files, plain
from support.builders import HIDDEN, VOCAB, Spec, base_facts, lora_tensors

ALL = sorted(ENGINES)
HEAD: dict[str, Spec] = {"base_model.model.score.weight": ("F32", (2, HIDDEN))}


def ranks(q: int, v: int = 4, **config: Any) -> Files:
    """LoRA with its own rank on q_proj."""
    tensors = {**lora_tensors(TINY.modules("q_proj"), q), **lora_tensors(TINY.modules("v_proj"), v)}
    return replace(plain(TINY, v, rank_pattern={"q_proj": q}, **config), tensors=tensors)


def output() -> Files:
    return plain(TINY, target_modules=["q_proj", "v_proj", "lm_head"])


def on_output() -> Files:
    at = "base_model.model.lm_head"
    factors: dict[str, Spec] = {
        f"{at}.lora_A.weight": ("F32", (4, HIDDEN)),
        f"{at}.lora_B.weight": ("F32", (VOCAB, 4)),
    }
    return with_tensors(output(), factors)


@pytest.mark.parametrize("engine", ALL)
def test_plain_lora_is_served_by_every_engine(engine: str) -> None:
    assert asked(engine) == []


@pytest.mark.parametrize("engine", ALL)
def test_what_only_acts_in_training_is_served_by_every_engine(engine: str) -> None:
    config: dict[str, Any] = {"init_lora_weights": "gaussian", "modules_to_save": []}
    assert asked(engine, lora_dropout=0.1, bias="none", **config) == []


@pytest.mark.parametrize("engine", ALL)
@pytest.mark.parametrize(
    "config",
    [
        {"use_dora": True},
        {"lora_bias": True},
        {"bias": "lora_only"},
        {"alora_invocation_tokens": [1]},
        {"trainable_token_indices": [1]},
        {"use_bdlora": {"nblocks": 2}},
        {"use_qalora": True},
        {"layer_replication": [[0, 1]]},
        {"init_lora_weights": "pissa_niter_4"},
        {"modules_to_save": ["lm_head"]},
        {"velora_config": {"num_groups": 4}},
    ],
    ids=lambda config: next(iter(config)),
)
def test_what_no_engine_serves_is_refused_for_every_engine(
    engine: str, config: dict[str, Any]
) -> None:
    assert codes(asked(engine, **config)) == ["AD945"]


@pytest.mark.parametrize("engine", ALL)
def test_another_method_is_refused_for_every_engine(engine: str) -> None:
    facts = AdapterFacts("one", None, {"peft_type": "LOHA"}, Header({}))
    found = check_adapter(Target.parse(engine), facts, AdapterPlan(()), Where())
    assert codes(found) == ["AD945"]
    assert found[0].found == "LOHA"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("vllm==0.32", None),
        ("vllm==0.31", "without an error"),
        ("vllm==0.29", "without an error"),
        ("ray-llm", "without an error"),
        ("nim", "without an error"),
        ("sglang", "without an error"),
        ("llama.cpp", None),
        ("mlx", None),
    ],
)
def test_ranks_by_module_are_read_by_vllm_since_0_32(target: str, says: str | None) -> None:
    found = asked(target, ranks(8))
    assert bool(found) == (says is not None)
    assert not found or (says or "") in found[0].message
    assert asked(target, ranks(4)) == []


@pytest.mark.parametrize("target", ["vllm==0.31", "sglang"])
def test_scales_by_module_are_refused_where_the_engine_has_one_scale(target: str) -> None:
    assert codes(asked(target, alpha_pattern={"q_proj": 2})) == ["AD945"]
    assert asked(target, alpha_pattern={"q_proj": 8}, lora_alpha=8) == []
    assert asked("vllm==0.32", alpha_pattern={"q_proj": 2}) == []


def test_sglang_divides_alpha_by_the_rank_even_for_rslora() -> None:
    assert codes(asked("sglang", use_rslora=True)) == ["AD945"]
    assert asked("vllm==0.29", use_rslora=True) == []


def test_sglang_needs_q_and_v_together() -> None:
    only_q = plain(TINY, 4, "q_proj")
    assert codes(asked("sglang", only_q)) == ["AD945"]
    assert codes(asked("sglang", plain(TINY, 4, "k_proj", "v_proj"))) == ["AD945"]
    assert asked("sglang", plain(TINY, 4, "o_proj")) == []
    assert asked("vllm==0.32", only_q) == []


def test_sglang_takes_no_pattern_as_targets() -> None:
    assert codes(asked("sglang", target_modules=r".*\.(q|v)_proj")) == ["AD945"]
    assert asked("sglang", target_modules="all-linear") == []
    assert asked("vllm", target_modules=r".*\.(q|v)_proj") == []


def test_the_rank_is_refused_over_the_limit_and_the_value_to_set_is_named() -> None:
    found = asked(Target.parse("vllm", max_rank=8), plain(TINY, 12))
    assert codes(found) == ["AD946"]
    assert "--max-lora-rank 16" in (found[0].hint or "")
    assert asked(Target.parse("vllm", max_rank=16), plain(TINY, 12)) == []


def test_a_rank_that_only_the_pattern_names_counts_as_it_does_in_vllm() -> None:
    assert codes(asked("vllm", rank_pattern={"k_proj": 32})) == ["AD946"]
    assert asked("vllm", rank_pattern={"k_proj": 16}) == []


def test_a_rank_beyond_every_choice_has_no_value_to_set() -> None:
    found = asked(Target.parse("vllm", max_rank=512), r=1024)
    assert "no larger value" in (found[0].hint or "")
    assert asked("sglang", plain(TINY, 1024)) == []


def test_lora_on_the_output_layer_is_served_where_vllm_lists_it() -> None:
    assert asked("vllm==0.32", on_output()) == []
    elsewhere = base_facts(architectures=["Qwen2ForCausalLM"])
    assert codes(asked("vllm==0.32", on_output(), base=elsewhere)) == ["AD945"]
    unlisted = base_facts(architectures=["NobodyKnowsForCausalLM"])
    assert codes(asked("vllm==0.32", on_output(), base=unlisted)) == ["AD948"]
    assert codes(asked("vllm==0.32", on_output(), alone=True)) == ["AD948"]
    assert codes(asked("nim", on_output())) == ["AD948"]
    assert asked("sglang", on_output()) == []


def test_an_output_layer_that_is_tied_cannot_be_written_for_llama_cpp() -> None:
    tied = base_facts(tie_word_embeddings=True)
    assert codes(asked("llama.cpp", on_output(), base=tied)) == ["AD945"]
    assert asked("llama.cpp", on_output()) == []


def test_adapters_of_tied_layers_are_refused() -> None:
    tied = base_facts(tie_word_embeddings=True)
    both = with_tensors(on_output(), {}, ensure_weight_tying=True)
    assert "AD945" in codes(asked("vllm==0.32", both, base=tied))
    assert asked("vllm==0.32", both) == []


def test_a_classification_head_is_served_by_vllm_since_0_31_on_such_a_base() -> None:
    head = with_tensors(plain(TINY), HEAD, modules_to_save=["classifier", "score"])
    base = base_facts(architectures=["LlamaForSequenceClassification"])
    assert asked("vllm==0.31", head, base=base) == []
    assert codes(asked("vllm==0.29", head, base=base)) == ["AD945"]
    assert codes(asked("vllm==0.32", head)) == ["AD945"]
    assert codes(asked("vllm==0.32", head, alone=True)) == ["AD948"]


def test_names_that_vllm_would_not_find_are_refused() -> None:
    backbone = {k.replace("model.model.model", "model.model"): v for k, v in _qv().items()}
    found = asked("vllm==0.32", replace(plain(TINY), tensors=backbone))
    assert codes(found) == ["AD945"]
    assert "without an error" in found[0].message


def test_names_of_tensors_that_vllm_cannot_parse_are_refused() -> None:
    named = {k.replace("lora_A.weight", "lora_A.default.weight"): v for k, v in _qv().items()}
    facts = facts_of(replace(plain(TINY), tensors=named))
    found = check_adapter(Target.parse("vllm"), facts, AdapterPlan(()), Where())
    assert codes(found) == ["AD945"]


def test_a_config_without_alpha_is_refused_where_there_is_no_default() -> None:
    assert codes(asked("vllm", lora_alpha=...)) == ["AD945"]
    assert codes(asked("sglang", lora_alpha=...)) == ["AD945"]
    assert asked("mlx", lora_alpha=...) == []


def test_factors_of_experts_and_of_parameters_are_unchecked_for_vllm() -> None:
    plan = plan_on(facts_of(plain(TINY)), base_facts().layout)
    assert plan is not None
    site = plan.sites[0]

    def at(one: SitePlan) -> list[str]:
        facts = facts_of(plain(TINY))
        return codes(check_adapter(Target.parse("vllm"), facts, AdapterPlan((one,)), Where()))

    assert at(site._replace(module="model.layers.0.mlp.experts.0.w1")) == ["AD948"]
    assert at(site._replace(method="LORA_PARAMETER")) == ["AD948"]
    assert at(site) == []


def test_shards_and_files_of_other_programs_are_refused() -> None:
    facts = facts_of(plain(TINY))
    plan = AdapterPlan(())
    vllm = Target.parse("vllm")
    shards = replace(facts, headers={"adapter_model-00001-of-00002.safetensors": facts.header})
    assert codes(check_adapter(vllm, shards, plan, Where())) == ["AD945"]
    mlx = replace(facts, origin=Origin("mlx-lm"))
    assert codes(check_adapter(vllm, mlx, plan, Where())) == ["AD945"]
    assert set(facts.headers) == {NAME}
    assert check_adapter(vllm, facts, plan, Where()) == []


def test_factors_at_what_is_not_linear_are_refused() -> None:
    at = "base_model.model.model.norm"
    factors: dict[str, Spec] = {
        f"{at}.lora_A.weight": ("F32", (4, HIDDEN)),
        f"{at}.lora_B.weight": ("F32", (HIDDEN, 4)),
    }
    norm = with_tensors(plain(TINY), factors, target_modules=["q_proj", "v_proj", "norm"])
    assert codes(asked("vllm==0.32", norm)) == ["AD945"]


def test_names_of_an_older_transformers_are_unchecked() -> None:
    facts = facts_of(plain(TINY))
    today = AdapterPlan((), conversion=Conversion(facts.config, facts.header, {}))
    assert codes(check_adapter(Target.parse("vllm"), facts, today, Where())) == ["AD948"]


def test_a_new_adapter_has_nothing_to_serve() -> None:
    new = AdapterFacts("one", None, plain(TINY).config, Header({}))
    found = check_adapter(Target.parse("vllm"), new, AdapterPlan(()), Where())
    assert codes(found) == ["AD945"]


def test_an_architecture_is_served_refused_or_unchecked_as_vllm_lists_it() -> None:
    vllm = Target.parse("vllm==0.32")

    def on(architecture: str) -> list[str]:
        base = base_facts(architectures=[architecture])
        return codes(check_base(vllm, base, Where()))

    assert on("LlamaForCausalLM") == []
    assert on("GPT2LMHeadModel") == ["AD945"]
    assert on("NobodyKnowsForCausalLM") == ["AD948"]
    assert check_base(vllm, None, Where()) == []


def test_the_formats_are_limited_to_architectures_that_are_proved() -> None:
    for engine in (LLAMA_CPP, MLX):
        target = Target.parse(engine.name)
        assert codes(check_base(target, base_facts("gpt2"), Where())) == ["AD945"]
        assert check_base(target, base_facts(), Where()) == []


@pytest.mark.parametrize(
    ("loaded", "wanted"),
    [
        (LoadedAs(vocab_size=80), ["AD945"]),
        (LoadedAs(architecture="LlamaForSequenceClassification"), ["AD948"]),
        (LoadedAs(new=("score",)), ["AD948"]),
        (LoadedAs(architecture="LlamaForCausalLM"), []),
    ],
)
def test_a_base_that_is_loaded_in_another_way_is_not_what_the_engine_loads(
    loaded: LoadedAs, wanted: list[str]
) -> None:
    base = replace(base_facts(), loaded_as=loaded)
    assert codes(check_base(Target.parse("vllm"), base, Where())) == wanted


def test_a_quantised_checkpoint_is_unchecked() -> None:
    base = base_facts(quantization_config={"quant_method": "awq"})
    found = check_base(Target.parse("vllm"), base, Where())
    assert codes(found) == ["AD948"]
    assert found[0].found == "quant_method: awq"


def test_the_towers_of_a_multimodal_base_are_not_served() -> None:
    layout = base_facts().layout
    assert layout is not None
    modules = {
        **{f"language_model.{name}": shape for name, shape in layout.modules.items()},
        **{f"visual.{name}": shape for name, shape in layout.modules.items()},
    }
    config = {**base_facts().config, "vision_config": {}}
    base = replace(base_facts(), config=config, layout=replace(layout, modules=modules))

    def at(prefix: str) -> Files:
        return replace(
            plain(TINY),
            tensors={
                k.replace("base_model.model.", f"base_model.model.{prefix}."): v
                for k, v in _qv().items()
            },
        )

    assert codes(asked("vllm==0.32", at("visual"), base=base)) == ["AD945"]
    assert asked("vllm==0.32", at("language_model"), base=base) == []


def test_the_table_answers_for_every_feature_or_serves_it() -> None:
    """No row names a feature that does not exist, and no feature is one that no row refuses."""
    rows = [row for engine in ENGINES.values() for row in engine.rows]
    assert {feature for row in rows for feature in row.unserved} == set(Feature)
    assert all(models_of(row.models) is not None for row in rows if row.models)


def _qv() -> dict[str, Spec]:
    return dict(plain(TINY).tensors)
