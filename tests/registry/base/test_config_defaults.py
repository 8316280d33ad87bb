"""The frozen table of config defaults, compared with the config classes of transformers."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import transformers as tf
from adapterdock.registry.base.base_config import canonical, digest_of, hidden_size, known_fields
from support.table_version import newest_transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@newest_transformers
@pytest.mark.slow
def test_defaults_do_not_change_the_digest_for_any_class_of_transformers() -> None:
    """A file with only its model type and one with every field have the same digest."""
    wrong: list[str] = []
    known = 0
    for key in list(CONFIG_MAPPING.keys()):
        try:
            config = CONFIG_MAPPING[key]()
        except Exception:
            continue
        full = config.to_dict()
        written = json.loads(config.to_json_string())
        forms = [canonical(form) for form in (full, written)]
        if forms[0].doubt is None:
            forms.append(canonical({"model_type": full["model_type"]}))
            known += 1
        if forms[0].inexact:
            continue
        if len({form.digest for form in forms}) > 1:
            wrong.append(key)
    assert known > 650
    assert wrong == []


SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6, "rms_norm_eps": 1e-5}


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen3", "gemma2", "phi3", "olmo2", "cohere"])
def test_a_file_with_only_the_set_fields_equals_the_full_config(kind: str) -> None:
    config = CONFIG_MAPPING[kind](**SIZES)
    assert canonical({**SIZES, "model_type": kind}).digest == canonical(config.to_dict()).digest
    other = CONFIG_MAPPING[kind](**{**SIZES, "hidden_size": 96})
    assert canonical(other.to_dict()).digest != canonical(config.to_dict()).digest


def test_old_files_with_scaled_rotary_embeddings_equal_the_full_config() -> None:
    old: dict[str, Any] = {
        "model_type": "llama",
        "max_position_embeddings": 4096,
        "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0},
    }
    live = tf.LlamaConfig.from_dict(dict(old)).to_dict()
    assert "original_max_position_embeddings" in live["rope_parameters"]
    assert canonical(old).digest == canonical(live).digest
    other = {**old, "rope_scaling": {"rope_type": "yarn", "factor": 8.0}}
    assert canonical(old).digest != canonical(other).digest


def test_known_fields_are_those_of_the_table() -> None:
    assert known_fields("homemade") is None
    fields = known_fields("llama")
    assert fields is not None and {"rope", "head_dim", "hidden_size"} <= fields
    assert digest_of({}) != digest_of({"model_type": "llama"})


@pytest.mark.parametrize("tied", [True, False])
def test_flat_qwen2_vl_files_equal_the_full_config(tied: bool) -> None:
    flat: dict[str, Any] = {  # as on the Hub: the text model's fields beside vision_config
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "hidden_act": "silu",
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "max_position_embeddings": 32768,
        "max_window_layers": 28,
        "num_attention_heads": 12,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
        "image_token_id": 151655,
        "vision_config": {"depth": 2, "embed_dim": 1280, "hidden_size": 1536, "in_chans": 3},
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vocab_size": 151936,
    }
    live = tf.Qwen2VLConfig.from_dict(copy.deepcopy(flat)).to_dict()
    assert canonical(flat).digest == canonical(live).digest
    assert canonical({**flat, "rope_theta": 10000.0}).digest != canonical(flat).digest
    sections = {"type": "mrope", "mrope_section": [24, 20, 20]}
    assert canonical({**flat, "rope_scaling": sections}).digest != canonical(flat).digest


@pytest.mark.parametrize(
    "old",
    [
        {"model_type": "bloom", "n_embed": 1024, "n_layer": 2, "num_attention_heads": 16},
        {"model_type": "deberta-v2", "relative_attention": True, "pos_att_type": "p2c|c2p"},
    ],
    ids=lambda old: old["model_type"],
)
def test_old_spellings_on_the_hub_equal_the_full_config(old: dict[str, Any]) -> None:
    live = CONFIG_MAPPING[old["model_type"]].from_dict(copy.deepcopy(old)).to_dict()
    assert canonical(old).digest == canonical(live).digest
    assert hidden_size(old) == hidden_size(live)
