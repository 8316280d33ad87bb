"""Fit: each sabotage has its finding, and each has a legitimate twin that passes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.bounds import CONFIG_BYTES
from adapterdock.manifests.findings.catalogue import all_codes
from adapterdock.manifests.findings.errors import SourceError
from adapterdock.manifests.findings.finding import Finding, Severity, Where
from adapterdock.registry.checks.candidate import Ask
from adapterdock.registry.checks.check_adapter import check_adapter
from adapterdock.registry.checks.options import PEFT_METHODS
from adapterdock.registry.files.facts import (
    BaseFacts,
    Layout,
    ModuleKind,
    ModuleShape,
    TokenizerFacts,
)
from adapterdock.registry.methods import patterns
from adapterdock.registry.methods.config_file import parse_adapter_config
from adapterdock.registry.methods.lora_config import OPTIONS
from adapterdock.registry.methods.options import Support
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.builders import (
    HIDDEN,
    INNER,
    KV,
    LLAMA_QV,
    VOCAB,
    Spec,
    adapter_facts,
    base_facts,
    base_layout,
    lora_config,
    lora_tensors,
)

QUIET = {"AD363"}  # "does not record its base": the small adapters here do not

AT = "base_model.model."
ATTN = "model.layers.{}.self_attn.{}"


def check(
    config: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Spec] | None = None,
    base: BaseFacts | str | None = "llama",
    layout: Layout | None = None,
    tokenizer: TokenizerFacts | None = None,
    **more: Any,
) -> list[Finding]:
    facts = base_facts(base) if isinstance(base, str) else base
    adapter, ask = adapter_facts(config, tensors, **more), Ask(tokenizer=lambda: tokenizer)
    findings, _ = check_adapter(adapter, facts, layout=layout, ask=ask)
    return [f for f in findings if f.code not in QUIET]


def codes(findings: list[Finding]) -> list[str]:
    return sorted({f.code for f in findings})


def qv(**changes: Spec | None) -> dict[str, Spec]:
    """The default tensors with changes by name (without PEFT's prefix); ``None`` removes."""
    tensors: dict[str, Spec | None] = dict(lora_tensors(LLAMA_QV))
    tensors.update({AT + name: spec for name, spec in changes.items()})
    return {name: spec for name, spec in tensors.items() if spec is not None}


def q0(suffix: str) -> str:
    return f"{ATTN.format(0, 'q_proj')}.{suffix}"


def lora(*modules: tuple[str, int, int], r: int = 4) -> dict[str, Spec]:
    return lora_tensors({name: (inside, outside) for name, inside, outside in modules}, r)


HEAD = lora(("lm_head", HIDDEN, VOCAB))
EMBED: dict[str, Spec] = {
    AT + "model.embed_tokens.lora_embedding_A": ("F32", (4, VOCAB)),
    AT + "model.embed_tokens.lora_embedding_B": ("F32", (HIDDEN, 4)),
}
CONV1D = lora(
    *((f"transformer.h.{n}.attn.c_attn", HIDDEN, 3 * HIDDEN) for n in (0, 1)),
    *((f"transformer.h.{n}.mlp.c_fc", HIDDEN, 4 * HIDDEN) for n in (0, 1)),
)
BERT_QUERY = lora(
    *((f"bert.encoder.layer.{n}.attention.self.query", HIDDEN, HIDDEN) for n in (0, 1))
)
BERT_BIASES: dict[str, Spec] = {
    f"{AT}bert.encoder.layer.{n}.attention.self.query.base_layer.bias": ("F32", (HIDDEN,))
    for n in (0, 1)
}
CLASSIFIER: dict[str, Spec] = {
    AT + "classifier.weight": ("F32", (2, HIDDEN)),
    AT + "classifier.bias": ("F32", (2,)),
}


TOKENS = "token_adapter.trainable_tokens_delta"
ROWS: dict[str, Spec] = {f"model.embed_tokens.{TOKENS}": ("F32", (2, HIDDEN))}


def magnitudes(tensors: dict[str, Spec], short: bool = False) -> dict[str, Spec]:
    """DoRA's magnitude for each lora_B."""
    return {
        name.replace("lora_B.weight", "lora_magnitude_vector"): ("F32", (shape[0] - short,))
        for name, (_, shape) in tensors.items()
        if name.endswith("lora_B.weight")
    }


GPT2 = lora_config(target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
LM_HEAD = lora_config(target_modules=["lm_head"])

FITS: dict[str, dict[str, Any]] = {
    "the plain adapter": {},
    "bfloat16 factors": {"tensors": lora_tensors(LLAMA_QV, dtype="BF16")},
    "a Conv1D": {"config": GPT2, "tensors": CONV1D, "base": "gpt2"},
    "the head": {"config": LM_HEAD, "tensors": HEAD},
    "an embedding": {"config": lora_config(target_modules=["embed_tokens"]), "tensors": EMBED},
    "DoRA": {"config": lora_config(use_dora=True), "tensors": qv() | magnitudes(qv())},
    "DoRA on an embedding": {
        "config": lora_config(target_modules=["embed_tokens"], use_dora=True),
        "tensors": EMBED | {AT + "model.embed_tokens.lora_magnitude_vector": ("F32", (HIDDEN,))},
    },
    "single tokens": {
        "config": lora_config(trainable_token_indices=[3, 5]),
        "tensors": qv(**ROWS),
    },
    "single tokens, by name": {
        "config": lora_config(trainable_token_indices={"embed_tokens": [3, 5]}),
        "tensors": qv(**ROWS),
    },
    "single tokens and nothing else": {
        "config": {
            "peft_type": "TRAINABLE_TOKENS",
            "token_indices": [3, 5],
            "target_modules": "model.embed_tokens",
            "base_model_name_or_path": lora_config()["base_model_name_or_path"],
        },
        "tensors": {AT + "model.embed_tokens.trainable_tokens_delta": ("F32", (2, HIDDEN))},
    },
    "a parameter by its name": {
        "config": lora_config(target_parameters=["mlp.down_proj.weight"], target_modules=[]),
        "tensors": lora(*((f"model.layers.{n}.mlp.down_proj", INNER, HIDDEN) for n in (0, 1))),
    },
    "biases of lora_B": {
        "config": lora_config(lora_bias=True),
        "tensors": qv(**{f"{n}.lora_B.bias": ("F32", (s[1],)) for n, s in LLAMA_QV.items()}),
    },
    "a rank by pattern": {
        "config": lora_config(rank_pattern={"v_proj": 2}),
        "tensors": {**lora_tensors({n: s for n, s in LLAMA_QV.items() if "q_" in n})}
        | lora_tensors({n: s for n, s in LLAMA_QV.items() if "v_" in n}, r=2),
    },
    "one layer of two": {
        "config": lora_config(layers_to_transform=[1]),
        "tensors": lora_tensors({n: s for n, s in LLAMA_QV.items() if ".1." in n}),
    },
    "biases of the adapted modules": {
        "config": lora_config(target_modules=["query"], bias="lora_only"),
        "tensors": BERT_QUERY | BERT_BIASES,
        "base": "bert",
    },
    "no biases where the base has none": {"config": lora_config(bias="all")},
    "a saved head": {
        "config": lora_config(target_modules=["query"], modules_to_save=["classifier", "score"]),
        "tensors": BERT_QUERY | CLASSIFIER,
        "base": "bert",
    },
    "a stored embedding": {"tensors": qv(**{"lm_head.weight": ("F32", (VOCAB, HIDDEN))})},
    "a tokenizer as large as the base": {"tokenizer": TokenizerFacts(VOCAB, {"<a>": 3})},
    "an older config": {
        "config": {
            "peft_type": "LORA",
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["q_proj", "v_proj"],
            "merge_weights": False,
            "enable_lora": None,
            "bias": "none",
        }
    },
    "a float alpha": {"config": lora_config(lora_alpha=0.5)},
    "a slow init of no effect": {
        "config": lora_config(init_lora_weights="eva", eva_config={"a": 1})
    },
    "a converted PiSSA": {"config": lora_config(init_lora_weights=True)},
    "the same class in auto_mapping": {
        "config": lora_config(
            auto_mapping={
                "base_model_class": "LlamaModel",
                "parent_library": "transformers.models.llama.modeling_llama",
            }
        )
    },
    "a development version of PEFT": {"config": lora_config(peft_version="0.21.3.dev0@ab12cd3")},
}


@pytest.mark.parametrize("name", FITS)
def test_a_fitting_adapter_has_no_findings(name: str) -> None:
    assert check(**FITS[name]) == []


MISFITS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "no base": (["AD340"], {"base": None}),
    "an unknown architecture": (
        ["AD341"],
        {"base": dataclasses.replace(base_facts(), layout=None)},
    ),
    "another method": (["AD312"], {"config": lora_config(peft_type="XLORA")}),
    "no method at all": (["AD311"], {"config": lora_config(peft_type=...)}),
    "a method nobody knows": (["AD312"], {"config": lora_config(peft_type="lora")}),
    "a rank that is text": (["AD313"], {"config": lora_config(r="4")}),
    "a rank of zero": (["AD313"], {"config": lora_config(r=0)}),
    "a rank that is true": (["AD313"], {"config": lora_config(r=True)}),
    "an alpha beyond numbers": (["AD313"], {"config": lora_config(lora_alpha=10**400)}),
    "a bias kind nobody knows": (["AD313"], {"config": lora_config(bias="some")}),
    "a target list of numbers": (["AD313"], {"config": lora_config(target_modules=[1])}),
    "targets without end": (["AD313"], {"config": lora_config(target_modules=["q"] * 10_001)}),
    "QA-LoRA": (["AD314"], {"config": lora_config(use_qalora=True)}),
    "DoRA without magnitudes": (["AD331"], {"config": lora_config(use_dora=True)}),
    "a magnitude of another size": (
        ["AD343"],
        {
            "config": GPT2 | {"use_dora": True},
            "tensors": CONV1D | magnitudes(CONV1D, short=True),
            "base": "gpt2",
        },
    ),
    "lora_bias without biases": (["AD331"], {"config": lora_config(lora_bias=True)}),
    "a bias of lora_B of another size": (
        ["AD331", "AD343"],
        {
            "config": lora_config(lora_bias=True),
            "tensors": qv(**{q0("lora_B.bias"): ("F32", (HIDDEN + 1,))}),
        },
    ),
    "DoRA with biases": (
        ["AD317", "AD331"],
        {"config": lora_config(use_dora=True, lora_bias=True)},
    ),
    "layer replication": (["AD314"], {"config": lora_config(layer_replication=[[0, 2], [1, 2]])}),
    "an unknown init": (["AD314"], {"config": lora_config(init_lora_weights="magic")}),
    "a field of another method": (["AD315"], {"config": lora_config(init_r=8)}),
    "an unknown field": (["AD359"], {"config": lora_config(new_scaling=0.5)}),
    "a field of a trainer": (["AD367"], {"config": lora_config(lorap_emb_lr=1e-6)}),
    "an unknown field, unset": (["AD316"], {"config": lora_config(new_config=None, other={})}),
    "layers beside a pattern": (
        ["AD317"],
        {"config": lora_config(target_modules=".*(q|v)_proj", layers_to_transform=[0, 1])},
    ),
    "layer names without layers": (["AD317"], {"config": lora_config(layers_pattern="layers")}),
    "PiSSA": (["AD318"], {"config": lora_config(init_lora_weights="pissa")}),
    "fast PiSSA": (["AD318"], {"config": lora_config(init_lora_weights="pissa_niter_16")}),
    "OLoRA": (["AD318"], {"config": lora_config(init_lora_weights="OLoRA")}),
    "a pattern that is none": (["AD319"], {"config": lora_config(target_modules="(q_proj")}),
    "a pattern too slow to compile": (
        ["AD320"],
        {"config": lora_config(exclude_modules="((a{1000}){1000}){1000}")},
    ),
    "a newer PEFT": (["AD321"], {"config": lora_config(peft_version="0.22.0")}),
    "a PEFT of no version": (["AD322"], {"config": lora_config(peft_version="latest")}),
    "alphas whose order is lost": (
        ["AD323"],
        {"config": lora_config(alpha_pattern={".*_proj": 24, "v_proj": 5})},
    ),
    "nothing inside": (["AD330"], {"tensors": {}}),
    "a scale of zero": (["AD330"], {"config": lora_config(lora_alpha=0)}),
    "A without B": (["AD331"], {"tensors": qv(**{q0("lora_B.weight"): None})}),
    "B without A": (["AD331"], {"tensors": qv(**{q0("lora_A.weight"): None})}),
    "keys of kohya": (
        ["AD330", "AD332"],
        {"tensors": {"lora_unet_down_0.lora_down.weight": ("F32", (4, 16))}},
    ),
    "a stray tensor": (["AD332"], {"tensors": qv(**{"model.norm.weight": ("F32", (HIDDEN,))})}),
    "a bias that is not declared": (
        ["AD332"],
        {
            "config": lora_config(target_modules=["query"]),
            "tensors": BERT_QUERY | BERT_BIASES,
            "base": "bert",
        },
    ),
    "a magnitude without DoRA": (
        ["AD332"],
        {"tensors": qv(**{q0("lora_magnitude_vector"): ("F32", (HIDDEN,))})},
    ),
    "a bias of lora_B without lora_bias": (
        ["AD332"],
        {"tensors": qv(**{q0("lora_B.bias"): ("F32", (HIDDEN,))})},
    ),
    "tokens outside the vocabulary": (
        ["AD375"],
        {"config": lora_config(trainable_token_indices=[3, VOCAB]), "tensors": qv(**ROWS)},
    ),
    "tokens below 0": (
        ["AD375"],
        {"config": lora_config(trainable_token_indices=[3, -1]), "tensors": qv(**ROWS)},
    ),
    "tokens named twice": (
        ["AD317"],
        {"config": lora_config(trainable_token_indices=[3, 3]), "tensors": qv(**ROWS)},
    ),
    "more tokens than rows": (
        ["AD343"],
        {"config": lora_config(trainable_token_indices=[3, 4, 5]), "tensors": qv(**ROWS)},
    ),
    "tokens without rows": (["AD333"], {"config": lora_config(trainable_token_indices=[3])}),
    "rows without tokens": (["AD332"], {"tensors": qv(**ROWS)}),
    "tokens that are no numbers": (
        ["AD313"],
        {"config": lora_config(trainable_token_indices={"embed_tokens": "all"})},
    ),
    "rows of a module that is no embedding": (
        ["AD344"],
        {
            "config": lora_config(trainable_token_indices={"norm": [3]}),
            "tensors": qv(**{f"model.norm.{TOKENS}": ("F32", (1, HIDDEN))}),
        },
    ),
    "a parameter that is not there": (
        ["AD376"],
        {"config": lora_config(target_parameters=["experts.down_proj"])},
    ),
    "a parameter without factors": (
        ["AD333"],
        {"config": lora_config(target_parameters=["mlp.down_proj.weight"])},
    ),
    "targets without tensors": (
        ["AD333"],
        {"config": lora_config(target_modules=["q_proj", "v_proj", "k_proj"])},
    ),
    "half of the layers": (
        ["AD333"],
        {"tensors": lora_tensors({n: s for n, s in LLAMA_QV.items() if ".0." in n})},
    ),
    "tensors without a target": (["AD334"], {"config": lora_config(target_modules=["q_proj"])}),
    "tensors in an excluded module": (
        ["AD334"],
        {"config": lora_config(exclude_modules=["0.self_attn.v_proj"])},
    ),
    "tensors beyond the picked layers": (
        ["AD334"],
        {"config": lora_config(layers_to_transform=[0])},
    ),
    "targets left open": (["AD335"], {"config": lora_config(target_modules=None)}),
    "another rank": (["AD336"], {"config": lora_config(r=8)}),
    "another rank by pattern": (["AD336"], {"config": lora_config(rank_pattern={"v_proj": 2})}),
    "factors in 8 bits": (["AD337"], {"tensors": lora_tensors(LLAMA_QV, dtype="F8_E4M3")}),
    "factors of whole numbers": (["AD337"], {"tensors": lora_tensors(LLAMA_QV, dtype="I8")}),
    "fan_in_fan_out on a Linear": (["AD338"], {"config": lora_config(fan_in_fan_out=True)}),
    "no fan_in_fan_out on a Conv1D": (
        ["AD338"],
        {"config": {**GPT2, "fan_in_fan_out": False}, "tensors": CONV1D, "base": "gpt2"},
    ),
    "an empty shard": (["AD339"], {"tensors": qv(**{q0("lora_A.weight"): ("F32", (0,))})}),
    "a deeper model": (
        ["AD342"],
        {"tensors": lora_tensors({**LLAMA_QV, ATTN.format(7, "q_proj"): (HIDDEN, HIDDEN)})},
    ),
    "another in size": (["AD343"], {"tensors": qv(**{q0("lora_A.weight"): ("F32", (4, 20))})}),
    "another out size": (["AD343"], {"tensors": qv(**{q0("lora_B.weight"): ("F32", (20, 4))})}),
    "a Conv1D the wrong way round": (
        ["AD343"],
        {
            "config": GPT2,
            "tensors": lora(
                *((f"transformer.h.{n}.attn.c_attn", 3 * HIDDEN, HIDDEN) for n in (0, 1)),
                *((f"transformer.h.{n}.mlp.c_fc", HIDDEN, 4 * HIDDEN) for n in (0, 1)),
            ),
            "base": "gpt2",
        },
    ),
    "an embedding of another vocabulary": (
        ["AD343"],
        {
            "config": lora_config(target_modules=["embed_tokens"]),
            "tensors": EMBED | {AT + "model.embed_tokens.lora_embedding_A": ("F32", (4, 70))},
        },
    ),
    "linear factors on an embedding": (
        ["AD344"],
        {
            "config": lora_config(target_modules=["embed_tokens"]),
            "tensors": lora(("model.embed_tokens", HIDDEN, VOCAB)),
        },
    ),
    "embedding factors on a linear": (
        ["AD344"],
        {
            "config": LM_HEAD,
            "tensors": {
                AT + "lm_head.lora_embedding_A": ("F32", (4, HIDDEN)),
                AT + "lm_head.lora_embedding_B": ("F32", (VOCAB, 4)),
            },
        },
    ),
    "a norm": (
        ["AD344"],
        {
            "config": lora_config(target_modules=["norm"]),
            "tensors": lora(("model.norm", HIDDEN, HIDDEN)),
        },
    ),
    "a module that Mamba never calls": (
        ["AD356"],
        {
            "config": lora_config(target_modules=["out_proj"]),
            "tensors": lora(("out_proj", HIDDEN, HIDDEN)),
            "base": BaseFacts(
                None,
                {"model_type": "mamba", "architectures": ["MambaForCausalLM"]},
                {},
                Layout(
                    {"out_proj": ModuleShape(ModuleKind.LINEAR, HIDDEN, HIDDEN)},
                    model_type="mamba",
                ),
            ),
        },
    ),
    "sizes that nobody knows": (
        ["AD345"],
        {
            "config": LM_HEAD,
            "tensors": HEAD,
            "layout": Layout({"lm_head": ModuleShape(ModuleKind.LINEAR)}),
        },
    ),
    "the head of a tied base": (
        ["AD346"],
        {"config": LM_HEAD, "tensors": HEAD, "base": base_facts(tie_word_embeddings=True)},
    ),
    "a larger tokenizer": (["AD347"], {"tokenizer": TokenizerFacts(VOCAB + 1, {"<a>": VOCAB})}),
    "a resized embedding": (
        ["AD347"],
        {"tensors": qv(**{"lm_head.weight": ("F32", (VOCAB + 2, HIDDEN))})},
    ),
    "tokens that the base does not know": (
        ["AD348"],
        {
            "tokenizer": TokenizerFacts(VOCAB, {"<tool>": VOCAB - 1}),
            "base": dataclasses.replace(base_facts(), tokenizer=TokenizerFacts(VOCAB - 1)),
        },
    ),
    "a saved head with more labels": (
        ["AD349"],
        {
            "config": lora_config(target_modules=["query"], modules_to_save=["classifier"]),
            "tensors": BERT_QUERY | CLASSIFIER | {AT + "classifier.weight": ("F32", (5, HIDDEN))},
            "base": "bert",
        },
    ),
    "half of a saved head": (
        ["AD349"],
        {
            "config": lora_config(target_modules=["query"], modules_to_save=["classifier"]),
            "tensors": BERT_QUERY | {AT + "classifier.weight": ("F32", (2, HIDDEN))},
            "base": "bert",
        },
    ),
    "a saved head left out": (
        ["AD349"],
        {
            "config": lora_config(target_modules=["query"], modules_to_save=["classifier"]),
            "tensors": BERT_QUERY,
            "base": "bert",
        },
    ),
    "a saved module nobody has": (
        ["AD350"],
        {"config": lora_config(modules_to_save=["embed_tokns"])},
    ),
    "biases left out": (
        ["AD351"],
        {
            "config": lora_config(target_modules=["query"], bias="lora_only"),
            "tensors": BERT_QUERY,
            "base": "bert",
        },
    ),
    "a bias of another size": (
        ["AD351"],
        {
            "config": lora_config(target_modules=["query"], bias="lora_only"),
            "tensors": BERT_QUERY
            | BERT_BIASES
            | {
                AT + "bert.encoder.layer.0.attention.self.query.base_layer.bias": ("F32", (3,)),
            },
            "base": "bert",
        },
    ),
    "a quantised base": (
        ["AD352"],
        {"base": base_facts(quantization_config={"quant_method": "gptq"})},
    ),
    "DoRA on a quantised base": (
        ["AD352", "AD377"],
        {
            "base": base_facts(quantization_config={"quant_method": "gptq"}),
            "config": lora_config(use_dora=True),
            "tensors": qv() | magnitudes(qv()),
        },
    ),
    "another family": (
        ["AD353"],
        {
            "config": lora_config(
                auto_mapping={
                    "base_model_class": "MistralForCausalLM",
                    "parent_library": "transformers.models.mistral.modeling_mistral",
                }
            )
        },
    ),
    "an alpha for a misspelt module": (["AD355"], {"config": lora_config(alpha_pattern={"q": 5})}),
    "a rank for a module that is not adapted": (
        ["AD355"],
        {"config": lora_config(rank_pattern={r".*\.k_proj": 2})},
    ),
    "a layer that the base does not have": (
        ["AD355"],
        {"config": lora_config(layers_to_transform=[0, 1, 7])},
    ),
    "an OFT of an older formula": (
        ["AD370"],
        {
            "config": {"peft_type": "OFT", "target_modules": ["lm_head"], "oft_block_size": 4},
            "tensors": {f"{AT}lm_head.oft_R.weight": ("F32", (HIDDEN // 4, 6))},
        },
    ),
    "an IA3 that does not say where it rescales": (
        ["AD371"],
        {
            "config": {"peft_type": "IA3", "target_modules": ["lm_head"]},
            "tensors": {f"{AT}lm_head.ia3_l": ("F32", (VOCAB, 1))},
        },
    ),
    "a stored embedding of another width": (
        ["AD354"],
        {"tensors": qv(**{"lm_head.weight": ("F32", (VOCAB, 20))})},
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_misfit_is_found_under_its_code_and_no_other(name: str) -> None:
    wanted, given_ = MISFITS[name]
    findings = check(**given_)
    assert codes(findings) == wanted, "\n".join(map(str, findings))


def test_every_code_of_fit_is_earned_by_some_test() -> None:
    earned = {code for wanted, _ in MISFITS.values() for code in wanted}
    header = {"AD301", "AD302", "AD303", "AD310"}
    recorded = {*(f"AD36{n}" for n in range(7)), "AD380", "AD381", "AD382"}
    known = {code for code in all_codes() if code.startswith("AD3")}
    virtual_tokens = {"AD385", "AD386", "AD387"}  # in test_prompt_plan.py
    through_peft = {"AD390", "AD391", "AD392"}  # in test_through_peft.py
    live = {"AD368"}  # in tests/loader/methods/test_lora_variants.py
    foreign = {"AD369", "AD372", "AD373", "AD374", "AD378"}  # in files/test_foreign.py, test_mlx.py
    older = {"AD304", "AD305", "AD306"}  # in tests/loader/build/test_older_names.py
    loading = {"AD307", "AD308", "AD309", "AD324", "AD325"}  # in test_loaded_as.py
    loader = {"AD383", "AD384", "AD388", "AD394"}  # in tests/loader/
    sources = {"AD379", "AD389", "AD393", "AD397"}  # in tests/manifests/ and sources/
    uncalled = {
        "AD357",
        "AD358",
    }  # in tests/loader/base/test_uncalled.py, test_experts_layout.py
    saves = {"AD398", "AD399"}  # in tests/registry/files/test_together.py, test_upkeep.py
    loader |= uncalled | saves
    elsewhere = through_peft | foreign | live | older | loading | loader | sources
    assert known - header - recorded - virtual_tokens - elsewhere == earned


def test_all_errors_come_at_once() -> None:
    findings = check(
        lora_config(use_qalora=True, init_lora_weights="pissa", r=8, surprise=1),
        qv(**{q0("lora_B.weight"): None, q0("lora_A.weight"): ("F32", (4, 20))}),
    )
    assert codes(findings) == ["AD314", "AD318", "AD331", "AD336", "AD343", "AD359"]


def test_many_similar_problems_are_one_finding() -> None:
    tensors = {n: (d, (s[0], 999) if "lora_A" in n else s) for n, (d, s) in qv().items()}
    (finding,) = check(tensors=tensors)
    assert "4 modules" in finding.message and "1 more" in finding.message
    assert finding.found == "(4, 999)" and "(4, 16)" in str(finding.expected)


def test_a_finding_has_the_place_that_the_caller_passes() -> None:
    where = Where("a.yaml", ("adapters", "tone", "source"), 4, 5)
    findings, _ = check_adapter(adapter_facts(lora_config(r=8)), base_facts(), where=where)
    assert {f.where for f in findings} == {where}


def test_an_adapter_is_checked_without_a_base() -> None:
    findings = check(lora_config(r=8, use_dora=True), base=None)
    assert codes(findings) == ["AD331", "AD336", "AD340"]


def test_a_live_layout_is_enough() -> None:
    assert check(base=None, layout=base_layout()) == []
    tensors = {n: (d, (s[0], 99) if "lora_A" in n else s) for n, (d, s) in qv().items()}
    assert codes(check(tensors=tensors, base=None, layout=base_layout())) == ["AD343"]


def test_another_wrapping_of_the_model_is_named() -> None:
    tensors = lora_tensors({f"language_model.{n}": s for n, s in LLAMA_QV.items()})
    (finding,) = check(tensors=tensors)
    assert finding.code == "AD342"
    assert "model.layers.0.self_attn.q_proj" in str(finding.hint)


def test_a_deeper_model_is_named() -> None:
    (finding,) = check(**MISFITS["a deeper model"][1])
    assert "model.layers of the base ends at 1" in str(finding.hint)


def test_a_misspelt_module_gets_a_suggestion() -> None:
    tensors = lora(("lm_heat", HIDDEN, VOCAB))
    findings = check(lora_config(target_modules=["lm_heat"]), tensors)
    assert any("Did you mean 'lm_head'?" in str(f.hint) for f in findings)


def test_a_suggested_module_would_take_the_factors() -> None:
    for name, out in (("lm_heat", VOCAB + 1), ("model.layers.0.self_attn.q_porj", KV + 1)):
        tensors = lora((name, HIDDEN, out))
        found = check(lora_config(target_modules=[name]), tensors)
        (finding,) = [f for f in found if f.code == "AD342"]
        assert "Did you mean" not in str(finding.hint)
    taken = {**qv(), **lora(("model.layers.0.self_attn.q_pro", HIDDEN, HIDDEN))}
    found = check(lora_config(target_modules=["q_proj", "v_proj", "q_pro"]), taken)
    (finding,) = [f for f in found if f.code == "AD342"]
    assert "q_proj" not in str(finding.hint)  # it has factors of its own


def test_wrappers_of_peft_are_not_misspellings() -> None:
    tensors = lora(("lm_head.base_layer.out_proj", HIDDEN, VOCAB))
    found = check(lora_config(target_modules=["lm_head"]), tensors)
    assert all("Did you mean" not in str(f.hint) for f in found)


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("rank_patern", {"q_proj": 8}, "Did you mean 'rank_pattern'?"),  # in the config already
        ("rank_patern", {"q_proj": 8}, None),
        ("use_qalor", True, None),  # what is meant is refused as well
        ("lorap_emb_lr", 1e-5, None),
        ("fan_in_fan_ou", True, "Did you mean 'fan_in_fan_out'?"),
        ("fan_in_fan_ou", "yes", None),  # no value of that field
    ],
)
def test_a_suggested_field_would_take_the_value(field: str, value: Any, hint: str | None) -> None:
    config = lora_config(**{field: value})
    if hint is not None:
        del config[hint.split("'")[1]]
    found = check(config)
    if hint is None:
        assert all("Did you mean" not in str(finding.hint) for finding in found)
    else:
        assert [f.hint for f in found if f.code == "AD315"] == [hint]


def test_a_pattern_for_a_parameter_is_used_where_the_parameter_is_adapted() -> None:
    layout = base_layout()
    at = "model.layers.0.mlp"
    shape = ModuleShape(ModuleKind.OTHER, parameters={"gate_up_proj": (2, 8, HIDDEN)})
    layout = dataclasses.replace(layout, modules={**layout.modules, f"{at}.experts": shape})
    config = lora_config(
        target_modules=[],
        target_parameters=["mlp.experts.gate_up_proj"],
        rank_pattern={r".*\.gate_up_proj": 4},
        alpha_pattern={r".*\.gate_up_proj": 16, r".*\.up_porj": 2},
        r=2,
    )
    tensors: dict[str, Spec] = {
        f"{AT}{at}.experts.lora_A.weight": ("F32", (8, HIDDEN)),
        f"{AT}{at}.experts.lora_B.weight": ("F32", (8, 8)),
    }
    (finding,) = check(config, tensors, base=None, layout=layout)
    assert finding.code == "AD355" and ".up_porj" in finding.message
    assert "gate_up_proj" not in finding.message


@pytest.mark.parametrize(
    ("case", "hint"),
    [
        ("a saved head with more labels", "num_labels=5"),
        ("half of a saved head", "version of its code"),
        ("a saved head left out", "remove the name from modules_to_save"),
    ],
)
def test_each_problem_of_a_saved_module_has_its_own_hint(case: str, hint: str) -> None:
    (finding, *_) = check(**MISFITS[case][1])
    assert hint in str(finding.hint)


def test_a_saved_head_of_another_vocabulary_points_to_resizing() -> None:
    config = lora_config(target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head"])
    tensors = qv(**{"lm_head.weight": ("F32", (VOCAB + 2, HIDDEN))})
    (finding,) = [f for f in check(config, tensors) if f.code == "AD349"]
    assert f"resize_token_embeddings({VOCAB + 2})" in str(finding.hint)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lora_unet_down_0.lora_down.weight", "kohya"),
        ("unet.down_blocks.0.to_q.lora.down.weight", "diffusers"),
        (f"{AT}_flat_param", "FSDP"),
        (
            f"{AT}model.layers.0.self_attn.q_proj.lora_A.default.weight",
            "The name of an adapter",
        ),
    ],
)
def test_names_of_another_program_in_peft_s_files_are_reported(name: str, said: str) -> None:
    found = check(tensors=qv() | {name: ("F32", (4, HIDDEN))})
    (finding,) = [f for f in found if f.code == "AD332"]
    assert said in str(finding.hint)


def test_weights_that_zero_3_did_not_gather_are_named() -> None:
    empty: Spec = ("F32", (0,))
    found = check(tensors=qv(**{q0("lora_A.weight"): empty, q0("lora_B.weight"): empty}))
    assert any("ZeRO-3" in str(f.hint) for f in found)


def test_text_from_outside_is_quoted_for_the_terminal() -> None:
    evil = "\x1b[2Jq\u202e"
    findings = check(
        lora_config(
            peft_version=evil,
            base_model_name_or_path=evil,
            target_modules=evil,
            init_lora_weights=evil,
            **{evil: evil},
        ),
        {AT + evil: ("F32", (1,))},
    )
    findings += check(lora_config(peft_type=evil))
    assert findings
    for finding in findings:
        assert "\x1b" not in str(finding) and "\u202e" not in str(finding)


def test_a_slow_pattern_is_found_while_it_matches() -> None:
    name = "a" * 300
    findings = check(
        lora_config(target_modules=r"(a|aa)+\.q_proj"), lora((f"{name}.k_proj", HIDDEN, HIDDEN))
    )
    assert "AD320" in codes(findings)


# Against PEFT: every field and method that it has is one that we know.


def test_a_table_of_patterns_that_takes_long_to_read_is_refused_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = {rf"^model\.(?:layers\.{n}\.|x)+.*[a-z]+_proj": 4 for n in range(500)}
    assert "AD320" not in codes(check(config=lora_config(alpha_pattern=table)))
    monkeypatch.setattr(patterns, "COMPILE_SECONDS", 0.01)
    findings = check(config=lora_config(alpha_pattern=table))
    assert codes(findings) == ["AD320"] and len(findings) == 1


def test_every_field_of_pefts_config_is_classified() -> None:
    from peft import LoraConfig

    ours = {option.name for option in OPTIONS}
    common = {"peft_type", "peft_version", "base_model_name_or_path", "revision"}
    assert {field.name for field in dataclasses.fields(LoraConfig)} <= ours | common


def test_every_method_of_peft_is_known_by_name() -> None:
    from peft import PeftType

    assert {member.value for member in PeftType} <= PEFT_METHODS


def test_a_config_that_peft_writes_with_its_defaults_passes(tmp_path: Path) -> None:
    from peft import LoraConfig

    LoraConfig(target_modules=["q_proj", "v_proj"], r=4).save_pretrained(str(tmp_path))
    config = parse_adapter_config((tmp_path / "adapter_config.json").read_bytes())
    assert check(config) == []


def test_every_field_that_is_not_carried_out_is_refused_when_set_and_passes_when_unset() -> None:
    for option in OPTIONS:
        if option.support in (Support.NOT_YET, Support.NEVER):
            for value in (True, {"a": 1}, [1], "x", 0.5):
                (finding,) = check(lora_config(**{option.name: value}))
                assert finding.code == "AD314" and option.name in finding.message
            for value in (None, False, {}, []):
                assert check(lora_config(**{option.name: value})) == []
        elif option.support is Support.NO_EFFECT and option.name != "task_type":
            assert check(lora_config(**{option.name: 0.1})) == []


@pytest.mark.parametrize("value", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga"])
def test_an_init_is_refused_exactly_where_it_changes_the_base(value: str) -> None:
    """PEFT as the oracle, where it runs without data: pissa and olora change the base."""
    assert codes(check(lora_config(init_lora_weights=value))) == ["AD318"]


@pytest.mark.parametrize(
    ("value", "changes"),
    [
        (True, False),
        (False, False),
        ("gaussian", False),
        ("orthogonal", False),
        ("mica", False),
        ("eva", False),
        ("pissa", True),
        ("pissa_niter_2", True),
        ("olora", True),
    ],
)
def test_pefts_inits_change_the_base_where_we_refuse_them(value: Any, changes: bool) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    model = torch.nn.Sequential(torch.nn.Linear(8, 8))
    before = model[0].weight.detach().clone()
    get_peft_model(model, LoraConfig(target_modules=["0"], r=2, init_lora_weights=value))
    after = model[0].base_layer.weight
    assert torch.equal(before, after) is not changes
    assert ("AD318" in codes(check(lora_config(init_lora_weights=value)))) is changes


# The config file itself.


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"nope",
        b'{"r": 1, "r": 2}',
        b'{"r": {"a": 1, "a": 1}}',
        b'{"r": NaN}',
        b'{"r": Infinity}',
        b'{"r": "\xff"}',
        b'{"r": "\\ud800"}',
        b'{"a":' * 100_000,
        b'{"r": 1' + b"0" * 5000 + b"}",
        b" " * (CONFIG_BYTES + 1),
    ],
)
def test_a_config_that_is_not_one_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(SourceError) as caught:
        parse_adapter_config(data, Where("adapters/tone"))
    assert caught.value.code == "AD310"
    assert caught.value.findings[0].where.file == "adapters/tone"


def test_a_config_with_escapes_is_read() -> None:
    assert parse_adapter_config(b'{"r": "\\u00e9 \\ud83d\\ude00"}') == {"r": "é 😀"}


SCRAPS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from([*lora_config(), "surprise"]), SCRAPS | st.sampled_from([True, "a(", "q"])
    ),
    st.dictionaries(
        st.sampled_from([*qv(), *EMBED, *CLASSIFIER, AT + "model.norm.bias", "", ".", "x.lora_A"]),
        st.tuples(
            st.sampled_from(["F32", "I8"]), st.lists(st.integers(0, 3), max_size=3).map(tuple)
        ),
        max_size=6,
    ),
)
def test_no_config_and_no_tensors_make_a_traceback(
    fields: dict[str, Any], tensors: dict[str, Spec]
) -> None:
    config = lora_config(**{name: value for name, value in fields.items() if value is not ...})
    for finding in check(config, tensors):
        assert finding.severity in Severity
        assert json.dumps(finding.as_dict())


def test_the_tiny_models_have_the_sizes_of_these_tests() -> None:
    module = base_layout().modules["model.layers.0.mlp.down_proj"]
    assert (module.in_features, module.out_features) == (INNER, HIDDEN) and KV == 8
