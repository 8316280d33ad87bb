"""The table of config defaults against the config classes that it was made from."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import transformers as tf
from adapterdock.loader.baseconfig import export
from adapterdock.registry.baseconfig import canonical, digest_of, known_fields
from transformers.models.auto.configuration_auto import CONFIG_MAPPING


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.slow
def test_what_a_class_fills_in_is_nothing_for_every_class_of_transformers() -> None:
    """A file that says only its model type and one that says all are one config."""
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
def test_a_file_of_the_fields_that_were_set_is_the_config_of_the_class(kind: str) -> None:
    config = CONFIG_MAPPING[kind](**SIZES)
    assert canonical({**SIZES, "model_type": kind}).digest == canonical(config.to_dict()).digest
    other = CONFIG_MAPPING[kind](**{**SIZES, "hidden_size": 96})
    assert canonical(other.to_dict()).digest != canonical(config.to_dict()).digest


def test_scaled_rotary_embeddings_of_old_files_are_those_of_the_class() -> None:
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


def test_the_export_makes_the_row_that_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    from adapterdock.loader import baseconfig
    from adapterdock.registry import baseconfig as committed

    kinds = ("llama", "qwen3", "gemma3", "gemma3_text", "siglip_vision_model", "deepseek_v3")
    rows = [(kind, CONFIG_MAPPING[kind]) for kind in kinds]
    monkeypatch.setattr(baseconfig, "_classes", lambda: iter(rows))
    table = committed._table()  # pyright: ignore[reportPrivateUsage]
    assert json.loads(json.dumps(export())) == {kind: table[kind] for kind in sorted(kinds)}


def test_the_table_tells_which_fields_it_knows() -> None:
    assert known_fields("homemade") is None
    fields = known_fields("llama")
    assert fields is not None and {"rope", "head_dim", "hidden_size"} <= fields
    assert digest_of({}) != digest_of({"model_type": "llama"})
