"""Loading a base: its class, its options, its original values, and warnings."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.base.checkpoint_weights import Originals
from adapterdock.loader.base.load_base import load_base, offloads_to_disk
from adapterdock.loader.base.model_class import class_of
from adapterdock.loader.base.transformers_log import quiet
from adapterdock.loader.generate_text import load_tokenizer
from adapterdock.loader.load import load
from adapterdock.manifests.findings.errors import AttachError
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.language.schema import Base
from safetensors.torch import load_file
from support.near import close, differs
from support.peft_adapters import ids, logits
from support.shelf import Shelf, manifest_of, write_manifest
from support.tiny_models import tiny_model
from transformers.utils import logging as transformers_logging


def test_a_parameter_that_is_not_in_the_checkpoint_cannot_be_an_original(
    shelf: Shelf, tmp_path: Path
) -> None:
    model = shelf.model().bfloat16()
    originals = Originals(model, shelf.base, Where())
    assert originals["model.norm.weight"].dtype is torch.float32
    model.model.norm.weight.data += 1
    with pytest.raises(AttachError) as caught:
        originals["model.norm.weight"]
    assert caught.value.code == "AD791"


@pytest.mark.parametrize("names", [None, [], ["NoSuchForCausalLM"], ["AutoTokenizer"], [7]])
def test_a_checkpoint_without_a_class_is_refused(
    names: object, shelf: Shelf, tmp_path: Path
) -> None:
    with pytest.raises(AttachError) as caught:
        class_of({"model_type": "llama", "architectures": names}, False, Where())
    assert caught.value.code == "AD786"


@pytest.mark.parametrize(
    ("level", "theirs"), [(logging.WARNING, ["theirs", "later"]), (logging.ERROR, [])]
)
def test_only_warnings_of_this_thread_are_collected_at_any_level(
    level: int, theirs: list[str]
) -> None:
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    root = transformers_logging.get_logger("transformers")
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        with quiet() as said:
            root.warning("mine")
            root.warning("mine")
            thread = threading.Thread(target=root.warning, args=("theirs",))
            thread.start()
            thread.join()
        root.warning("later")
        assert root.level == level
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
    assert said == ["mine"]
    assert heard == theirs


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("llama tied", "lm_head"),
        ("gpt2", "transformer.ln_f"),
        ("bert for sequences", "classifier"),
        ("t5", "encoder.final_layer_norm"),
        ("mixtral", "model.norm"),
    ],
)
def test_originals_are_found_in_any_architectures_checkpoint(
    kind: str, name: str, tmp_path: Path
) -> None:
    model = tiny_model(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(tmp_path)
    live = type(model).from_pretrained(tmp_path, dtype=torch.bfloat16)
    originals = Originals(live, tmp_path, Where())
    exact = dict(model.named_parameters(remove_duplicate=False))
    for path, _ in live.get_submodule(name).named_parameters():
        assert torch.equal(originals[f"{name}.{path}"], exact[f"{name}.{path}"])


def test_originals_of_a_backbone_from_a_checkpoint_with_a_head(
    shelf: Shelf,
) -> None:
    from transformers import AutoModel

    live = AutoModel.from_pretrained(shelf.base, dtype=torch.float16)
    found = Originals(live, shelf.base, Where())["norm.weight"]
    assert found.dtype is torch.float32


@pytest.mark.parametrize(
    ("device_map", "may"),
    [(None, False), ("cpu", False), ("auto", True), ({"": "cpu"}, False), ({"a": "disk"}, True)],
)
def test_device_maps_that_may_need_the_disk(device_map: Any, may: bool) -> None:
    assert offloads_to_disk(Base(device_map=device_map)) is may


def test_the_finding_contains_transformers_error(shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(shelf.base, folder)
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(AttachError) as caught:
        load_base(Base(), folder)
    assert caught.value.code == "AD782"
    assert type(caught.value.__cause__).__name__ in (caught.value.findings[0].found or "")


# -- quantised ------------------------------------------------------------------------------

INT8 = {
    "quant_method": "torchao",
    "quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_version": 2, "_data": {}}},
}


def test_a_lora_on_a_quantised_base_equals_a_hook(shelf: Shelf, tmp_path: Path) -> None:
    base = {"model": shelf.base, "dtype": "float32", "quantization": INT8}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load(manifest_of(shelf, tmp_path, base=base))
    quantised = model.base_model.model.layers[0].self_attn.q_proj.weight
    assert type(quantised).__module__.startswith("torchao")
    assert {p.dtype for p in model._host.adapters.by_name["one"].resident.parameters.values()} == {
        torch.float32
    }
    plain = logits(model.base_model)
    assert (plain - shelf.plain).abs().max() < 0.2
    assert not torch.equal(plain, shelf.plain)
    mine = logits(model, adapter="one")
    assert close(mine, hooked(model.base_model, shelf.one.folder, ids()))
    assert torch.equal(logits(model.base_model), plain)


def hooked(base: Any, folder: Path, input_ids: torch.Tensor) -> torch.Tensor:
    """The textbook LoRA: one hook per module that adds ``scale * B A x``."""
    tensors = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    handles: list[Any] = []
    for key, a in tensors.items():
        if not key.endswith(".lora_A.weight"):
            continue
        name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        b = tensors[key.replace("lora_A", "lora_B")]

        def add(_: Any, args: Any, out: Any, a: Any = a, b: Any = b) -> Any:
            return out + scale * (args[0] @ a.T @ b.T)

        handles.append(base.get_submodule(name).register_forward_hook(add))
    try:
        return logits(base, {"input_ids": input_ids})
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize(
    "declared", [{"load_in_8bit": True}, {"quant_method": "no-such"}, {"quant_method": "torchao"}]
)
def test_a_quantisation_that_transformers_rejects_is_reported(
    declared: dict[str, Any], shelf: Shelf
) -> None:
    with pytest.raises(AttachError) as caught:
        load_base(Base(quantization=declared), shelf.base)
    assert caught.value.code == "AD784"


@pytest.mark.slow
def test_a_quantised_smollm2_runs_with_an_adapter(smollm2: Path, tmp_path: Path) -> None:
    pirate = Path(adapterdock.__path__[0]) / "manifests" / "quickstart" / "pirate"
    manifest = write_manifest(
        tmp_path,
        base={
            "model": smollm2,
            "aliases": ["HuggingFaceTB/SmolLM2-135M-Instruct"],
            "dtype": "float32",
            "quantization": INT8,
        },
        adapters={"pirate": {"source": pirate}},
    )
    model = load(manifest)
    tokens = load_tokenizer(model)("The capital of Germany is", return_tensors="pt").input_ids
    mine = logits(model, {"input_ids": tokens}, adapter="pirate")
    theirs = hooked(model.base_model, pirate, tokens)
    assert close(mine, theirs)
    assert differs(mine, logits(model.base_model, {"input_ids": tokens}), 0.1)
