"""Loading in another dtype, tensor by tensor, gives the same model as transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import adapterdock.loader.base.load_base as base_module
import pytest
import torch
from adapterdock.loader.base.load_base import load_base
from adapterdock.loader.base.streamed_load import converting_options, tensors_on_disk
from adapterdock.manifests.language.schema import Base
from safetensors.torch import load_file, save_file
from support.peft_adapters import ids
from support.shelf import Shelf, sharded
from support.tiny_models import tiny_model

KINDS = [
    "llama tied",
    "llama for sequences",
    "gpt2",
    "bert for sequences",
    "t5",
    "bart",
    "mixtral",
    "gemma3",
    "vit",
    "whisper",
    "mamba",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("written", [True, False])
def test_a_converted_load_equals_transformers_load(
    kind: str, written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values, dtypes (some stay in float32), buffers, configs and findings, with and without a
    generation_config.json."""
    tiny_model(kind).save_pretrained(tmp_path)
    if not written:
        (tmp_path / "generation_config.json").unlink(missing_ok=True)
    used: list[bool] = []

    def noted(*given: Any) -> Any:
        used.append(converting_options(*given) is not None)
        return converting_options(*given)

    monkeypatch.setattr(base_module, "converting_options", noted)
    ours = everything(*load_base(Base(dtype="bfloat16"), tmp_path))
    assert used == [True]
    monkeypatch.setattr(base_module, "converting_options", lambda *given: None)
    theirs = everything(*load_base(Base(dtype="bfloat16"), tmp_path))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if isinstance(value, torch.Tensor):
            assert ours[name].dtype is value.dtype, name
            assert torch.equal(ours[name], value), name
        else:
            assert ours[name] == value, name


def everything(model: Any, findings: Any) -> dict[str, Any]:
    generation = getattr(model, "generation_config", None)
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **{f"buffer {name}": buffer for name, buffer in model.named_buffers()},
        "type": type(model),
        "training": model.training,
        "config": model.config.to_dict(),
        "generation": generation and generation.to_dict(),
        "name": (model.name_or_path, model.config._name_or_path),
        "attention": model.config._attn_implementation,
        "findings": [str(finding) for finding in findings],
    }


@pytest.mark.parametrize(
    ("base", "converts"),
    [
        ({}, False),
        ({"dtype": "float32"}, False),
        ({"dtype": "float16"}, True),
        ({"dtype": "bfloat16", "device_map": "auto"}, True),
        ({"dtype": "bfloat16", "device_map": {"": "cpu"}}, True),
        ({"dtype": "bfloat16", "device_map": {"": "disk"}}, False),
        ({"dtype": "bfloat16", "trust_remote_code": True}, False),
        ({"quantization": {"quant_method": "torchao"}}, True),
    ],
)
def test_only_conversions_are_streamed(base: dict[str, Any], converts: bool, shelf: Shelf) -> None:
    from transformers import LlamaForCausalLM

    config = {"torch_dtype": "float32"}
    options = converting_options(LlamaForCausalLM, config, Base(**base), shelf.base)
    assert (options is not None) is converts


def test_a_quantised_checkpoint_is_loaded_by_transformers(shelf: Shelf) -> None:
    from transformers import LlamaForCausalLM

    config = {"dtype": "float32", "quantization_config": {"quant_method": "bitsandbytes"}}
    assert converting_options(LlamaForCausalLM, config, Base(dtype="float16"), shelf.base) is None


def test_shards_and_one_file_load_the_same(shelf: Shelf, tmp_path: Path) -> None:
    one = tensors_on_disk(shelf.base)
    several = tensors_on_disk(sharded(shelf.base, tmp_path / "sharded"))
    assert one.keys() == several.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor[...], several[name][...])
        assert torch.equal(tensor.read(), several[name].read())
    half, _ = load_base(Base(dtype="bfloat16"), tmp_path / "sharded")
    assert half(ids()).logits.dtype is torch.bfloat16


def test_changing_a_mapped_tensor_does_not_change_the_file(tmp_path: Path) -> None:
    """Neither the file nor another reader sees a change."""
    stored = {"a": torch.arange(5.0), "b": torch.ones(3, 2, dtype=torch.bfloat16)}
    stored |= {"c": torch.zeros(0, 4), "d": torch.tensor(7), "e": torch.ones(5, dtype=torch.bool)}
    save_file(stored, tmp_path / "model.safetensors")
    found = tensors_on_disk(tmp_path)
    for name, tensor in stored.items():
        assert found[name].get_shape() == list(tensor.shape)
        first = found[name][...]
        assert first.dtype is tensor.dtype
        assert torch.equal(first, tensor)
        first.zero_()
        assert torch.equal(found[name][...], tensor)
        assert torch.equal(found[name].read(), tensor)
    assert torch.equal(found["a"][1:3], stored["a"][1:3])
    again = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in stored.items())


def test_a_misaligned_tensor_is_read_correctly(tmp_path: Path) -> None:
    """The format allows it: a byte before floats."""
    import json
    import struct

    values = torch.arange(4.0)
    header = {
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "b": {"dtype": "F32", "shape": [4], "data_offsets": [1, 17]},
    }
    text = json.dumps(header).encode()
    data = struct.pack("<Q", len(text)) + text + b"\1" + bytes(values.numpy().tobytes())
    (tmp_path / "model.safetensors").write_bytes(data)
    found = tensors_on_disk(tmp_path)
    assert torch.equal(found["b"][...], values)
    assert torch.equal(found["b"].read(), values)
