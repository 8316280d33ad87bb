"""The kinds of layers of a class are found in its config and its source."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from adapterdock.loader.tables.variants import (
    config_with,
    default_config,
    layer_kinds,
    missing_sub_configs,
    sub_config_variants,
)
from support.table_version import newest_transformers


def kinds(name: str) -> list[dict[str, Any]]:
    cls = getattr(transformers, name)
    return [way for ways in layer_kinds(cls, default_config(cls)) for way in ways]


@pytest.mark.parametrize(
    ("name", "option", "kind"),
    [
        pytest.param("Lfm2Model", "layer_types", "conv", marks=newest_transformers),
        ("GraniteMoeHybridModel", "layer_types", "full_attention"),
        ("NemotronHModel", "layers_block_type", "mlp"),
        ("NemotronHModel", "layers_block_type", "moe"),
        ("RecurrentGemmaModel", "block_types", "recurrent"),
    ],
)
def test_lists_of_layers_are_tried_with_each_kind_in_the_source(
    name: str, option: str, kind: str
) -> None:
    assert any({*way.get(option, ())} == {kind} for way in kinds(name))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("BambaModel", {"attn_layer_indices": [1]}),
        ("Qwen3MoeModel", {"decoder_sparse_step": 2}),
        ("DeepseekV3Model", {"first_k_dense_replace": 0}),
        ("JambaModel", {"attn_layer_offset": 1}),
    ],
)
def test_numbers_that_select_layers_are_varied(name: str, changes: dict[str, Any]) -> None:
    assert changes in kinds(name)


def test_a_model_with_one_kind_of_layer_has_no_such_lists() -> None:
    assert not [way for way in kinds("BertModel") if any(isinstance(v, list) for v in way.values())]


def test_optional_sub_configs_are_tried_alone_and_together() -> None:
    cls = transformers.Gemma4Model
    default = default_config(cls)
    assert missing_sub_configs(default) == ["vision_config", "audio_config"]
    given = [{*ways[0]} for ways in sub_config_variants(cls, default)]
    assert given == [{"vision_config"}, {"audio_config"}, {"vision_config", "audio_config"}]


def test_tuples_in_a_config_become_lists() -> None:
    config = config_with(transformers.ConvNextBackbone, {})
    assert isinstance(config.hidden_sizes, list)
