"""What a base's ``config.json`` would have transformers fetch."""

from __future__ import annotations

from typing import Any

import pytest
from adapterdock.manifests.findings.finding import Where
from adapterdock.registry.checks.fetching import attentions_of, check


def found(config: dict[str, Any], *, remote_code: bool = False) -> list[str]:
    findings = check(config, Where(), remote_code=remote_code)
    assert {finding.code for finding in findings} <= {"AD788"}
    return [finding.message.partition(" ")[0] for finding in findings]


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"attn_implementation": "acme/kernel"}, "attn_implementation"),
        ({"_attn_implementation": "acme/kernel"}, "_attn_implementation"),
        ({"_attn_implementation_internal": "a/k@v1"}, "_attn_implementation_internal"),
        ({"attn_implementation": {"": "sdpa", "vision_config": "a/k"}}, "attn_implementation"),
        ({"attn_implementation": "paged|acme/kernel:f"}, "attn_implementation"),
        ({"text_config": {"_attn_implementation": "a/k"}}, "text_config._attn_implementation"),
        ({"layers": [{"attn_implementation": "a/k"}]}, "layers[0].attn_implementation"),
        ({"_experts_implementation": "a/k"}, "_experts_implementation"),
        ({"experts_implementation": "sonicmoe"}, "experts_implementation"),
        ({"backbone": "acme/backbone"}, "backbone"),
        ({"backbone": "acme/backbone", "use_timm_backbone": False}, "backbone"),
        (
            {"backbone_config": {"model_type": "timm_backbone", "backbone": "hf-hub:a/b"}},
            "backbone_config.backbone",
        ),
        ({"vision_config": {"architecture": "hf-hub:a/b"}}, "vision_config.architecture"),
        ({"architecture": "local-dir:/etc"}, "architecture"),
        ({"model_args": {"pretrained": True}}, "model_args.pretrained"),
        ({"model_args": {"checkpoint_path": "/tmp/x.pth"}}, "model_args.checkpoint_path"),
        ({"backbone_kwargs": {"pretrained_cfg": {"url": "x"}}}, "backbone_kwargs.pretrained_cfg"),
    ],
)
def test_a_value_that_is_fetched_is_refused_at_any_depth(
    config: dict[str, Any], place: str
) -> None:
    assert found(config) == [place]


@pytest.mark.parametrize(
    "config",
    [
        {"attn_implementation": "sdpa", "_attn_implementation": "flash_attention_2"},
        {"attn_implementation": None, "_attn_implementation": {"": "eager"}},
        {"attn_implementation": "an_own_one", "_attn_implementation_autoset": True},
        {"experts_implementation": "grouped_mm"},
        {"_name_or_path": "acme/base", "name_or_path": "acme/base"},
        {"architectures": ["LlamaForCausalLM"], "auto_map": {"AutoModel": "a/c--m.M"}},
        {"backbone": "resnet50", "use_timm_backbone": True, "use_pretrained_backbone": True},
        {"backbone": None, "backbone_config": {"model_type": "resnet"}},
        {"backbone_config": {"model_type": "timm_backbone", "backbone": "timm/resnet50.a1_in1k"}},
        {"model_type": "timm_wrapper", "architecture": "timm/vit", "model_args": {"depth": 2}},
        {"backbone_kwargs": {"pretrained": False, "out_indices": [1, 2]}},
        {"task_specific_params": {"x": {"prefix": "a/b: "}}},
    ],
)
def test_local_values_fetch_nothing(config: dict[str, Any]) -> None:
    assert found(config) == []


def test_code_of_another_repository_counts_where_code_is_run() -> None:
    for auto_map in ({"AutoConfig": "a/c--m.M"}, {"AutoTokenizer": ["a/c--t.T", None]}):
        assert found({"auto_map": auto_map}) == []
        assert found({"auto_map": auto_map}, remote_code=True) == ["auto_map"]
        nested = {"text_config": {"auto_map": auto_map}}
        assert found(nested, remote_code=True) == ["text_config.auto_map"]
    assert found({"auto_map": {"AutoModel": "modeling_own.M"}}, remote_code=True) == []


def test_every_attention_is_listed() -> None:
    config = {"attn_implementation": {"": "sdpa"}, "text_config": {"_attn_implementation": "eager"}}
    assert attentions_of(config) == ["sdpa", "eager"]
