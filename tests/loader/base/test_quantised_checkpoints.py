"""Bases whose checkpoint on disk is quantised, loaded on a CPU: the files give the live modules,
and an adapter from a manifest gives PEFT's logits on the same base.

bitsandbytes and torchao compute with the packed weights; FP8 and mxfp4 are unpacked at loading.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import adapterdock
import peft
import pytest
import torch
import transformers
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.base.layout import layout_of_model
from adapterdock.loader.base.load_base import load_base
from adapterdock.manifests.findings import fingerprint as fingerprint_codes
from adapterdock.manifests.findings import fit as codes
from adapterdock.manifests.findings.errors import AdapterdockError, FingerprintError
from adapterdock.manifests.findings.finding import Severity, Where
from adapterdock.manifests.language.schema import Base
from adapterdock.manifests.language.source import Source
from adapterdock.registry.files.facts import Layout
from adapterdock.registry.read_facts import gather_base
from adapterdock.registry.sources.open import open_source
from safetensors.torch import load_file, save_file
from support.near import close
from support.peft_adapters import inputs_of, logits, peft_saves, tiny_llama
from support.table_version import newest_transformers
from torch import Tensor
from transformers.quantizers.auto import AutoQuantizationConfig

WORDS = {"vocab_size": 61, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 2}
WIDE = {**WORDS, **HEADS, "hidden_size": 128, "intermediate_size": 192}
Rewrite = Callable[[str, Tensor], dict[str, Tensor]]


def llama() -> Any:
    return tiny_llama(**WIDE)


def gpt2() -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(**WORDS, n_embd=64, n_layer=1, n_head=2, n_positions=32)
    return transformers.GPT2LMHeadModel(config).eval()


def mixtral() -> Any:
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        **WORDS, **HEADS, hidden_size=64, intermediate_size=64, num_local_experts=2
    )
    return transformers.MixtralForCausalLM(config).eval()


def qwen3_moe() -> Any:
    torch.manual_seed(0)
    config = transformers.Qwen3MoeConfig(
        **WORDS,
        **HEADS,
        hidden_size=64,
        intermediate_size=64,
        moe_intermediate_size=32,
        head_dim=32,
        num_experts=4,
        num_experts_per_tok=2,
    )
    return transformers.Qwen3MoeForCausalLM(config).eval()


def gpt_oss() -> Any:
    torch.manual_seed(0)
    config = transformers.GptOssConfig(
        **WORDS,
        **HEADS,
        hidden_size=64,
        intermediate_size=32,
        head_dim=32,
        num_local_experts=4,
        num_experts_per_tok=2,
        layer_types=["full_attention"] * 2,
    )
    return transformers.GptOssForCausalLM(config).eval()


def in_fp8(name: str, tensor: Tensor) -> dict[str, Tensor]:
    if not name.endswith("proj.weight"):
        return {name: tensor}
    blocks = (-(-size // 32) for size in tensor.shape)
    packed = (tensor / 0.01).clamp(-400, 400).to(torch.float8_e4m3fn)
    return {name: packed, f"{name}_scale_inv": torch.full(tuple(blocks), 0.01)}


def in_mxfp4(name: str, tensor: Tensor) -> dict[str, Tensor]:
    if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
        return {name: tensor}
    experts, inner, out = tensor.shape
    seed = torch.Generator().manual_seed(out)
    size = (experts, out, inner // 32, 16)
    return {
        f"{name}_blocks": torch.randint(0, 255, size, dtype=torch.uint8, generator=seed),
        f"{name}_scales": torch.full(size[:3], 122, dtype=torch.uint8),
    }


def torchao(name: str, **data: Any) -> dict[str, Any]:
    kind = {"_type": name, "_version": 2, "_data": data}
    return {"quant_method": "torchao", "quant_type": {"default": kind}}


FP8 = {"quant_method": "fp8", "weight_block_size": [32, 32], "activation_scheme": "dynamic"}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
INT8 = {"quant_method": "bitsandbytes", "load_in_8bit": True}
BASES: dict[str, tuple[Callable[[], Any], Mapping[str, Any], Rewrite | None]] = {
    "nf4": (llama, NF4, None),
    "nf4, scales quantised too": (llama, {**NF4, "bnb_4bit_use_double_quant": True}, None),
    "fp4 in bfloat16": (
        llama,
        {**NF4, "bnb_4bit_quant_type": "fp4", "bnb_4bit_quant_storage": "bfloat16"},
        None,
    ),
    "nf4, tied": (lambda: tiny_llama(**WIDE, tie_word_embeddings=True), NF4, None),
    "nf4, conv1d": (gpt2, NF4, None),
    "nf4, experts": (mixtral, NF4, None),
    "int8": (llama, INT8, None),
    "int8, conv1d": (gpt2, INT8, None),
    "torchao int8": (llama, torchao("Int8WeightOnlyConfig"), None),
    "torchao int8, head too": (
        llama,
        {**torchao("Int8WeightOnlyConfig"), "include_input_output_embeddings": True},
        None,
    ),
    "torchao int4": (
        llama,
        torchao(
            "IntxWeightOnlyConfig",
            weight_dtype={"_type": "torch.dtype", "_data": "int4"},
            granularity={"_type": "PerGroup", "_version": 1, "_data": {"group_size": 32}},
        ),
        None,
    ),
    "torchao float8": (llama, torchao("Float8WeightOnlyConfig"), None),
    "fp8": (llama, FP8, in_fp8),
    "fp8, experts": (qwen3_moe, FP8, in_fp8),
    "mxfp4": (gpt_oss, {"quant_method": "mxfp4"}, in_mxfp4),
}
UNPACKED = ("fp8", "fp8, experts", "mxfp4")
PARAMETERS = {"fp8, experts": ["experts.down_proj"], "mxfp4": ["experts.down_proj"]}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a quantised checkpoint by its name in ``BASES``, made once."""
    root = tmp_path_factory.mktemp("quantised")

    def make(name: str) -> Path:
        folder, full = root / name, root / f"{name}, full"
        if folder.exists():
            return folder
        build, quantisation, rewrite = BASES[name]
        model = build()
        model.save_pretrained(full)
        if rewrite is None:
            config = AutoQuantizationConfig.from_dict(dict(quantisation))
            type(model).from_pretrained(full, quantization_config=config).save_pretrained(folder)
            return folder
        folder.mkdir()
        tensors: dict[str, Tensor] = {}
        for key, tensor in load_file(full / "model.safetensors").items():
            tensors |= rewrite(key, tensor)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        written = json.loads((full / "config.json").read_text())
        written["quantization_config"] = quantisation
        (folder / "config.json").write_text(json.dumps(written))
        return folder

    return make


def loaded(folder: Path) -> Any:
    return load_base(Base(dtype="float32"), folder)[0]


def adapter_for(name: str, model: Any, folder: Path) -> Path:
    """A LoRA on attention, and on the experts where they are unpacked."""
    targets = ["c_attn"] if "conv1d" in name else ["q_proj", "v_proj"]
    more = {"target_parameters": PARAMETERS[name]} if name in PARAMETERS else {}
    peft_saves(model, folder, target_modules=targets, **more)
    return folder


def write_manifest(folder: Path, base: Path, adapter: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "adapters.yaml"
    data = {
        "version": 1,
        "base": {"model": str(base), "dtype": "float32"},
        "adapters": {"it": {"source": str(adapter)}},
        "active": "it",
    }
    path.write_text(json.dumps(data))
    return path


def layout_of_files(folder: Path) -> Layout:
    where = Where()
    opened = open_source(Source.parse(str(folder)), directory=folder, where=where)
    layout = gather_base(opened, where).layout
    assert layout is not None
    return layout


@pytest.mark.parametrize("name", BASES)
def test_the_files_give_the_modules_of_the_live_model(
    name: str, folders: Callable[[str], Path]
) -> None:
    got, live = layout_of_files(folders(name)), layout_of_model(loaded(folders(name)))
    assert got.modules == live.modules
    assert (got.tied, got.output_modules) == (live.tied, live.output_modules)
    assert got.packed


@pytest.mark.parametrize("name", BASES)
def test_an_adapter_equals_pefts_on_the_same_checkpoint(
    name: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    base = folders(name)
    adapter = adapter_for(name, loaded(base), tmp_path / "adapter")
    manifest = write_manifest(tmp_path / "desk", base, adapter)
    found = {finding.code for finding in adapterdock.validate(manifest).findings}
    unchecked = {codes.WEIGHT_QUANTISED.id} if name in PARAMETERS else set[str]()
    assert found - {codes.RECORDED_NONE.id} == {codes.BASE_QUANTISED.id} | unchecked
    adapterdock.lock(manifest, accept=sorted(unchecked))
    adapterdock.pull(manifest)
    model = adapterdock.load(manifest, accept=sorted(unchecked))
    answer = logits(model)
    oracle = peft.PeftModel.from_pretrained(loaded(base), adapter).eval()
    assert close(answer, logits(oracle, inputs_of(model.base_model)))
    assert (answer - logits(model.base_model)).abs().max() > 0.05


@pytest.mark.parametrize("name", ["nf4", "int8", "torchao int8", *UNPACKED])
def test_an_adapter_saved_on_the_checkpoint_is_recognised(
    name: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    base = folders(name)
    adapter = adapter_for(name, loaded(base), tmp_path / "adapter")
    first = write_manifest(tmp_path / "first", base, adapter)
    accept = [codes.WEIGHT_QUANTISED.id]
    model = adapterdock.load(first, accept=accept)
    model.save_adapter(tmp_path / "saved", "it")
    second = write_manifest(tmp_path / "second", base, tmp_path / "saved")
    found = [f for f in adapterdock.validate(second).findings if f.severity is Severity.ERROR]
    assert found == []
    assert torch.equal(logits(adapterdock.load(second, accept=accept)), logits(model))


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=newest_transformers if one == "mxfp4" else ()) for one in UNPACKED],
)
def test_a_base_unpacked_at_loading_is_compared_by_its_unpacked_tensors(
    name: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its weights differ from the file's values, but it is the same base."""
    base = folders(name)
    live = loaded(base)
    manifest = write_manifest(tmp_path, base, adapter_for(name, live, tmp_path / "adapter"))
    accept = [codes.WEIGHT_QUANTISED.id]
    with pytest.raises(FingerprintError) as caught:
        adapterdock.attach(live, manifest, accept=accept)
    findings = {finding.code for finding in caught.value.findings}
    assert findings <= {
        fingerprint_codes.STRUCTURE_UNCHECKED.id,
        fingerprint_codes.WEIGHTS_PARTLY.id,
    }
    accept += sorted(findings)
    adapterdock.attach(live, manifest, accept=accept).detach()
    with torch.no_grad():
        live.get_input_embeddings().weight.mul_(1.01)
    with pytest.raises(FingerprintError) as caught:
        adapterdock.attach(live, manifest, accept=accept)
    assert fingerprint_codes.WEIGHTS.id in {finding.code for finding in caught.value.findings}


CASES: dict[str, dict[str, Any]] = {
    "all linears": {"target_modules": "all-linear"},
    "dora": {"target_modules": ["q_proj"], "use_dora": True},
    "dora on the head": {"target_modules": ["lm_head"], "use_dora": True},
    "saved head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "saved projection": {"target_modules": ["q_proj"], "modules_to_save": ["v_proj"]},
    "saved block": {"target_modules": ["q_proj"], "modules_to_save": ["mlp"]},
    "saved norm": {"target_modules": ["q_proj"], "modules_to_save": ["input_layernorm"]},
    "weight by name": {"target_modules": [], "target_parameters": ["q_proj.weight"]},
    "head": {"target_modules": ["lm_head"]},
    "embedding": {"target_modules": ["embed_tokens"]},
    "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [1, 2]},
    "ia3": {
        "kind": peft.IA3Config,
        "target_modules": ["k_proj", "down_proj"],
        "feedforward_modules": ["down_proj"],
    },
    "loha": {"kind": peft.LoHaConfig, "target_modules": ["q_proj"], "r": 2},
    "vera": {"kind": peft.VeraConfig, "target_modules": ["q_proj"], "r": 4},
}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapters of ``CASES``, trained on the unquantised base."""
    root = tmp_path_factory.mktemp("adapters")
    for case, config in CASES.items():
        peft_saves(llama(), root / case, **config)
    return root


@pytest.mark.parametrize("name", ["nf4", "int8", "torchao int8, head too", "fp8"])
def test_adapters_that_validate_can_be_attached(
    name: str, folders: Callable[[str], Path], adapters: Path, tmp_path: Path
) -> None:
    """An adapter that attach refuses was at least unchecked before."""
    base = folders(name)
    model = AdaptedModel(loaded(base))
    for case in CASES:
        manifest = write_manifest(tmp_path / case, base, adapters / case)
        report = adapterdock.validate(manifest)
        try:
            model.load_adapter(adapters / case, "it")
        except AdapterdockError as error:
            assert report.exit_status == 3, (case, str(error))
        else:
            assert not any(f.severity is Severity.ERROR for f in report.findings), case
            model.set_adapter("it")
            logits(model)
            model.delete_adapter("it")


@pytest.mark.parametrize("case", ["saved head", "head"])
def test_a_saved_module_replaces_a_packed_one(
    case: str, folders: Callable[[str], Path], adapters: Path
) -> None:
    """The logits equal those of a base with the plain weight. PEFT stores an adapted head, with its
    original values, next to the factors."""
    stored = {
        name.removeprefix("base_model.model.lm_head."): tensor
        for name, tensor in load_file(adapters / case / "adapter_model.safetensors").items()
    }
    model = AdaptedModel(loaded(folders("torchao int8, head too")))
    model.load_adapter(adapters / case, "it")
    model.set_adapter("it")
    states: list[Tensor] = []
    norm = model.base_model.model.norm
    handle = norm.register_forward_hook(lambda module, args, out: states.append(out))
    answer = logits(model)
    handle.remove()
    weight = stored["weight"] if case == "saved head" else stored["base_layer.weight"]
    if case == "head":
        config = json.loads((adapters / case / "adapter_config.json").read_text())
        scale = config["lora_alpha"] / config["r"]
        weight = weight + scale * stored["lora_B.weight"] @ stored["lora_A.weight"]
    assert close(answer, states[-1] @ weight.T)


def test_an_adapter_trained_on_4_bits_fits_both_bases(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    quantised = folders("nf4")
    full = quantised.with_name("nf4, full")
    adapter = adapter_for("nf4", loaded(quantised), tmp_path / "adapter")
    for base in (full, quantised):
        report = adapterdock.validate(write_manifest(tmp_path, base, adapter))
        assert report.exit_status == 0
