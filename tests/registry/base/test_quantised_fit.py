"""Adapters for quantised checkpoints: what fits, what does not, and what cannot be told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import adapterdock
import pytest
from adapterdock.manifests.findings import artefacts
from adapterdock.manifests.findings import fit as codes
from adapterdock.manifests.findings.finding import Finding
from support.builders import lora_config, lora_tensors, write_adapter, write_safetensors
from support.quantised_headers import (
    HIDDEN,
    KNOWN,
    KV,
    LINEARS,
    LLAMA,
    UNSIZED,
    VOCAB,
    Header,
    Stored,
    header_of,
    in_four_bits,
    plain,
)
from support.shelf import write_manifest

PREFIX = "base_model.model."
QV = {f"model.layers.0.self_attn.{name}": (HIDDEN, KV) for name in ("k_proj", "v_proj")}
TARGETS = ["k_proj", "v_proj"]
EVERY = KNOWN | UNSIZED


def write_base(folder: Path, stored: Stored, quantisation: Mapping[str, Any] | None) -> Path:
    """A checkpoint of zeros, with a description where bitsandbytes writes one."""
    folder.mkdir(parents=True)
    config = LLAMA | ({} if quantisation is None else {"quantization_config": quantisation})
    (folder / "config.json").write_text(json.dumps(config))
    header = header_of(stored)
    states: dict[str, bytes] = {}
    for name, shape in LINEARS.items():
        key = f"model.layers.0.{name}.weight.quant_state.bitsandbytes__nf4"
        if key in header:
            states[key] = json.dumps({"quant_type": "nf4", "shape": shape}).encode()
            header[key] = ("U8", (len(states[key]),))
    write_safetensors(folder / "model.safetensors", header, overrides=states)
    return folder


def findings(
    folder: Path,
    name: str,
    config: Mapping[str, Any],
    tensors: Header,
    stored: Stored | None = None,
) -> list[Finding]:
    """What validate says beside that the base is quantised, and that no base is recorded."""
    known, quantisation = EVERY[name] if stored is None else (stored, EVERY[name][1])
    base = write_base(folder / "base", known, quantisation)
    adapter = write_adapter(folder / "adapter", lora_config(**config), tensors)
    manifest = write_manifest(folder, base={"model": base}, adapters={"it": {"source": adapter}})
    report = adapterdock.validate(manifest)
    usual = {codes.BASE_QUANTISED.id, codes.RECORDED_NONE.id}
    return [finding for finding in report.findings if finding.code not in usual]


def of(found: list[Finding]) -> list[str]:
    return [finding.code for finding in found]


@pytest.mark.parametrize("name", EVERY)
def test_only_sizes_that_the_packing_hides_are_unchecked(name: str, tmp_path: Path) -> None:
    found = findings(tmp_path, name, {"target_modules": TARGETS}, lora_tensors(QV))
    told = name in KNOWN or name.startswith("bitsandbytes")
    assert of(found) == ([] if told else [codes.SIZE_UNKNOWN.id])


@pytest.mark.parametrize("name", [*KNOWN, "bitsandbytes 4 bits", "bitsandbytes 4 bits in bfloat16"])
def test_an_adapter_of_another_width_is_refused(name: str, tmp_path: Path) -> None:
    wide = {module: (2 * inner, out) for module, (inner, out) in QV.items()}
    found = findings(tmp_path, name, {"target_modules": TARGETS}, lora_tensors(wide))
    assert of(found) == [codes.SIZE_MISMATCH.id]


@pytest.mark.parametrize("name", EVERY)
def test_a_missing_module_is_still_an_error(name: str, tmp_path: Path) -> None:
    more = {**QV, "model.layers.1.self_attn.k_proj": (HIDDEN, KV)}
    found = findings(tmp_path, name, {"target_modules": TARGETS}, lora_tensors(more))
    assert codes.MODULE_MISSING.id in of(found)


def magnitudes(modules: Mapping[str, tuple[int, int]]) -> Header:
    return {
        f"{PREFIX}{module}.lora_magnitude_vector": ("F32", (out,))
        for module, (_, out) in modules.items()
    }


def test_dora_is_unchecked_on_the_modules_that_are_packed_and_on_no_other(tmp_path: Path) -> None:
    head = {"lm_head": (HIDDEN, VOCAB)}
    every = {**QV, **head}
    config = {"target_modules": [*TARGETS, "lm_head"], "use_dora": True}
    name = "GPTQ 4 bits"
    found = findings(tmp_path / "both", name, config, lora_tensors(every) | magnitudes(every))
    assert of(found) == [codes.WEIGHT_QUANTISED.id]
    assert "own weights of 2 modules (" in found[0].message
    config = {"target_modules": ["lm_head"], "use_dora": True}
    found = findings(tmp_path / "head", name, config, lora_tensors(head) | magnitudes(head))
    assert of(found) == []
    config = {"target_modules": TARGETS, "use_dora": True}
    tensors = lora_tensors(QV) | magnitudes(QV)
    assert of(findings(tmp_path / "plain", name, config, tensors, plain)) == []


@pytest.mark.parametrize("name", ["FP8 by blocks", "HQQ"])
def test_a_replaced_module_is_unchecked_where_it_is_packed(name: str, tmp_path: Path) -> None:
    whole: Header = {f"{PREFIX}model.layers.0.mlp.up_proj.weight": ("F32", (256, HIDDEN))}
    config = {"target_modules": ["lm_head"], "modules_to_save": ["up_proj"]}
    head = lora_tensors({"lm_head": (HIDDEN, VOCAB)})
    assert of(findings(tmp_path / "it", name, config, head | whole)) == [codes.WEIGHT_QUANTISED.id]
    assert of(findings(tmp_path / "plain", name, config, head | whole, plain)) == []
    norm: Header = {f"{PREFIX}model.norm.weight": ("F32", (HIDDEN,))}
    config = {"target_modules": ["lm_head"], "modules_to_save": ["model.norm"]}
    assert of(findings(tmp_path / "norm", name, config, head | norm)) == []


def test_a_parameter_with_hidden_sizes_exists(tmp_path: Path) -> None:
    name = "HQQ"
    base = tmp_path / "base"
    base.mkdir()
    stored, quantisation = EVERY[name]
    header = {key: row for key, row in header_of(stored).items() if ".mlp." not in key}
    moe = "model.layers.0.block_sparse_moe"
    header[f"{moe}.gate.weight"] = ("BF16", (2, HIDDEN))
    for number in range(2):
        for part in ("w1", "w2", "w3"):
            for own, row in stored(HIDDEN, HIDDEN).items():
                header[f"{moe}.experts.{number}.{part}.{own}"] = row
    write_safetensors(base / "model.safetensors", header)
    config = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": quantisation}))
    experts = f"{PREFIX}model.layers.0.mlp.experts"
    adapter = write_adapter(
        tmp_path / "adapter",
        lora_config(
            target_modules=[], target_parameters=["experts.down_proj"], peft_version="0.21.2"
        ),
        {
            f"{experts}.lora_A.weight": ("F32", (8, 128)),
            f"{experts}.lora_B.weight": ("F32", (128, 8)),
        },
    )
    manifest = write_manifest(tmp_path, base={"model": base}, adapters={"it": {"source": adapter}})
    report = adapterdock.validate(manifest)
    assert of(list(report.findings)) == [
        codes.RECORDED_NONE.id,
        codes.BASE_QUANTISED.id,
        codes.WEIGHT_QUANTISED.id,
        codes.SIZE_UNKNOWN.id,
    ]


def test_sizes_are_read_from_every_shard(tmp_path: Path) -> None:
    whole = write_base(tmp_path / "whole", in_four_bits(), {"quant_method": "bitsandbytes"})
    header = header_of(in_four_bits())
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "config.json").write_bytes((whole / "config.json").read_bytes())
    weight_map: dict[str, str] = {}
    for number in range(2):
        states = {
            name: json.dumps({"shape": LINEARS[name[15:].partition(".weight")[0]]}).encode()
            for name in header
            if "quant_state" in name
        }
        part = {
            name: ("U8", (len(states[name]),)) if name in states else header[name]
            for name in sorted(header)[number::2]
        }
        file = f"model-{number + 1:05d}-of-00002.safetensors"
        write_safetensors(parts / file, part, overrides=states)
        weight_map |= dict.fromkeys(part, file)
    (parts / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    adapter = write_adapter(
        tmp_path / "adapter", lora_config(target_modules=TARGETS), lora_tensors(QV)
    )
    for base in (whole, parts):
        manifest = write_manifest(
            tmp_path, base={"model": base}, adapters={"it": {"source": adapter}}
        )
        assert of(list(adapterdock.validate(manifest).findings)) == [
            codes.RECORDED_NONE.id,
            codes.BASE_QUANTISED.id,
        ]


def test_a_quantised_base_in_a_pickle_is_refused(tmp_path: Path) -> None:
    """What older versions of torchao saved."""
    base = tmp_path / "base"
    base.mkdir()
    config = LLAMA | {"quantization_config": {"quant_method": "torchao"}}
    (base / "config.json").write_text(json.dumps(config))
    (base / "pytorch_model.bin").write_bytes(b"PK")
    adapter = write_adapter(tmp_path / "adapter")
    manifest = write_manifest(tmp_path, base={"model": base}, adapters={"it": {"source": adapter}})
    assert artefacts.PICKLE_REFUSED.id in of(list(adapterdock.validate(manifest).findings))
