"""A header tells the live model: the same layout as the model that transformers loads."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers
from adapterdock.loader.base.layout import layout_of_model
from adapterdock.loader.tables.architecture_table import TABLE
from adapterdock.registry.base.architectures import architecture_table, layout_of
from adapterdock.registry.files.facts import Layout, ModuleKind, TensorInfo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.checkpoints import config_and_tensors
from support.table_version import of_the_tables_transformers
from support.tiny_models import TINY, tiny_model

NOT_SAVED = {
    "marian": ("model.encoder.embed_positions", "model.decoder.embed_positions"),
}
"""Modules whose weight is computed and never in a file: their sizes cannot be known."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of one tiny model, saved once, with the class that loads it."""
    root = tmp_path_factory.mktemp("models")
    transformers.utils.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()

    def save(name: str) -> tuple[type[Any], Path]:
        folder = root / name.replace(" ", "-")
        model: Any = tiny_model(name)
        if not folder.exists():
            model.save_pretrained(folder)
        return type(model), folder

    return save


def assert_same(got: Layout | None, live: Layout, without_sizes: tuple[str, ...] = ()) -> None:
    assert got is not None
    assert sorted(got.modules) == sorted(live.modules)
    for name, shape in live.modules.items():
        if name in without_sizes:
            assert got.modules[name].kind is shape.kind
            assert got.modules[name].in_features is got.modules[name].out_features is None
        else:
            assert (name, got.modules[name]) == (name, shape)
    assert got.output_modules == live.output_modules
    assert got.tied == live.tied
    assert got.prefix == live.prefix


@of_the_tables_transformers
@pytest.mark.parametrize("name", list(TINY))
def test_a_header_gives_the_layout_of_the_model_that_loads(saved: Any, name: str) -> None:
    cls, folder = saved(name)
    live = layout_of_model(cls.from_pretrained(folder))
    got = layout_of(*config_and_tensors(folder))
    assert_same(got, live, NOT_SAVED.get(name, ()))


def test_modules_come_in_the_order_of_the_model(saved: Any) -> None:
    cls, folder = saved("llama")
    got = layout_of(*config_and_tensors(folder))
    assert got is not None
    assert list(got.modules) == list(layout_of_model(cls.from_pretrained(folder)).modules)


@pytest.mark.parametrize(
    ("on_disk", "loaded", "new"),
    [
        (
            "bert base",
            "BertForMaskedLM",
            ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"),
        ),
        ("bert base", "BertForSequenceClassification", ("classifier",)),
        ("bert", "BertModel", ("pooler.dense",)),
        ("bert", "BertForTokenClassification", ("classifier",)),
        ("llama", "LlamaModel", ()),
        ("llama base", "LlamaForSequenceClassification", ("score",)),
        ("gpt2", "GPT2Model", ()),
        ("vit", "ViTModel", ("pooler.dense",)),
        ("vit base", "ViTForImageClassification", ("classifier",)),
        ("t5", "T5EncoderModel", ()),
    ],
)
def test_a_checkpoint_of_another_class_gains_or_loses_the_prefix_and_the_head(
    saved: Any, on_disk: str, loaded: str, new: tuple[str, ...]
) -> None:
    _, folder = saved(on_disk)
    live = layout_of_model(getattr(transformers, loaded).from_pretrained(folder))
    config, tensors = config_and_tensors(folder)
    got = layout_of({**config, "architectures": [loaded]}, tensors)
    assert got is not None
    for name in new:  # newly initialised: there, of a known kind, of no known size
        assert got.modules[name].kind is live.modules[name].kind
        assert got.modules[name].in_features is None and not got.modules[name].parameters
    beside = [f"{one}." for one in new]
    for name, shape in live.modules.items():
        if name not in new and not any(one.startswith(name + ".") for one in beside):
            found = got.modules[name]
            assert (name, replace(found, parameters={})) == (name, replace(shape, parameters={}))
            assert found.parameters.items() <= shape.parameters.items()  # a new bias is not known
    assert got.modules.keys() == live.modules.keys()


def test_an_unknown_architecture_has_no_layout() -> None:
    tensors = {"model.embed_tokens.weight": TensorInfo("F32", (4, 4))}
    assert layout_of({"architectures": ["NobodysForCausalLM"]}, tensors) is None
    assert layout_of({"architectures": []}, tensors) is None
    assert layout_of({"architectures": [7]}, tensors) is None
    assert layout_of({}, tensors) is None


def test_tensors_of_another_model_have_no_layout(saved: Any) -> None:
    _, folder = saved("gpt2")
    _, tensors = config_and_tensors(folder)
    config, _ = config_and_tensors(saved("llama")[1])
    assert layout_of(config, tensors) is None
    assert layout_of(config, {}) is None


def test_a_part_that_the_table_does_not_know_has_no_layout(saved: Any) -> None:
    config, tensors = config_and_tensors(saved("llava")[1])
    text = {**config["text_config"], "model_type": "nobodys"}
    assert layout_of({**config, "text_config": text}, tensors) is None


def test_experts_that_differ_in_shape_have_no_layout(saved: Any) -> None:
    config, tensors = config_and_tensors(saved("mixtral")[1])
    name = next(n for n in tensors if ".experts.1." in n)
    changed = {**tensors, name: TensorInfo("F32", (3, 5))}
    assert layout_of(config, tensors) is not None
    assert layout_of(config, changed) is None


def test_old_buffers_in_a_checkpoint_are_not_modules(saved: Any) -> None:
    config, tensors = config_and_tensors(saved("llama")[1])
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": TensorInfo("F32", (4,))}
    assert layout_of(config, {**tensors, **old}) == layout_of(config, tensors)


def test_the_first_gpt2_checkpoint_without_prefix_and_with_masks_is_supported(saved: Any) -> None:
    config, tensors = config_and_tensors(saved("gpt2")[1])
    old = {name.removeprefix("transformer."): info for name, info in tensors.items()}
    old["h.0.attn.bias"] = TensorInfo("F32", (1, 1, 64, 64))
    assert layout_of(config, old) == layout_of(config, tensors)


def test_old_bert_names_are_supported(saved: Any) -> None:
    config, tensors = config_and_tensors(saved("bert")[1])
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): info
        for name, info in tensors.items()
    }
    old["bert.embeddings.position_ids"] = TensorInfo("I64", (1, 64))
    old["bert.pooler.dense.weight"] = TensorInfo("F32", (32, 32))  # which a masked LM drops
    old["cls.seq_relationship.weight"] = TensorInfo("F32", (2, 32))
    assert layout_of(config, old) == layout_of(config, tensors)


def test_a_tensor_that_the_model_does_not_know_is_a_module_without_sizes(saved: Any) -> None:
    config, tensors = config_and_tensors(saved("llama")[1])
    odd = {"model.layers.0.self_attn.extra_proj.weight": TensorInfo("F32", (8, 8))}
    got = layout_of(config, {**tensors, **odd})
    assert got is not None
    extra = got.modules["model.layers.0.self_attn.extra_proj"]
    assert (extra.kind, extra.in_features, extra.parameters) == (ModuleKind.LINEAR, None, {})


@pytest.mark.parametrize(
    ("method", "packed"),
    [
        ("bitsandbytes", {"weight": ("U8", (512, 1)), "weight.absmax": ("F32", (16,))}),
        ("gptq", {"qweight": ("I32", (4, 32)), "qzeros": ("I32", (1, 4)), "g_idx": ("I32", (32,))}),
        ("compressed-tensors", {"weight_packed": ("I32", (32, 4)), "weight_scale": ("F32", (4,))}),
    ],
)
def test_packed_weights_leave_the_kind_and_no_sizes(
    saved: Any, method: str, packed: dict[str, tuple[str, tuple[int, ...]]]
) -> None:
    config, tensors = config_and_tensors(saved("llama")[1])
    name = "model.layers.0.self_attn.q_proj"
    rest = {n: info for n, info in tensors.items() if not n.startswith(name)}
    parts = {f"{name}.{own}": TensorInfo(*row) for own, row in packed.items()}
    got = layout_of({**config, "quantization_config": {"quant_method": method}}, {**rest, **parts})
    plain = layout_of(config, tensors)
    assert got is not None and plain is not None
    assert list(got.modules) == list(plain.modules)
    q_proj = got.modules[name]
    assert (q_proj.kind, q_proj.in_features, q_proj.out_features) == (ModuleKind.LINEAR, None, None)
    assert got.modules["model.layers.0.self_attn.k_proj"].out_features == 16


def test_float8_weights_keep_their_sizes(saved: Any) -> None:
    config, tensors = config_and_tensors(saved("llama")[1])
    name = "model.layers.0.mlp.up_proj"
    scaled = {
        **tensors,
        f"{name}.weight": TensorInfo("F8_E4M3", (48, 32)),
        f"{name}.weight_scale_inv": TensorInfo("F32", (1, 1)),
    }
    got = layout_of({**config, "quantization_config": {"quant_method": "fp8"}}, scaled)
    assert got is not None
    assert (got.modules[name].in_features, got.modules[name].out_features) == (32, 48)


def test_tied_embeddings_follow_the_text_config(saved: Any) -> None:
    config, tensors = config_and_tensors(saved("llava")[1])
    config.pop("tie_word_embeddings", None)
    text = {**config["text_config"], "tie_word_embeddings": True}
    without = {n: info for n, info in tensors.items() if "lm_head" not in n}
    got = layout_of({**config, "text_config": text}, without)
    assert got is not None
    assert got.tied == {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    assert got.modules["lm_head"].out_features == 64


PIECES = ("model", "layers", "0", "3", "self_attn", "experts", "q_proj", "gate_up_proj", "weight")
ODD = ("", "*", "?x", "@", "²", "٣", "bias", "weight_g", "gate_proj", "w1", "9" * 600, "inv_freq")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.q_proj..x.weight", ".weight", "", "model." + "a" * 600]
)
def test_a_name_that_no_model_has_gives_no_layout(saved: Any, name: str) -> None:
    config, tensors = config_and_tensors(saved("llama")[1])
    assert layout_of(config, {**tensors, name: TensorInfo("F32", (2, 2))}) is None


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    architecture=st.sampled_from(
        ("MixtralForCausalLM", "LlavaForConditionalGeneration", "BertModel", "Qwen2MoeForCausalLM")
    ),
    config=st.dictionaries(
        st.sampled_from(("text_config", "vision_config", "model_type", "tie_word_embeddings"))
        | st.just("quantization_config"),
        VALUES,
    ),
    names=st.lists(
        st.lists(st.sampled_from(PIECES + ODD), min_size=1, max_size=8).map(".".join), max_size=12
    ),
    shapes=st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1),
)
def test_any_files_give_a_layout_or_none(
    architecture: str, config: dict[str, Any], names: list[str], shapes: list[list[int]]
) -> None:
    known = {
        f"model.layers.{n}.self_attn.q_proj.weight": TensorInfo("F32", (4, 4)) for n in range(9)
    }
    odd = {name: TensorInfo("F32", tuple(shapes[n % len(shapes)])) for n, name in enumerate(names)}
    got = layout_of({"architectures": [architecture], **config}, {**odd, **known})
    assert got is None or got.modules["model.layers.8.self_attn.q_proj"].in_features in (4, None)


def test_the_table_is_read_without_torch(saved: Any) -> None:
    _, folder = saved("llama")
    code = (
        "import json, sys; from pathlib import Path;"
        "from adapterdock.registry.base.architectures import layout_of;"
        "from adapterdock.registry.files.facts import TensorInfo;"
        f"config = json.loads(Path({str(folder)!r}, 'config.json').read_text());"
        "rows = {'model.embed_tokens.weight': TensorInfo('F32', (64, 32))};"
        "assert layout_of(config, rows) is not None;"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_table_read_line_by_line_is_the_file() -> None:
    whole = json.loads(TABLE.read_text(encoding="utf-8"))
    table = architecture_table()
    assert table.keys() == whole.keys()
    assert {section: dict(table[section]) for section in ("conversions", "auto", "rows")} == {
        section: whole[section] for section in ("conversions", "auto", "rows")
    }


@of_the_tables_transformers
def test_the_table_was_exported_from_the_installed_transformers() -> None:
    assert architecture_table()["transformers"] == transformers.__version__
