"""Adapters with the names and layouts of older versions of transformers act as they did then."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import adapterdock
import pytest
import torch
import transformers as tf
import yaml
from adapterdock.loader.adapted import AdaptedModel
from adapterdock.loader.merge_files import merge_to_folder
from adapterdock.manifests.findings.errors import AdapterdockError
from safetensors.torch import load_file, save_file
from support.near import as_near_as, close, differs
from support.older_names import Older, differences, older, pair, write
from support.tiny_models import CLIP_TEXT, COMMON, LLAMA_TEXT, VISION, tiny_model
from torch import nn

CLIP_VISION = {"model_type": "clip_vision_model", **VISION}
QWEN_VISION = {"depth": 2, "embed_dim": 32, "num_heads": 4, "patch_size": 4, "hidden_size": 32}


def _qwen2_5_vl() -> nn.Module:
    vision = {"depth": 2, "hidden_size": 32, "num_heads": 4, "patch_size": 4, "out_hidden_size": 32}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text = {**COMMON, "rope_parameters": rope, "vocab_size": 64}
    config = tf.Qwen2_5_VLConfig(
        text_config=text,
        vision_config={**vision, "intermediate_size": 48, "fullatt_block_indexes": [1]},
        vision_start_token_id=60,
        vision_end_token_id=61,
        image_token_id=62,
        video_token_id=63,
    )
    return tf.Qwen2_5_VLForConditionalGeneration(config)


def _mllama() -> nn.Module:
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    text = {**COMMON, "cross_attention_layers": [1], "rope_parameters": rope}
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 4,
        "image_size": 16,
        "patch_size": 4,
        "vision_output_dim": 64,
        "intermediate_layers_indices": [0],
        "supported_aspect_ratios": [[1, 1]],
        "max_num_tiles": 1,
    }
    return tf.MllamaForConditionalGeneration(
        tf.MllamaConfig(text_config=text, vision_config=vision, image_token_index=63)
    )


def _llava_like(kind: str, **more: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        settings = {"text_config": LLAMA_TEXT, "vision_config": CLIP_VISION, **more}
        config = getattr(tf, f"{kind}Config")(**settings)
        return getattr(tf, f"{kind}ForConditionalGeneration")(config)

    return make


def _internvl() -> nn.Module:
    vision = {**VISION, "image_size": [16, 16], "patch_size": [4, 4]}
    text = {"model_type": "qwen2", **COMMON}
    return tf.InternVLForConditionalGeneration(
        tf.InternVLConfig(text_config=text, vision_config=vision, image_token_id=63)
    )


def _mistral3() -> nn.Module:
    vision = {"model_type": "pixtral", **VISION, "head_dim": 8}
    text = {"model_type": "mistral", **COMMON, "head_dim": 8}
    return tf.Mistral3ForConditionalGeneration(
        tf.Mistral3Config(text_config=text, vision_config=vision, image_token_index=63)
    )


def _onevision() -> nn.Module:
    vision = {"model_type": "siglip_vision_model", "vision_use_head": False, **VISION}
    text = {"model_type": "qwen2", **COMMON}
    return tf.LlavaOnevisionForConditionalGeneration(
        tf.LlavaOnevisionConfig(
            text_config=text, vision_config=vision, image_token_index=62, video_token_index=63
        )
    )


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    **{
        name: (lambda name=name: tiny_model(name))
        for name in (
            "gemma3",
            "phimoe",
            "vit",
            "vit base",
            "deit",
            "beit",
            "dinov2",
            "swin",
            "llava",
            "llava of other parts",
            "paligemma",
            "qwen2_vl",
            "mixtral",
            "qwen2_moe",
            "qwen3_moe",
            "deepseek_v2",
            "deepseek_v3",
            "olmoe",
            "jamba",
        )
    },
    "qwen2_5_vl": _qwen2_5_vl,
    "mllama": _mllama,
    "internvl": _internvl,
    "mistral3": _mistral3,
    "llava_next": _llava_like("LlavaNext", image_token_index=63),
    "llava_next_video": _llava_like("LlavaNextVideo", image_token_index=62, video_token_index=63),
    "llava_onevision": _onevision,
    "video_llava": _llava_like("VideoLlava", image_token_index=62, video_token_index=63),
    "vipllava": _llava_like("VipLlava", image_token_index=63, vision_feature_layers=[-1]),
    "ast": lambda: tf.ASTModel(
        tf.ASTConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_length=32,
            num_mel_bins=16,
        )
    ),
    "vit_mae": lambda: tf.ViTMAEModel(tf.ViTMAEConfig(**VISION)),
    "vivit": lambda: tf.VivitModel(
        tf.VivitConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=16,
            num_frames=4,
            tubelet_size=[2, 8, 8],
        )
    ),
}
"""Whose modules have other names on disk than in memory."""


def a_layer(name: str) -> bool:
    """Not a convolution's flattened kernel, and not what a head's attention never calls."""
    return "patch_embed" not in name and "head.attention" not in name and "pooling" not in name


def merged(one: Older, name: str = "a") -> nn.Module:
    model = AdaptedModel(one.model())
    model.load_adapter(one.adapter, name)
    model.set_adapter(name)
    return model.merge_and_unload()


def manifest(one: Older, folder: Path, **adapter: Any) -> Path:
    config = json.loads((one.adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "org/base"
    (one.adapter / "adapter_config.json").write_text(json.dumps(config))
    base = {"model": str(one.base), "dtype": "float32", "aliases": ["org/base"]}
    said = {"version": 1, "base": base, "adapters": {"a": {"source": str(one.adapter), **adapter}}}
    path = folder / "m.yaml"
    path.write_text(yaml.safe_dump({**said, "active": "a"}))
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_with_older_names_is_the_dense_delta(family: str, tmp_path: Path) -> None:
    one = older(
        FAMILIES[family]().eval(),
        tmp_path,
        names=a_layer,
        exclude_modules=r".*(patch_embed|head\.attention|pooling).*",
    )
    assert one.names
    reference = one.reference(tmp_path / "reference")
    assert differences(one.model(), reference), "the adapter must matter"
    assert differences(merged(one), reference) == {}

    report = adapterdock.validate(manifest(one, tmp_path))
    assert report.ok, report
    assert {f.code for f in report.findings} - {"AD355"} == {"AD305"}


TOWER = ("model.vision_tower.", "vision_tower.vision_model.")
PROJECTOR = ("model.multi_modal_projector.", "multi_modal_projector.")
TEXT = ("model.language_model.", "language_model.model.")
SPELLINGS: dict[str, tuple[Callable[[], nn.Module], list[tuple[str, str]]]] = {
    "llava before 4.52": (FAMILIES["llava"], [TEXT, TOWER, PROJECTOR]),
    "llava before 5": (FAMILIES["llava"], [(TOWER[0], f"model.{TOWER[1]}")]),
    "gemma3 before 4.52": (FAMILIES["gemma3"], [TEXT, TOWER]),
    "gemma3 before 5": (FAMILIES["gemma3"], [(TOWER[0], f"model.{TOWER[1]}")]),
    "paligemma before 4.52": (FAMILIES["paligemma"], [TEXT, TOWER]),
    "qwen2_vl before 4.52": (
        FAMILIES["qwen2_vl"],
        [("model.language_model.", "model."), ("model.visual.", "visual.")],
    ),
    "qwen2_5_vl before 4.52": (
        FAMILIES["qwen2_5_vl"],
        [("model.language_model.", "model."), ("model.visual.", "visual.")],
    ),
    "mllama before 4.52": (
        FAMILIES["mllama"],
        [
            ("model.language_model.", "language_model.model."),
            ("model.vision_model.", "vision_model."),
        ],
    ),
    "clip's text model": (
        lambda: tf.CLIPTextModel(tf.CLIPTextConfig(**CLIP_TEXT)),
        [("", "text_model.")],
    ),
    "clip's vision model": (
        lambda: tf.CLIPVisionModel(tf.CLIPVisionConfig(**VISION)),
        [("", "vision_model.")],
    ),
    "siglip's vision model": (
        lambda: tf.SiglipVisionModel(tf.SiglipVisionConfig(**VISION)),
        [("", "vision_model.")],
    ),
}
"""Bases, and how older versions called what today begins otherwise."""


def todays(model: nn.Module, folder: Path, **config: Any) -> tuple[Path, Path]:
    """A base, and an adapter by today's names on the attention of all of its parts."""
    model.save_pretrained(folder / "base")  # pyright: ignore[reportCallIssue]
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name.endswith((".q_proj", ".v_proj", ".qkv", "linear_1"))
    }
    torch.manual_seed(1)
    tensors: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        tensors |= pair(name, layer.out_features, layer.in_features)
    targets = sorted({name.split(".")[-1] for name in layers})
    write(folder / "today", tensors, {"target_modules": targets, **config})
    return folder / "base", folder / "today"


def respelled(folder: Path, to: Path, changes: list[tuple[str, str]], **config: Any) -> Path:
    """The adapter by the names of before."""

    def old(key: str) -> str:
        name = key.removeprefix("base_model.model.")
        for new, before in changes:
            if name.startswith(new):
                return f"base_model.model.{before}{name[len(new) :]}"
        return key

    shutil.copytree(folder, to)
    tensors = {
        old(key): value for key, value in load_file(to / "adapter_model.safetensors").items()
    }
    save_file(tensors, to / "adapter_model.safetensors", {"format": "pt"})
    said = json.loads((to / "adapter_config.json").read_text())
    (to / "adapter_config.json").write_text(json.dumps({**said, **config}))
    return to


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_names_of_any_version_become_current_names(spelling: str, tmp_path: Path) -> None:
    make, changes = SPELLINGS[spelling]
    base, today = todays(make().eval(), tmp_path)
    before = respelled(today, tmp_path / "before", changes)
    keys = set(load_file(before / "adapter_model.safetensors"))
    assert len(keys - set(load_file(today / "adapter_model.safetensors"))) >= 4
    kind = type(make())
    wanted = merged(Older(kind, base, today, ()))
    assert differences(Older(kind, base, before, ()).model(), wanted)
    assert differences(merged(Older(kind, base, before, ())), wanted) == {}
    if spelling == "siglip's vision model":
        return  # the prefix of its class, which is no matter of versions: kept as the file has it
    saved = tmp_path / "saved"
    model = AdaptedModel(Older(kind, base, before, ()).model())
    model.load_adapter(before, "a")
    model.save_adapter(saved, "a")
    assert set(load_file(saved / "adapter_model.safetensors")) == set(
        load_file(today / "adapter_model.safetensors")
    )


# -- experts, each a module of its own ---------------------------------------------------------


def experts(folder: Path, family: str = "qwen3_moe", **config: Any) -> Older:
    """Factors for every expert's layers, and nothing else."""
    return older(
        tiny_model(family).eval(), folder, names=lambda name: ".experts." in name, **config
    )


def refused(model: Any, adapter: Path) -> set[str]:
    """The codes of what is wrong; the model is as it was."""
    wrapped = AdaptedModel(model)
    with pytest.raises(AdapterdockError) as raised:
        wrapped.load_adapter(adapter, "a")
    assert not wrapped._host.adapters.by_name
    return {f.code for f in raised.value.findings if f.severity.value == "error"}


def edited(one: Older, change: Callable[[dict[str, torch.Tensor]], None], **config: Any) -> Older:
    file, said = one.adapter / "adapter_model.safetensors", one.adapter / "adapter_config.json"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, {"format": "pt"})
    said.write_text(json.dumps({**json.loads(said.read_text()), **config}))
    return one


def without(pattern: str) -> Callable[[dict[str, torch.Tensor]], None]:
    import re

    def change(tensors: dict[str, torch.Tensor]) -> None:
        gone = [key for key in tensors if re.search(pattern, key)]
        assert gone
        for key in gone:
            del tensors[key]

    return change


def unchanged(tensors: dict[str, torch.Tensor]) -> None:
    pass


SOME: dict[str, tuple[str, dict[str, Any]]] = {
    "all of them": ("", {}),
    "by a pattern": ("", {"target_modules": r".*experts\.\d+\.(gate|up|down)_proj"}),
    "by all-linear": ("", {"target_modules": "all-linear"}),
    "two of four": (
        r"experts\.[02]\.",
        {"target_modules": r".*experts\.[13]\.(gate|up|down)_proj"},
    ),
    "the gates alone": (r"(up|down)_proj", {"target_modules": ["gate_proj"]}),
    "up and down": (r"gate_proj", {"target_modules": ["up_proj", "down_proj"]}),
    "one layer": (r"layers\.0\.", {"layers_to_transform": [1]}),
    "one expert's gate": (
        r"layers\.0|up_proj|down_proj|experts\.[012]",
        {"target_modules": ["model.layers.1.mlp.experts.3.gate_proj"]},
    ),
    "all but excluded ones": (r"experts\.1\.", {"exclude_modules": r".*experts\.1\..*"}),
    "with a root of the rank": ("", {"use_rslora": True}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("some", SOME)
def test_adapted_experts_become_one_pair_of_factors(some: str, tmp_path: Path) -> None:
    gone, config = SOME[some]
    model = tiny_model("qwen3_moe").eval()
    one = older(model, tmp_path) if some == "by all-linear" else experts(tmp_path)
    edited(one, without(gone) if gone else unchanged, **config)
    reference = one.reference(tmp_path / "reference")
    assert differences(one.model(), reference)
    assert differences(merged(one), reference) == {}
    assert adapterdock.validate(manifest(one, tmp_path)).ok


@pytest.mark.filterwarnings("ignore")
def test_experts_of_their_own_ranks_and_alphas_are_exact(tmp_path: Path) -> None:
    one = experts(tmp_path)
    torch.manual_seed(2)

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for key in [k for k in tensors if "experts.1.gate_proj.lora_A" in k]:
            b = key.replace("lora_A", "lora_B")
            tensors[key] = torch.randn(5, tensors[key].shape[1])
            tensors[b] = torch.randn(tensors[b].shape[0], 5)

    edited(
        one,
        change,
        rank_pattern={r"experts.1.gate_proj": 5},
        alpha_pattern={"up_proj": 9, "experts.2.down_proj": 1},
    )
    reference = one.reference(tmp_path / "reference")
    assert differences(merged(one), reference) == {}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek_v3"])
def test_live_answers_are_those_of_the_dense_delta(family: str, tmp_path: Path) -> None:
    one = older(tiny_model(family).eval(), tmp_path, names=a_layer)
    x = torch.arange(3, 12)[None]
    model = AdaptedModel(one.model())
    model.load_adapter(one.adapter, "a")
    with torch.no_grad():
        dense = one.reference(tmp_path / "reference")(input_ids=x).logits
        exact = one.reference(tmp_path / "exact", torch.float64)(input_ids=x).logits
        alone = model(input_ids=x).logits
        assert as_near_as(model(input_ids=x, adapter="a").logits, dense, exact)
    assert differs(alone, dense, 1e-2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "olmoe"])
def test_a_saved_new_adapter_gives_the_same_output_in_peft(family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    one = experts(tmp_path, family)
    x = torch.arange(3, 12)[None]
    model = AdaptedModel(one.model())
    model.load_adapter(one.adapter, "a")
    model.save_adapter(tmp_path / "saved", "a")
    with torch.no_grad():
        ours = model(input_ids=x, adapter="a").logits
        before = PeftModel.from_pretrained(one.model(), one.adapter).eval()(input_ids=x).logits
        after = PeftModel.from_pretrained(one.model(), tmp_path / "saved").eval()
        assert close(ours, before)
        assert close(ours, after(input_ids=x).logits)
    again = AdaptedModel(one.model())
    again.load_adapter(tmp_path / "saved", "a")
    with torch.no_grad():
        assert torch.equal(again(input_ids=x, adapter="a").logits, ours)
    codes = {
        f.code for f in adapterdock.validate(manifest(replaced(one, tmp_path), tmp_path)).findings
    }
    assert "AD305" not in codes


def replaced(one: Older, folder: Path) -> Older:
    """The adapter that was saved in its place."""
    return Older(one.kind, one.base, folder / "saved", ())


def test_an_expert_without_factors_makes_the_adapter_incomplete(tmp_path: Path) -> None:
    one = edited(experts(tmp_path), without(r"layers\.1\.mlp\.experts\.2\.up_proj"))
    assert refused(one.model(), one.adapter) == {"AD333"}


def test_a_layer_of_experts_without_factors_makes_the_adapter_incomplete(tmp_path: Path) -> None:
    one = edited(experts(tmp_path), without(r"layers\.1\."))
    assert refused(one.model(), one.adapter) == {"AD333"}


def test_experts_that_the_config_leaves_out_are_reported(tmp_path: Path) -> None:
    one = edited(experts(tmp_path), unchanged, target_modules=["gate_proj", "up_proj"])
    assert refused(one.model(), one.adapter) == {"AD334"}


def test_more_experts_than_the_base_has_are_missing_modules(tmp_path: Path) -> None:
    one = experts(tmp_path)
    few = tiny_model("qwen3_moe", {"num_experts": 2}).eval()
    assert "AD342" in refused(few, one.adapter)


def test_fewer_experts_than_the_base_has_make_the_adapter_incomplete(tmp_path: Path) -> None:
    one = experts(tmp_path)
    many = tiny_model("qwen3_moe", {"num_experts": 6}).eval()
    assert refused(many, one.adapter) == {"AD333"}


def test_a_rank_missing_from_the_config_is_reported_before_factors_are_joined(
    tmp_path: Path,
) -> None:
    one = edited(experts(tmp_path), unchanged, r=4)
    assert "AD336" in refused(one.model(), one.adapter)


def test_experts_of_another_width_are_refused(tmp_path: Path) -> None:
    one = experts(tmp_path)
    other = tiny_model("qwen3_moe", {"moe_intermediate_size": 20}).eval()
    assert refused(other, one.adapter) == {"AD304"}


def test_dora_of_single_experts_has_no_form_today(tmp_path: Path) -> None:
    one = experts(tmp_path)

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for key in [k for k in tensors if k.endswith("lora_B.weight")]:
            name = key.removesuffix("lora_B.weight")
            tensors[f"{name}lora_magnitude_vector"] = torch.ones(tensors[key].shape[0])

    edited(one, change, use_dora=True)
    assert refused(one.model(), one.adapter) == {"AD304"}


def test_ia3_of_single_experts_has_no_form_today(tmp_path: Path) -> None:
    one = experts(tmp_path)
    tensors = {
        f"base_model.model.{name}.ia3_l": torch.rand(24, 1)
        for name in one.names
        if name.endswith("gate_proj")
    }
    config = {"peft_type": "IA3", "target_modules": ["gate_proj"], "feedforward_modules": []}
    write(tmp_path / "ia3", tensors, config)
    assert refused(one.model(), tmp_path / "ia3") == {"AD304"}


def test_the_same_module_by_both_of_its_names_is_ambiguous(tmp_path: Path) -> None:
    base, today = todays(tiny_model("llava").eval(), tmp_path)
    one = Older(type(tiny_model("llava")), base, today, ())

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for key in [k for k in tensors if ".language_model." in k]:
            tensors[key.replace(TEXT[0], TEXT[1])] = tensors[key] * 2

    edited(one, change)
    assert refused(one.model(), one.adapter) == {"AD306"}


@pytest.mark.filterwarnings("ignore")
def test_current_and_older_names_may_be_in_one_file(tmp_path: Path) -> None:
    base, today = todays(tiny_model("llava").eval(), tmp_path)
    kind = type(tiny_model("llava"))
    wanted = merged(Older(kind, base, today, ()))
    mixed = respelled(today, tmp_path / "mixed", [(f"{TEXT[0]}layers.0.", f"{TEXT[1]}layers.0.")])
    assert differences(merged(Older(kind, base, mixed, ())), wanted) == {}


def test_a_name_of_no_version_is_missing_from_every_base(tmp_path: Path) -> None:
    base, today = todays(tiny_model("llava").eval(), tmp_path)
    odd = respelled(today, tmp_path / "odd", [(f"{TEXT[0]}layers.0.", "somewhere.else.")])
    assert "AD342" in refused(Older(type(tiny_model("llava")), base, odd, ()).model(), odd)


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_with_current_names_is_not_converted(tmp_path: Path) -> None:
    base, today = todays(tiny_model("llava").eval(), tmp_path)
    one = Older(type(tiny_model("llava")), base, today, ())
    assert {f.code for f in adapterdock.validate(manifest(one, tmp_path)).findings} == set()
    model = AdaptedModel(one.model())
    model.load_adapter(today, "a")
    said = json.loads((today / "adapter_config.json").read_text())
    assert model._host.adapters.by_name["a"].config["target_modules"] == said["target_modules"]


# -- other methods, and what an adapter has beside factors --------------------------------------

VIT = [
    ("vit.layers.", "vit.encoder.layer."),
    (".attention.q_proj", ".attention.attention.query"),
    (".attention.v_proj", ".attention.attention.value"),
    (".mlp.fc1", ".intermediate.dense"),
]


def in_old_words(text: str, changes: list[tuple[str, str]]) -> str:
    for new, before in changes:
        text = text.replace(new, before)
    return text


def as_before(folder: Path, to: Path, changes: list[tuple[str, str]], **config: Any) -> Path:
    """A whole adapter of PEFT's, with the words of before in its keys and its config."""
    to.mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        shutil.copy(folder / name, to / name)
    tensors = load_file(to / "adapter_model.safetensors")
    tensors = {in_old_words(key, changes): value for key, value in tensors.items()}
    save_file(tensors, to / "adapter_model.safetensors", {"format": "pt"})
    said = json.loads((to / "adapter_config.json").read_text())
    (to / "adapter_config.json").write_text(json.dumps({**said, **config}))
    return to


def made_by_peft(model: nn.Module, folder: Path, config: Any) -> Path:
    from peft import get_peft_model

    torch.manual_seed(3)
    wrapped = get_peft_model(model, config)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    wrapped.save_pretrained(folder)
    return folder


def peft_methods() -> dict[str, tuple[Any, dict[str, Any]]]:
    import peft

    two: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"]}
    both: dict[str, Any] = {"target_modules": ["query", "value"]}
    return {
        "LORA with DoRA": (peft.LoraConfig(r=2, use_dora=True, **two), both),
        "LORA by a pattern": (
            peft.LoraConfig(r=2, target_modules=r"vit\.layers\.\d\.attention\.(q|v)_proj"),
            {"target_modules": r"vit\.encoder\.layer\.\d\.attention\.attention\.(query|value)"},
        ),
        "LORA of ranks of their own": (
            peft.LoraConfig(
                r=2,
                rank_pattern={"layers.1.attention.q_proj": 3},
                alpha_pattern={r"layers\.0\.attention\.v_proj": 20},
                **two,
            ),
            {
                "rank_pattern": {"layer.1.attention.attention.query": 3},
                "alpha_pattern": {r"layer\.0\.attention\.attention\.value": 20},
                **both,
            },
        ),
        "LORA in some layers": (
            peft.LoraConfig(r=2, layers_to_transform=[1], layers_pattern="layers", **two),
            {"layers_pattern": "layer", **both},
        ),
        "LORA beside a head": (
            peft.LoraConfig(r=2, modules_to_save=["classifier"], **two),
            both,
        ),
        "LORA beside a whole layer": (
            peft.LoraConfig(r=2, modules_to_save=["layers.1.mlp.fc1"], **two),
            {"modules_to_save": ["layer.1.intermediate.dense"], **both},
        ),
        "LORA with biases": (peft.LoraConfig(r=2, bias="all", **two), both),
        "LORA with biases of its own": (peft.LoraConfig(r=2, bias="lora_only", **two), both),
        "IA3": (
            peft.IA3Config(target_modules=["q_proj", "fc1"], feedforward_modules=["fc1"]),
            {
                "target_modules": ["query", "intermediate.dense"],
                "feedforward_modules": ["intermediate.dense"],
            },
        ),
        "LOHA": (peft.LoHaConfig(r=2, **two), both),
        "LOKR": (
            peft.LoKrConfig(r=2, rank_pattern={"q_proj": 3}, **two),
            {"rank_pattern": {"query": 3}, **both},
        ),
        "OFT": (peft.OFTConfig(oft_block_size=8, **two), both),
        "VERA": (peft.VeraConfig(r=4, **two), both),
        "LN_TUNING": (
            peft.LNTuningConfig(target_modules=["layers.0.attention.q_proj"]),
            {"target_modules": ["layer.0.attention.attention.query"]},
        ),
        "HRA": (peft.HRAConfig(r=2, **two), both),
        "BOFT": (peft.BOFTConfig(boft_block_size=4, **two), both),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", peft_methods())
def test_every_method_is_renamed_with_its_config(method: str, tmp_path: Path) -> None:
    config, old = peft_methods()[method]
    model = tiny_model("vit").eval()
    model.save_pretrained(tmp_path / "base")  # pyright: ignore[reportCallIssue]
    kind = type(model)
    today = made_by_peft(model, tmp_path / "today", config)
    before = as_before(today, tmp_path / "before", VIT, **old)
    x = torch.randn(2, 3, 16, 16)

    def answers(adapter: Path) -> tuple[torch.Tensor, AdaptedModel]:
        adapted = AdaptedModel(Older(kind, tmp_path / "base", adapter, ()).model())
        adapted.load_adapter(adapter, "a")
        with torch.no_grad():
            return adapted(pixel_values=x, adapter="a").logits, adapted

    wanted, _ = answers(today)
    got, adapted = answers(before)
    assert torch.equal(got, wanted)
    assert differs(got, adapted.base_model(pixel_values=x).logits, 1e-4)
    adapted.save_adapter(tmp_path / "saved", "a")
    saved = load_file(tmp_path / "saved" / "adapter_model.safetensors")
    assert set(saved) == set(load_file(today / "adapter_model.safetensors"))
    assert torch.equal(answers(tmp_path / "saved")[0], wanted)
    report = adapterdock.validate(
        manifest(Older(kind, tmp_path / "base", tmp_path / "saved", ()), tmp_path)
    )
    assert {f.code for f in report.findings} <= {"AD390"}, report


LLAVA_TEXT = [("model.language_model.", "language_model.model."), *[PROJECTOR]]


def llava_methods() -> dict[str, tuple[Any, dict[str, Any]]]:
    import peft

    language = r".*language_model.*\.(q_proj|v_proj)"
    return {
        "projector": (
            peft.LoraConfig(
                r=2, target_modules=language, modules_to_save=["multi_modal_projector"]
            ),
            {},
        ),
        "projector in full": (
            peft.LoraConfig(
                r=2, target_modules=language, modules_to_save=["model.multi_modal_projector"]
            ),
            {"modules_to_save": ["multi_modal_projector"]},
        ),
        "rows of the embedding": (
            peft.LoraConfig(
                r=2,
                target_modules=language,
                trainable_token_indices={"model.language_model.embed_tokens": [3, 5]},
            ),
            {"trainable_token_indices": {"language_model.model.embed_tokens": [3, 5]}},
        ),
        "the embedding, and all of it": (
            peft.LoraConfig(
                r=2, target_modules=r".*language_model\.(embed_tokens|layers.*\.q_proj)"
            ),
            {"target_modules": r".*language_model\.model\.(embed_tokens|layers.*\.q_proj)"},
        ),
        "a pattern from the beginning": (
            peft.LoraConfig(r=2, target_modules=r"model\.language_model\.layers.*(q_proj|v_proj)"),
            {"target_modules": r"language_model\.model\.layers.*(q_proj|v_proj)"},
        ),
        "what is left out": (
            peft.LoraConfig(
                r=2,
                target_modules=["q_proj"],
                exclude_modules=r"model\.vision_tower.*",
            ),
            {"exclude_modules": r"vision_tower.*"},
        ),
        "all-linear but for a part": (
            peft.LoraConfig(
                r=2, target_modules="all-linear", exclude_modules=r"model\.(vision_tower|multi).*"
            ),
            {"exclude_modules": r"(vision_tower|multi).*"},
        ),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", llava_methods())
def test_config_fields_with_module_names_are_converted_too(what: str, tmp_path: Path) -> None:
    config, old = llava_methods()[what]
    model = tiny_model("llava").eval()
    model.save_pretrained(tmp_path / "base")  # pyright: ignore[reportCallIssue]
    kind = type(model)
    today = made_by_peft(model, tmp_path / "today", config)
    before = as_before(today, tmp_path / "before", LLAVA_TEXT, **old)
    x = torch.arange(3, 12)[None]

    def answers(adapter: Path) -> torch.Tensor:
        adapted = AdaptedModel(Older(kind, tmp_path / "base", adapter, ()).model())
        adapted.load_adapter(adapter, "a")
        adapted.save_adapter(tmp_path / "saved", "a")
        with torch.no_grad():
            return adapted(input_ids=x, adapter="a").logits

    wanted = answers(today)
    assert torch.equal(answers(before), wanted)
    assert torch.equal(answers(tmp_path / "saved"), wanted)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spelling", ["llava before 4.52", "gemma3 before 4.52"])
def test_our_outputs_match_peft_where_peft_is_right(spelling: str, tmp_path: Path) -> None:
    from peft import PeftModel

    make, changes = SPELLINGS[spelling]
    base, today = todays(make().eval(), tmp_path)
    text = r".*language_model.*\.(q_proj|v_proj)"
    edited(
        Older(type(make()), base, today, ()), without("vision_tower|projector"), target_modules=text
    )
    before = respelled(today, tmp_path / "before", changes)
    one = Older(type(make()), base, before, ())
    x = torch.arange(3, 12)[None]
    model = AdaptedModel(one.model())
    model.load_adapter(before, "a")
    with torch.no_grad():
        wanted = PeftModel.from_pretrained(one.model(), before).eval()(input_ids=x).logits
        assert close(model(input_ids=x, adapter="a").logits, wanted)
        assert differs(model(input_ids=x).logits, wanted)


class Renamed(nn.Module):
    """A model whose class is in no table, and says itself what its names were."""

    _checkpoint_conversion_mapping: ClassVar[dict[str, str]] = {r"^transformer\.h\.": "layers."}

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Plain(Renamed):
    """Its twin, which says nothing of other names."""

    _checkpoint_conversion_mapping: ClassVar[dict[str, str]] = {}


@pytest.mark.filterwarnings("ignore")
def test_older_names_that_a_class_declares_are_used(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = pair("transformer.h.0", 6, 6) | pair("transformer.h.1", 6, 6)
    write(tmp_path / "a", tensors, {"target_modules": r"transformer\.h\.\d"})
    base = Renamed()
    model = AdaptedModel(base)
    model.load_adapter(tmp_path / "a", "a")
    x, y = torch.randn(2, 6), None
    y = x
    with torch.no_grad():
        for n, layer in enumerate(base.layers):
            a = tensors[f"base_model.model.transformer.h.{n}.lora_A.weight"]
            b = tensors[f"base_model.model.transformer.h.{n}.lora_B.weight"]
            y = layer(y) + 2 * y @ a.T @ b.T
        assert close(model(x, adapter="a"), y)
    assert refused(Plain(), tmp_path / "a") == {"AD342"}


@pytest.mark.filterwarnings("ignore")
def test_every_way_of_loading_reads_older_names(tmp_path: Path) -> None:
    """From a manifest, on first use, exchanged in place, in a composition, merged into files."""
    one = experts(tmp_path)
    x = torch.arange(3, 12)[None]
    reference = one.reference(tmp_path / "reference")
    with torch.no_grad():
        wanted = reference(input_ids=x).logits
    path = manifest(one, tmp_path)
    with torch.no_grad():
        model = adapterdock.attach(one.model(), path)
        assert close(model(input_ids=x).logits, wanted)
        model.define_composition("half", {"a": 0.5})
        half = model(input_ids=x, adapter="half").logits
        assert differs(half, wanted, 1e-2)
        lazy = adapterdock.attach(one.model(), path, residency="1GiB")
        assert close(lazy(input_ids=x).logits, wanted)
        loaded = adapterdock.load(path)
        assert close(loaded(input_ids=x).logits, wanted)
    merge_to_folder(path, tmp_path / "merged")
    assert (
        differences(Older(one.kind, tmp_path / "merged", one.adapter, ()).model(), reference) == {}
    )


@pytest.mark.filterwarnings("ignore")
def test_the_prefix_of_another_wrapping_and_old_names_go_together(tmp_path: Path) -> None:
    """Trained on the backbone alone, before experts were fused."""
    one = older(tiny_model("qwen3_moe").eval(), tmp_path, names=lambda n: n.startswith("model."))
    reference = one.reference(tmp_path / "reference")
    inner = respelled(one.adapter, tmp_path / "inner", [("model.", "")])
    assert differences(merged(Older(one.kind, one.base, inner, ())), reference) == {}


@pytest.mark.filterwarnings("ignore")
def test_converted_factors_can_be_trained_further(tmp_path: Path) -> None:
    one = experts(tmp_path)
    model = AdaptedModel(one.model())
    model.load_adapter(one.adapter, "a", trainable=True)
    model.set_adapter("a")
    x = torch.arange(3, 12)[None]
    model.train()
    model(input_ids=x, labels=x).loss.backward()
    own = list(model._host.adapters.by_name["a"].resident.parameters.values())
    assert own and all(p.grad is not None and p.grad.abs().sum() > 0 for p in own)
    assert not any(p.grad is not None for p in model.base_model.parameters())


def test_an_impossible_rank_makes_no_huge_factors(tmp_path: Path) -> None:
    one = experts(tmp_path)
    name = next(name for name in one.names if name.endswith("gate_proj"))
    tensors = pair(name, 24, 32, rank=2000)
    config = {"target_modules": [name], "r": 2000, "lora_alpha": 2, "peft_type": "LORA"}
    write(tmp_path / "huge", tensors, config)
    assert refused(one.model(), tmp_path / "huge") == {"AD304"}


class Derived(tf.LlavaForConditionalGeneration):
    """A person's own class, made of one of transformers'."""


@pytest.mark.filterwarnings("ignore")
def test_a_subclass_of_a_transformers_class_has_its_older_names(tmp_path: Path) -> None:
    base, today = todays(tiny_model("llava").eval(), tmp_path)
    before = respelled(today, tmp_path / "before", [TEXT, TOWER, PROJECTOR])
    one = Older(tf.LlavaForConditionalGeneration, base, before, ())
    mine = one.model()
    mine.__class__ = Derived
    model = AdaptedModel(mine)
    model.load_adapter(before, "a")
    x = torch.arange(3, 12)[None]
    wanted = merged(Older(one.kind, base, today, ()))
    with torch.no_grad():
        got = model(input_ids=x, adapter="a").logits
        assert close(got, wanted(input_ids=x).logits)
