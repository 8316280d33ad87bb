"""Fingerprints of bases from their files, and their comparison. Nothing here needs torch."""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import FingerprintError
from adapterdock.manifests.findings.finding import Finding, Severity, Where
from adapterdock.manifests.language.schema import Fingerprint
from adapterdock.registry.base.backbone import split
from adapterdock.registry.base.base_config import canonical, hidden_size, ties_embeddings
from adapterdock.registry.base.fingerprint import Measured, compare, fingerprint_of
from adapterdock.registry.base.samples import Sample, Samples
from adapterdock.registry.files.facts import BaseFacts
from adapterdock.registry.files.header import parse_header
from hypothesis import given
from hypothesis import strategies as st
from support.builders import base_config, base_tensors, safetensors_bytes, write_base

Read = Callable[[str, int, int], bytes]


def base_of(
    tensors: Mapping[str, Any],
    config: Mapping[str, Any],
    seed: int = 1,
    overrides: Mapping[str, bytes] | None = None,
    shards: int = 1,
) -> tuple[BaseFacts, Read]:
    """A base in memory, over that many files."""
    names = sorted(tensors)
    files: dict[str, bytes] = {}
    for i in range(shards):
        part = {name: tensors[name] for name in names[i::shards]}
        data = safetensors_bytes(part, seed, overrides=overrides)
        files[f"model-{i:05}-of-{shards:05}.safetensors"] = data
    headers = {file: parse_header(data, len(data)) for file, data in files.items()}
    facts = BaseFacts(
        None,
        config,
        {name: info for header in headers.values() for name, info in header.tensors.items()},
        None,
        headers,
    )
    return facts, lambda file, start, length: files[file][start : start + length]


def measured(kind: str = "llama", dtype: str = "F32", seed: int = 1, **fields: Any) -> Measured:
    return fingerprint_of(*base_of(base_tensors(kind, dtype), base_config(kind, **fields), seed))


def codes_of(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


def test_the_digests_of_version_1_never_change() -> None:
    """Golden: a base written out here in full, one digest a level."""
    shapes = {
        "lm_head.weight": (3, 4),
        "model.embed_tokens.weight": (3, 4),
        "model.layers.0.mlp.up_proj.weight": (2, 4),
        "model.norm.weight": (4,),
    }
    data = {
        name: struct.pack(f"<{n}f", *((i - 3) / (7 + k) for i in range(n)))
        for k, (name, shape) in enumerate(shapes.items())
        for n in [math.prod(shape)]
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 4,
        "num_attention_heads": 2,
        "rope_theta": 50000.0,
        "rope_scaling": {"type": "dynamic", "factor": 1.5},
        "rms_norm_eps": 1e-5,
        "torch_dtype": "float32",
        "homemade": ["a", 1, None],
    }
    tensors = {name: ("F32", shape) for name, shape in shapes.items()}
    found = fingerprint_of(*base_of(tensors, config, overrides=data)).fingerprint
    golden = {
        "structure": "d113a6dc8e264205d047f09bb21c6c897a802f9615438e01db220500b21acd5f",
        "heads": "388d22f8fe1366dd32c9448c533559ebffda78e8342de67db9f9ffbaf7b79720",
        "config": "d640e0fdc7210a04058bb4955370e02de942b78edfbec595c71c5edba4366c5d",
        "weights.float32": "b0b8a6dcb36292f244453e1ab346da710a2a7f9c72243e7bae7847c18e2290d9",
        "weights.bfloat16": "ba4ab5eafb521c498cdf49a45e979269b1eccbc52cae8fad71452b48c3674c2c",
        "weights.float16": "8dd7612df01d3275675f59766c5e18c8c858feaf2bd10028b088d591fb837ace",
        "head_weights.bfloat16": "cd122f46f5402dd40013d8bfbca0fce65d8b7cb5a3f428b249eab8406fa0a602",
    }
    dumped = found.model_dump()
    for level, digest in golden.items():
        value: Any = dumped
        for part in level.split("."):
            value = value[part]
        assert value == f"v1:sha256:{digest}", level


def test_the_table_of_config_defaults_is_frozen() -> None:
    """It is part of version 1: a change of it changes digests."""
    import hashlib

    from adapterdock.registry.base import base_config as baseconfig

    digest = "eed3d2673733e6591a9a48b3b157cbd757047f59ff97fa233bb6ca99d51d9557"
    table = (Path(baseconfig.__file__).parents[1] / "baseconfig_v1.json").read_bytes()
    assert hashlib.sha256(table).hexdigest() == digest


def test_a_fingerprint_matches_its_base_and_no_other_seed() -> None:
    one, other = measured(seed=1), measured(seed=2)
    assert compare(one.fingerprint, one) == []
    assert compare(one.fingerprint, one, samples=one.samples) == []
    assert codes_of(compare(one.fingerprint, other)) == ["AD407", "AD408"]
    named = compare(
        one.fingerprint, other, Where("m.yaml", ("base", "fingerprint"), 3, 5), samples=one.samples
    )
    assert codes_of(named) == ["AD407", "AD408"]
    assert "embed_tokens.weight" in named[0].message
    assert str(named[0].where) == "m.yaml:3:5 (base.fingerprint.weights)"
    assert named[0].found == f"0 of {len(one.samples.backbone)} tensors match"  # type: ignore[union-attr]


def test_one_changed_tensor_is_named() -> None:
    tensors, config = base_tensors("llama"), base_config("llama")
    one = fingerprint_of(*base_of(tensors, config))
    name = "model.layers.1.mlp.up_proj.weight"
    bent = {name: bytes(4 * 16 * 32)}
    two = fingerprint_of(*base_of(tensors, config, overrides=bent))
    [finding] = compare(one.fingerprint, two, samples=one.samples)
    assert finding.code == "AD407" and "layers.1.mlp.up_proj.weight" in finding.message
    assert "layers.0" not in finding.message


def test_shards_make_no_difference_and_threads_neither() -> None:
    tensors, config = base_tensors("gpt2"), base_config("gpt2")
    whole = fingerprint_of(*base_of(tensors, config))
    sharded = fingerprint_of(*base_of(tensors, config, shards=3), workers=4)
    assert sharded == whole


def test_each_tensor_costs_one_read_of_at_most_64_bytes() -> None:
    facts, read = base_of(base_tensors("llama", "F64"), base_config("llama"))
    reads: list[int] = []

    def counted(file: str, start: int, length: int) -> bytes:
        reads.append(length)
        return read(file, start, length)

    fingerprint_of(facts, counted)
    assert len(reads) == len(facts.tensors) and max(reads) == 64


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_a_narrower_copy_is_the_same_base_and_a_wider_one_is_not(dtype: str) -> None:
    wide = measured()
    assert wide.samples is not None
    precision = {"BF16": "bfloat16", "F16": "float16"}[dtype]

    def copied(table: Mapping[str, Sample]) -> dict[str, Sample]:
        cut = {}
        for name, sample in table.items():
            bits = sample.bits(precision)  # type: ignore[arg-type]
            if dtype == "BF16":
                data = b"".join(struct.pack("<H", b >> 16) for b in bits)
            else:
                values = struct.unpack(f"<{len(bits)}f", struct.pack(f"<{len(bits)}I", *bits))
                data = struct.pack(f"<{len(bits)}e", *values)
            cut[name] = Sample(dtype, data)
        return cut

    from adapterdock.registry.base.samples import weight_digests

    samples = Samples(copied(wide.samples.backbone), copied(wide.samples.heads))
    narrow = replace(
        wide,
        samples=samples,
        fingerprint=wide.fingerprint.model_copy(
            update={
                "weights": weight_digests(samples.backbone),
                "head_weights": weight_digests(samples.heads),
            }
        ),
    )
    assert compare(wide.fingerprint, narrow) == []
    assert compare(wide.fingerprint, narrow, samples=wide.samples) == []
    assert codes_of(compare(narrow.fingerprint, wide)) == ["AD407", "AD408"]


def test_a_mix_of_bfloat16_and_float16_is_unchecked_without_samples() -> None:
    tensors = base_tensors("llama")
    mixed = {n: ("BF16" if "norm" in n else "F16", shape) for n, (_, shape) in tensors.items()}
    wide = measured()
    found = fingerprint_of(*base_of(mixed, base_config("llama")))
    assert codes_of(compare(wide.fingerprint, found)) == ["AD434", "AD434"]


@pytest.mark.parametrize(
    "change",
    [
        {"rope_theta": 20000.0},
        {"rms_norm_eps": 1e-6},
        {"hidden_act": "gelu"},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"attention_multiplier": 0.5},
        {"head_dim": 4},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_field_that_changes_the_computation_is_refused(change: dict[str, Any]) -> None:
    assert codes_of(compare(measured().fingerprint, measured(**change))) == ["AD406"]


@pytest.mark.parametrize(
    "change",
    [
        {"torch_dtype": "bfloat16"},
        {"dtype": "float16", "transformers_version": "9.9"},
        {"_name_or_path": "x/y", "use_cache": False, "attention_dropout": 0.1},
        {"pad_token_id": 2, "eos_token_id": [2, 3], "bos_token_id": 5},
        {"id2label": {"0": "no"}, "problem_type": "regression"},
        {"head_dim": 8, "rope_scaling": None},
        {"rope_theta": 10000, "rope_parameters": None},
        {"temperature": 0.6, "do_sample": True},
        {"quantization_config": {"quant_method": "x"}},
        {"rms_norm_eps": 9.999999747378752e-06},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_field_that_does_not_change_the_computation_passes(change: dict[str, Any]) -> None:
    config = {**base_config("llama"), **change}
    assert (
        compare(measured().fingerprint, fingerprint_of(*base_of(base_tensors("llama"), config)))
        == []
    )


def test_old_and_new_forms_of_a_config_are_equal() -> None:
    old = base_config("llama", rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2})
    new = {k: v for k, v in old.items() if k not in ("rope_theta", "rope_scaling", "torch_dtype")}
    new |= {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500000.0}}
    new |= {"head_dim": 8, "dtype": "float32", "pretraining_tp": 1}
    assert canonical(old).digest == canonical(new).digest
    gemma = {"model_type": "gemma3_text", "num_hidden_layers": 7, "vocab_size": 64}
    explicit = {
        "layer_types": ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    }
    v4 = {
        "sliding_window_pattern": 6,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8},
    }
    assert canonical({**gemma, **explicit}).digest == canonical({**gemma, **v4}).digest
    assert (
        canonical({**gemma, **v4, "rope_local_base_freq": 2e4}).digest
        != canonical({**gemma, **v4}).digest
    )
    assert (
        canonical({**gemma, **v4, "sliding_window_pattern": 3}).digest
        != canonical({**gemma, **v4}).digest
    )
    old = {"model_type": "gpt_neox", "rotary_emb_base": 20000, "rotary_pct": 0.5}
    new = {
        "model_type": "gpt_neox",
        "rope_parameters": {
            "rope_theta": 20000,
            "partial_rotary_factor": 0.5,
            "rope_type": "default",
        },
    }
    assert canonical(old).digest == canonical(new).digest


def test_a_window_that_is_off_does_not_count_and_one_that_is_on_does() -> None:
    qwen = {"model_type": "qwen2", "num_hidden_layers": 2, "use_sliding_window": False}
    assert canonical({**qwen, "sliding_window": 32768}).digest == canonical(qwen).digest
    on = {**qwen, "use_sliding_window": True}
    assert canonical({**on, "sliding_window": 32768}).digest != canonical(on).digest


def test_the_tie_flag_of_t5_means_scaled_outputs() -> None:
    old = {"model_type": "t5", "tie_word_embeddings": False}
    new = {"model_type": "t5", "tie_word_embeddings": True, "scale_decoder_outputs": False}
    assert canonical(old).digest == canonical(new).digest != canonical({"model_type": "t5"}).digest
    assert ties_embeddings(old)


def test_a_config_of_2019_without_a_model_type_goes_by_its_class() -> None:
    old = {k: v for k, v in base_config("bert").items() if k != "model_type"}
    assert canonical(old).digest == canonical(base_config("bert")).digest
    nameless = {**old, "architectures": None}
    found = fingerprint_of(*base_of(base_tensors("bert"), nameless))
    assert found.fingerprint.config is None
    assert codes_of(compare(measured("bert").fingerprint, found)) == ["AD431", "AD433"]


def test_an_unknown_model_type_with_another_config_is_unchecked_and_not_refused() -> None:
    one = measured(model_type="homemade", beta=1)
    two = measured(model_type="homemade", beta=2)
    assert codes_of(compare(one.fingerprint, two)) == ["AD433"]
    assert compare(one.fingerprint, one) == []
    [finding] = compare(one.fingerprint, two)
    assert finding.severity is Severity.UNCHECKED and "homemade" in finding.message


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=12,
    ),
    st.sampled_from(
        [
            "rope_parameters",
            "rope_scaling",
            "text_config",
            "head_dim",
            "layer_types",
            "model_type",
            "num_hidden_layers",
            "sliding_window_pattern",
            "tie_word_embeddings",
            "hidden_size",
            "x",
        ]
    ),
    st.sampled_from(["llama", "gemma3_text", "gemma3", "qwen2", "t5", "", "none"]),
)
def test_no_config_raises(value: Any, key: str, kind: str) -> None:
    config = {"model_type": kind, "num_hidden_layers": 2, key: value}
    assert canonical(config).digest.startswith("v1:sha256:")
    ties_embeddings(config)
    hidden_size(config)


def test_the_hidden_size_is_found_under_its_other_names() -> None:
    assert hidden_size({"model_type": "gpt2", "n_embd": 48}) == 48
    assert hidden_size({"model_type": "gpt2"}) == 768
    assert hidden_size({"model_type": "t5", "d_model": 512, "d_kv": 64}) == 512
    assert hidden_size({"model_type": "gemma3", "text_config": {"hidden_size": 2560}}) == 2560
    assert hidden_size({}) is None
    assert codes_of(compare(Fingerprint(hidden_size=17), measured())) == ["AD403"]


def test_a_base_has_one_structure_with_and_without_prefix_and_head() -> None:
    shapes = {name: shape for name, (_, shape) in base_tensors("bert").items()}
    with_head = split(shapes, tied=True)
    plain = {n.removeprefix("bert."): s for n, s in shapes.items() if n.startswith("bert.")}
    without = split(plain, tied=True)
    assert set(with_head.backbone) == set(without.backbone)
    assert "classifier.weight" in with_head.heads and "classifier.weight" not in without.heads
    assert "pooler.dense.weight" in without.heads


def test_a_tied_head_does_not_count_in_the_file_or_not() -> None:
    config = base_config("llama", tie_word_embeddings=True)
    with_copy = fingerprint_of(base_of(base_tensors("llama"), config)[0])
    without = fingerprint_of(base_of(base_tensors("llama", tied=True), config)[0])
    assert with_copy.fingerprint == without.fingerprint
    untied = measured().fingerprint
    assert untied.heads is not None and without.fingerprint.heads is None
    assert untied.structure == without.fingerprint.structure


def test_buffers_of_older_checkpoints_do_not_count() -> None:
    shapes = {name: shape for name, (_, shape) in base_tensors("gpt2").items()}
    old = {
        **shapes,
        "transformer.h.0.attn.bias": (1, 1, 32, 32),
        "transformer.h.0.attn.masked_bias": (),
        "transformer.rotary_emb.inv_freq": (4,),
        "transformer.embeddings.position_ids": (1, 32),
    }
    assert split(old, tied=True).backbone == split(shapes, tied=True).backbone
    assert "h.0.attn.c_attn.bias" in split(shapes, tied=True).backbone


def test_tensorflows_names_of_norms_are_the_same_names() -> None:
    old = {"bert.a.LayerNorm.gamma": (4,), "bert.a.LayerNorm.beta": (4,), "bert.b.gamma": (4,)}
    assert set(split(old, tied=False).backbone) == {
        "a.LayerNorm.weight",
        "a.LayerNorm.bias",
        "b.gamma",
    }


@given(st.dictionaries(st.text("ab.0", max_size=8), st.just((2, 2)), max_size=8), st.booleans())
def test_any_names_are_split_without_loss(shapes: dict[str, Any], tied: bool) -> None:
    found = split(shapes, tied=tied)
    assert sorted(found.all.values()) == sorted(shapes)


def test_another_shape_is_another_structure() -> None:
    tensors = base_tensors("llama") | {"model.embed_tokens.weight": ("F32", (66, 16))}
    found = fingerprint_of(*base_of(tensors, base_config("llama")))
    assert codes_of(compare(measured().fingerprint, found)) == ["AD404"]


def test_a_missing_tensor_is_named_with_samples() -> None:
    one = measured()
    tensors = base_tensors("llama")
    del tensors["model.norm.weight"]
    two = fingerprint_of(*base_of(tensors, base_config("llama")))
    [finding] = compare(one.fingerprint, two, samples=one.samples)
    assert finding.code == "AD404" and "norm.weight missing" in finding.message


def test_architectures_of_one_family_are_a_warning_and_of_two_an_error() -> None:
    one = measured("bert")
    other = measured("bert", architectures=["BertForTokenClassification"])
    assert codes_of(compare(one.fingerprint, other)) == ["AD402"]
    assert codes_of(compare(Fingerprint(architecture="MistralForCausalLM"), measured())) == [
        "AD401"
    ]
    nameless = measured(architectures=None)
    assert codes_of(compare(Fingerprint(architecture="X"), nameless)) == ["AD431"]
    for name in ("BertModel", "BertLMHeadModel", "BertForMaskedLM"):
        assert codes_of(compare(Fingerprint(architecture=name), one)) == ["AD402"]


def test_other_heads_of_the_same_class_are_refused() -> None:
    tensors = base_tensors("bert") | {
        "classifier.weight": ("F32", (5, 16)),
        "classifier.bias": ("F32", (5,)),
    }
    found = fingerprint_of(*base_of(tensors, base_config("bert")))
    assert codes_of(compare(measured("bert").fingerprint, found)) == ["AD405"]


def test_levels_that_were_not_measured_are_unchecked() -> None:
    facts, _ = base_of(base_tensors("llama"), base_config("llama"))
    declared = measured().fingerprint.model_copy(update={"tokenizer": "v1:sha256:" + "0" * 64})
    found = fingerprint_of(facts)
    assert found.fingerprint.weights is None and found.samples is None
    assert codes_of(compare(declared, found)) == ["AD434", "AD434", "AD436"]
    assert compare(Fingerprint(), found) == []


def test_a_base_that_is_partly_readable_is_compared_in_that_part() -> None:
    one = measured()
    assert one.samples is not None
    norms = {n: s for n, s in one.samples.backbone.items() if "norm" in n}
    part = replace(
        one,
        samples=Samples(norms, one.samples.heads),
        fingerprint=one.fingerprint.model_copy(update={"weights": None}),
        doubts={"weights": "its weights are quantised", "structure": "its weights are quantised"},
    )
    [finding] = compare(one.fingerprint, part, samples=one.samples)
    assert finding.code == "AD435" and finding.severity is Severity.UNCHECKED
    assert f"{len(norms)} of {len(one.samples.backbone)} tensors match" in finding.message
    assert codes_of(compare(one.fingerprint, part)) == ["AD434"]


def test_samples_of_another_base_are_an_error() -> None:
    one, other = measured(seed=1), measured(seed=2)
    assert codes_of(compare(one.fingerprint, one, samples=other.samples)) == ["AD411"]


def test_a_tokenizer_that_differs_is_refused_and_a_template_that_does_is_a_warning(
    tmp_path: Path,
) -> None:
    from support.builders import write_tokenizer

    facts, read = base_of(base_tensors("llama"), base_config("llama"))
    one = {p.name: p.read_bytes() for p in write_tokenizer(tmp_path / "a").iterdir()}
    two = {p.name: p.read_bytes() for p in write_tokenizer(tmp_path / "b", {"<x>": 64}).iterdir()}
    declared = fingerprint_of(facts, read, {**one, "chat_template.jinja": b"{{ a }}"})
    assert compare(declared.fingerprint, declared) == []
    other = fingerprint_of(facts, read, {**two, "chat_template.jinja": b"{{ a }}"})
    assert codes_of(compare(declared.fingerprint, other)) == ["AD409"]
    spoken = fingerprint_of(facts, read, {**one, "chat_template.jinja": b"{{ b }}"})
    assert codes_of(compare(declared.fingerprint, spoken)) == ["AD410"]
    with pytest.raises(FingerprintError) as caught:
        fingerprint_of(facts, read, {"tokenizer.json": b"<html>"})
    assert caught.value.code == "AD412"


def test_integers_are_structure_and_are_not_sampled() -> None:
    tensors = base_tensors("llama") | {"model.layers.0.table": ("I32", (4,))}
    found = fingerprint_of(*base_of(tensors, base_config("llama")))
    assert found.samples is not None and "layers.0.table" not in found.samples.backbone
    assert found.fingerprint.structure != measured().fingerprint.structure
    assert found.fingerprint.weights == measured().fingerprint.weights


def test_272_tensors_on_disk_take_less_than_50_ms(tmp_path: Path) -> None:
    """The best of five, so that a busy machine does not fail it."""
    tensors = {
        f"model.layers.{i}.{j}.weight": ("BF16", (32, 16)) for i in range(34) for j in range(8)
    }
    folder = write_base(tmp_path / "base")
    facts, _ = base_of(tensors, base_config("llama"))
    [file] = facts.headers
    (folder / file).write_bytes(safetensors_bytes(tensors, 1))

    def read(name: str, start: int, length: int) -> bytes:
        with (folder / name).open("rb") as handle:
            handle.seek(start)
            return handle.read(length)

    best = 1.0
    for _ in range(5):
        started = time.perf_counter()
        found = fingerprint_of(facts, read)
        best = min(best, time.perf_counter() - started)
    assert found.fingerprint.weights is not None
    assert best < 0.05


def test_the_fingerprint_is_json_that_the_manifest_takes() -> None:
    found = measured().fingerprint
    assert Fingerprint.model_validate(json.loads(found.model_dump_json())) == found
