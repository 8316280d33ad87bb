"""Formats of adapters that are not read: each is named, with the way out, before any weight is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings import fit as codes
from adapterdock.manifests.findings.errors import SourceError
from adapterdock.manifests.findings.finding import Finding, Where
from adapterdock.manifests.language.source import Source
from adapterdock.registry.read_facts import gather_adapter, gather_base, gather_tokenizer
from adapterdock.registry.sources.folder import Folder
from adapterdock.registry.sources.open import open_source
from support.builders import (
    LLAMA_QV,
    Spec,
    lora_config,
    lora_tensors,
    safetensors_bytes,
    write_adapter,
    write_base,
)
from support.web import WebServer

WHERE = Where("adapters.yaml")
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
PEFT_CONFIG = json.dumps(lora_config()).encode()
HUB = {"config": {"reduction_factor": 16}, "hidden_size": 768, "version": "adapters.1.0.1"}


def tensors(*names: str) -> bytes:
    return safetensors_bytes(dict.fromkeys(names, ("F32", (4, 16))))


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def opened(place: Path | str) -> Folder:
    return open_source(Source.parse(str(place)), directory=Path("/"), where=WHERE)


def finding_of(place: Path | str) -> Finding:
    with pytest.raises(SourceError) as caught:
        gather_adapter("tone", opened(place), WHERE)
    (finding,) = caught.value.findings
    return finding


KOHYA = tensors("lora_unet_down_blocks_0.lora_down.weight", "lora_unet_down_blocks_0.alpha")
FORMATS: dict[str, tuple[dict[str, bytes], str, str]] = {
    "kohya": ({"my-style.safetensors": KOHYA}, "kohya", "pipe.load_lora_weights"),
    "kohya's text encoder": (
        {"te.safetensors": tensors("lora_te1_text_model_layers_0_mlp.lora_up.weight")},
        "kohya",
        "convert_sd_adapter_to_peft.py",
    ),
    "diffusers": (
        {"pytorch_lora_weights.safetensors": tensors("unet.x.lora_A.weight")},
        "diffusers",
        "pipe.load_lora_weights",
    ),
    "diffusers under another name": (
        {"flux.safetensors": tensors("transformer.blocks.0.attn.to_q.lora_A.weight")},
        "diffusers",
        "pipe.load_lora_weights",
    ),
    "GGUF": ({"adapter.gguf": b"GGUF"}, "GGUF", "the adapter that it was converted from"),
    "AdapterHub by its config": (
        {"adapter_config.json": json.dumps(HUB).encode(), "pytorch_adapter.bin": b""},
        "AdapterHub",
        "model.load_adapter",
    ),
    "AdapterHub by its file": ({"adapter.safetensors": b""}, "AdapterHub", "model.load_adapter"),
    "an old mlx-lm": ({"adapters.npz": b""}, "mlx-lm", "mlx.core.save_safetensors"),
    "mlx-lm without its config": (
        {"adapters.safetensors": tensors("model.layers.0.self_attn.q_proj.lora_a")},
        "mlx-lm",
        "it has the scale",
    ),
    "Tunix": (
        {"adapter_config.json": b'{"framework": "jax-tunix-qwix", "lora_rank": 4}'},
        "Tunix",
        "Merge it in Tunix",
    ),
    "a complete model": (
        {"config.json": b"{}", "model.safetensors": tensors("lm_head.weight")},
        "a complete model",
        "base.model",
    ),
    "a model's config under the adapter's name": (
        {"adapter_config.json": b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}'},
        "a complete model",
        "base.model",
    ),
    "a training checkpoint": (
        {"config.json": b"{}", "model-00001-of-00002.safetensors": b"", "optimizer.pt": b""},
        "a training checkpoint",
        "train with PEFT",
    ),
    "DeepSpeed": (
        {"adapter_config.json": PEFT_CONFIG, "zero_to_fp32.py": b"", "latest": b"global_step9"},
        "DeepSpeed ZeRO",
        "zero_to_fp32.py",
    ),
    "FSDP": (
        {"pytorch_model_fsdp_0/__0_0.distcp": b""},
        "distributed checkpoint of FSDP",
        "accelerate merge-weights",
    ),
    "weights under another name": (
        {
            "adapter_config.json": PEFT_CONFIG,
            "model.safetensors": safetensors_bytes(lora_tensors(LLAMA_QV)),
        },
        "another name than adapter_model.safetensors",
        "Rename the file",
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_an_unsupported_format_is_named_with_a_hint(name: str, tmp_path: Path) -> None:
    files, said, hint = FORMATS[name]
    finding = finding_of(written(tmp_path / "tone", files))
    assert finding.code == codes.FOREIGN_FORMAT.id
    assert said in finding.message and hint in str(finding.hint)


@pytest.mark.parametrize("name", ["kohya", "diffusers", "AdapterHub by its file"])
def test_a_folder_on_a_web_server_is_recognised_by_known_names(name: str, web: WebServer) -> None:
    files = FORMATS[name][0]
    web.files |= {f"/tone/{path}": data for path, data in files.items()}
    if name == "kohya":  # a name that nobody can guess: there is nothing to list
        with pytest.raises(SourceError) as caught:
            gather_adapter("tone", opened(f"{web.url}/tone"), WHERE)
        assert caught.value.code == "AD201"
    else:
        assert finding_of(f"{web.url}/tone").code == codes.FOREIGN_FORMAT.id


def test_a_checkpoint_of_an_adapter_is_an_adapter(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "checkpoint-500")
    written(folder, {"optimizer.pt": b"", "trainer_state.json": b"{}", "training_args.bin": b""})
    assert len(gather_adapter("tone", opened(folder), WHERE).files) == 2


def test_of_several_checkpoints_the_last_one_is_proposed(tmp_path: Path) -> None:
    for number in (500, 1000, 1500, 90):
        write_adapter(tmp_path / f"checkpoint-{number}")
    finding = finding_of(tmp_path)
    assert finding.code == "AD251" and "/checkpoint-1500," in str(finding.hint)


def test_unknown_files_are_no_adapter_of_a_known_format(tmp_path: Path) -> None:
    folder = written(tmp_path, {"x.safetensors": tensors("a.weight"), "config.json": b"{}"})
    assert finding_of(folder).code == "AD251"


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_git_lfs_pointer_of_an_adapter_is_named(file: str, tmp_path: Path) -> None:
    folder = written(write_adapter(tmp_path / "tone"), {file: LFS})
    finding = finding_of(folder)
    assert "Git LFS pointer" in finding.message and "git lfs pull" in str(finding.hint)


def test_a_git_lfs_pointer_of_an_mlx_adapter_is_named(tmp_path: Path) -> None:
    config = {"lora_parameters": {"rank": 4, "scale": 20.0}, "num_layers": 2}
    folder = written(
        tmp_path, {"adapter_config.json": json.dumps(config).encode(), "adapters.safetensors": LFS}
    )
    assert "Git LFS pointer" in finding_of(folder).message


def test_a_git_lfs_pointer_of_a_base_and_of_a_tokenizer_is_named(tmp_path: Path) -> None:
    base = written(write_base(tmp_path / "base"), {"config.json": LFS})
    with pytest.raises(SourceError, match="Git LFS pointer"):
        gather_base(opened(base), WHERE)
    folder = written(write_adapter(tmp_path / "tone"), {"tokenizer.json": LFS})
    with pytest.raises(SourceError, match="Git LFS pointer"):
        gather_tokenizer(opened(folder), WHERE)


SHARDS = ("adapter_model-00001-of-00002.safetensors", "adapter_model-00002-of-00002.safetensors")


def sharded(folder: Path, **changes: Any) -> Path:
    """The small LoRA in two files and an index, as transformers writes it."""
    specs = lora_tensors(LLAMA_QV)
    names = sorted(specs)
    files: dict[str, bytes] = {"adapter_config.json": PEFT_CONFIG}
    parts: tuple[dict[str, Spec], ...] = tuple(
        {name: specs[name] for name in half} for half in (names[:3], names[3:])
    )
    for path, part in zip(SHARDS, parts, strict=True):
        files[path] = safetensors_bytes(part, 1)
    weight_map = {n: path for path, part in zip(SHARDS, parts, strict=True) for n in part}
    files["adapter_model.safetensors.index.json"] = json.dumps(
        {"metadata": {}, "weight_map": weight_map}
    ).encode()
    return written(folder, {k: v for k, v in (files | changes).items() if v is not None})


def test_the_shards_of_an_adapter_are_read_as_one_file(tmp_path: Path) -> None:
    facts = gather_adapter("tone", opened(sharded(tmp_path)), WHERE)
    assert {n: i.shape for n, i in facts.header.tensors.items()} == {
        n: shape for n, (_, shape) in lora_tensors(LLAMA_QV).items()
    }
    assert [f.path for f in facts.files] == [
        "adapter_config.json",
        "adapter_model.safetensors.index.json",
        *SHARDS,
    ]


def test_the_shards_of_an_adapter_on_a_web_server_are_found(web: WebServer, tmp_path: Path) -> None:
    for path in sharded(tmp_path).iterdir():
        web.files[f"/tone/{path.name}"] = path.read_bytes()
    facts = gather_adapter("tone", opened(f"{web.url}/tone"), WHERE)
    assert len(facts.files) == 4


def test_an_mlx_adapter_on_a_web_server_is_found(web: WebServer) -> None:
    config = {"lora_parameters": {"rank": 4, "scale": 20.0}, "num_layers": 2}
    web.files["/tone/adapter_config.json"] = json.dumps(config).encode()
    web.files["/tone/adapters.safetensors"] = safetensors_bytes(
        {"q_proj.lora_a": ("F32", (16, 4)), "q_proj.lora_b": ("F32", (4, 16))}
    )
    facts = gather_adapter("tone", opened(f"{web.url}/tone"), WHERE)
    assert [f.path for f in facts.files] == ["adapter_config.json", "adapters.safetensors"]
    assert facts.origin is not None and facts.origin.format == "mlx-lm"


def test_weights_are_not_read_to_recognise_a_format(tmp_path: Path) -> None:
    big = safetensors_bytes({"lora_unet_x.lora_down.weight": ("F32", (1024, 1024))})
    folder = opened(written(tmp_path, {"style.safetensors": big}))
    with pytest.raises(SourceError, match="kohya"):
        gather_adapter("tone", folder, WHERE)
    assert folder.bytes_read < 40_000


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / SHARDS[1]).unlink()
    finding = finding_of(tmp_path)
    assert finding.code == codes.ADAPTER_SHARDS.id and SHARDS[1] in str(finding.expected)


def test_one_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / SHARDS[1]).write_bytes((tmp_path / SHARDS[0]).read_bytes())
    assert finding_of(tmp_path).code == codes.ADAPTER_SHARDS.id


def test_a_complete_file_is_preferred_to_shards_beside_it(tmp_path: Path) -> None:
    facts = gather_adapter("tone", opened(write_adapter(sharded(tmp_path))), WHERE)
    assert [f.path for f in facts.files] == ["adapter_config.json", "adapter_model.safetensors"]
