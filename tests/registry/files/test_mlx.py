"""mlx-lm's adapters, read from config and header as PEFT's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings import fit as codes
from adapterdock.manifests.findings.errors import SourceError
from adapterdock.manifests.findings.finding import Finding, Severity
from adapterdock.registry.checks.check_adapter import check_adapter
from adapterdock.registry.files import mlx
from adapterdock.registry.files.adapter import read_adapter
from adapterdock.registry.files.facts import AdapterFacts, Header, TensorInfo
from adapterdock.registry.files.reading import Reading
from support.builders import HIDDEN, KV, VOCAB, base_facts

Shapes = Mapping[str, tuple[int, ...]]
CORPUS = Path(__file__).parents[2] / "data" / "mlx_configs.json"
QV: dict[str, tuple[int, ...]] = {
    f"model.layers.{n}.self_attn.{p}.{leaf}": shape
    for n in (0, 1)
    for p, out in (("q_proj", HIDDEN), ("v_proj", KV))
    for leaf, shape in (("lora_a", (HIDDEN, 4)), ("lora_b", (4, out)))
}


def config(**fields: Any) -> dict[str, Any]:
    """As mlx-lm writes it; the keys of ``lora`` replace ``lora_parameters``'."""
    parameters = {"rank": 4, "scale": 20.0, "dropout": 0.0} | fields.pop("lora", {})
    made = {
        "fine_tune_type": "lora",
        "iters": 100,
        "model": "org/base",
        "num_layers": 16,
        "lora_parameters": {k: v for k, v in parameters.items() if v is not ...},
    }
    return {k: v for k, v in (made | fields).items() if v is not ...}


def header(shapes: Shapes) -> Header:
    return Header({name: TensorInfo("F32", shape) for name, shape in shapes.items()})


def read(shapes: Shapes | None = None, **fields: Any) -> Reading:
    return read_adapter(config(**fields), {mlx.WEIGHTS: header(QV if shapes is None else shapes)})


def refused(shapes: Shapes | None = None, **fields: Any) -> Finding:
    with pytest.raises(SourceError) as caught:
        read(shapes, **fields)
    (finding,) = caught.value.findings
    return finding


def check(shapes: Shapes | None = None, tied: bool = False, **fields: Any) -> list[Finding]:
    one = read(shapes, **fields)
    facts = AdapterFacts("tone", None, one.config, one.header, origin=one.origin)
    base = base_facts(tie_word_embeddings=tied)
    findings, _ = check_adapter(facts, base, aliases=["org/base"])
    return [f for f in findings if f.severity is not Severity.UNCHECKED]


def test_factors_are_turned_and_get_peft_s_names() -> None:
    found = read()
    at = "base_model.model.model.layers.1.self_attn.v_proj"
    assert found.header.tensors[f"{at}.lora_A.weight"].shape == (4, HIDDEN)
    assert found.header.tensors[f"{at}.lora_B.weight"].shape == (KV, 4)
    assert found.config["r"] == 4 and found.config["lora_alpha"] == 80.0
    assert found.config["base_model_name_or_path"] == "org/base"
    assert check() == []


def test_dora_s_sizes_are_peft_s_magnitudes() -> None:
    sizes = {
        name.replace("lora_a", "m"): (HIDDEN if "q_proj" in name else KV,)
        for name in QV
        if name.endswith("lora_a")
    }
    assert check(QV | sizes, fine_tune_type="dora") == []
    assert [f.code for f in check(QV | sizes)] == ["AD332"]  # no DoRA by the config
    assert [f.code for f in check(QV, fine_tune_type="dora")] == ["AD331"]


def test_another_rank_than_the_config_s_is_refused() -> None:
    assert {f.code for f in check(lora={"rank": 8})} == {"AD336"}


@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({"lora": {"alpha": 16, "scale": 10.0}}, 10.0),  # written and not used since June 2024
        ({"lora": {"alpha": 16, "scale": 10.0}, "fine_tune_type": ...}, 10.0),
        ({"lora": {"scale": 3}}, 3.0),
        (
            {
                "lora": {"alpha": 16, "scale": 10.0},
                "fine_tune_type": ...,
                "num_layers": ...,
                "lora_layers": 16,
            },
            40.0,  # mlx-lm up to 0.13.0: scale * alpha / rank
        ),
        (
            {
                "lora": {"alpha": 4, "scale": 10.0},
                "fine_tune_type": ...,
                "num_layers": ...,
                "lora_layers": 16,
                "use_dora": False,
            },
            10.0,  # the same by both rules
        ),
    ],
)
def test_the_scale_is_what_that_version_of_mlx_lm_computed_with(
    fields: dict[str, Any], scale: float
) -> None:
    found = read(**fields).config
    assert found["lora_alpha"] / found["r"] == scale


def test_a_scale_that_two_versions_read_in_two_ways_is_not_guessed() -> None:
    finding = refused(
        lora={"alpha": 16, "scale": 10.0},
        fine_tune_type=...,
        num_layers=...,
        lora_layers=16,
        use_dora=False,
    )
    assert finding.code == codes.FOREIGN_UNCLEAR.id
    assert "40" in str(finding.expected) and "10" in str(finding.expected)


@pytest.mark.parametrize(
    "fields",
    [
        {"lora": {"scale": ...}},
        {"lora": {"scale": ..., "alpha": 16}},
        {"lora": {"scale": "20"}},
        {"lora": {"scale": True}},
        {"lora": {"scale": 10**400}},
        {"lora": {"scale": float("nan")}},
        {"lora": {"rank": 0}},
        {"lora": {"rank": 4.0}},
        {"lora": {"rank": 10**40}},
        {"lora": {"dropout": None}},
        {"lora": {"dropout": 2}},
        {"lora": {"keys": "q_proj"}},
        {"lora": {"keys": [1]}},
        {"lora": {"use_rslora": True}},
        {"num_layers": "16"},
        {"num_layers": True},
        {"fine_tune_type": "ia3"},
        {"fine_tune_type": ["lora"]},
    ],
)
def test_a_config_with_missing_fields_is_refused(fields: dict[str, Any]) -> None:
    assert refused(**fields).code == codes.FOREIGN_UNCLEAR.id


def test_complete_weights_are_refused_with_a_hint() -> None:
    finding = refused({"model.layers.0.mlp.up_proj.weight": (4, 4)}, fine_tune_type="full")
    assert finding.code == codes.FOREIGN_TENSOR.id and "mlx_lm.fuse" in str(finding.hint)


@pytest.mark.parametrize(
    "shapes",
    [
        {"model.layers.0.self_attn.q_proj.weight": (4, 4)},
        {"lora_a": (4, 4)},
        {"model.layers.0.mlp.experts.gate_proj.lora_b": (2, 8, 4)},
        {
            "model.layers.0.mlp.switch_mlp.up_proj.lora_a": (7, 16),
            "model.layers.0.mlp.switch_mlp.up_proj.lora_b": (2, 8, 4),
        },
        {
            "model.layers.0.mlp.switch_mlp.up_proj.lora_a": (10**12, 4, 0),
            "model.layers.0.mlp.switch_mlp.up_proj.lora_b": (10**12, 0, 4),
        },
        {"model.embed_tokens.m": (VOCAB,)},  # DoRA of an embedding: a size for each row
    ],
)
def test_tensors_without_a_counterpart_are_refused_by_name(shapes: Shapes) -> None:
    found = refused({**QV, **shapes})
    assert found.code == codes.FOREIGN_TENSOR.id


@pytest.mark.parametrize("a", [(3, 4, 16), (12, 16)])
def test_factors_of_experts_become_one_pair_for_each(a: tuple[int, ...]) -> None:
    at = "model.layers.0.mlp.switch_mlp.up_proj"
    found = read({f"{at}.lora_a": a, f"{at}.lora_b": (3, 8, 4)})
    inside = "base_model.model.model.layers.0.mlp.experts"
    assert {n: i.shape for n, i in found.header.tensors.items()} == {
        f"{inside}.{n}.up_proj.lora_{letter}.weight": shape
        for letter, shape in (("A", (4, 16)), ("B", (8, 4)))
        for n in range(3)
    }
    part = found.parts[f"{inside}.2.up_proj.lora_B.weight"]
    assert part == (mlx.WEIGHTS, f"{at}.lora_b", (16, 24), False)


def test_mixtrals_experts_have_mixtrals_names() -> None:
    at = "model.layers.0.block_sparse_moe.switch_mlp.down_proj"
    found = read({f"{at}.lora_a": (1, 4, 16), f"{at}.lora_b": (1, 8, 4)})
    assert "base_model.model.model.layers.0.block_sparse_moe.experts.0.w2.lora_A.weight" in (
        found.header.tensors
    )


EMBEDDING: Shapes = {
    "model.embed_tokens.lora_a": (VOCAB, 4),
    "model.embed_tokens.lora_b": (4, HIDDEN),
}


def test_an_embedding_is_read_where_its_weight_is_its_own() -> None:
    assert check({**QV, **EMBEDDING}) == []
    found = check({**QV, **EMBEDDING}, tied=True)
    assert codes.FOREIGN_TENSOR.id in {f.code for f in found}


def last_layer() -> Shapes:
    return {name: shape for name, shape in QV.items() if ".layers.1." in name}


def test_num_layers_is_the_number_of_last_layers() -> None:
    assert check(last_layer(), num_layers=1) == []
    found = check(last_layer(), num_layers=2)
    assert [f.code for f in found] == ["AD333"] and "layers.0.self_attn.q_proj" in str(found[0])


def test_modules_without_factors_are_reported() -> None:
    keys = ["self_attn.q_proj", "self_attn.v_proj"]
    assert check(lora={"keys": keys}) == []
    found = check(lora={"keys": [*keys, "mlp.up_proj"]})
    assert [f.code for f in found] == ["AD333"] and "mlp.up_proj" in str(found[0])


def test_factors_decide_where_a_version_trained_more_layers() -> None:
    assert [f.code for f in check(num_layers=1)] == [codes.FOREIGN_NOTED.id]
    assert check(last_layer(), num_layers=-1) == []  # 0.19 to 0.21 left the first layer out
    assert check(num_layers=-1) == []


def test_peft_s_own_config_is_never_taken_for_mlx_lm_s() -> None:
    assert not mlx.is_config({"peft_type": "LORA", "lora_parameters": {}})
    assert not mlx.is_config({"r": 8})
    assert mlx.is_config({"fine_tune_type": "full"})


def test_published_configs_are_read_or_their_unclear_field_is_named() -> None:
    entries: list[dict[str, Any]] = json.loads(CORPUS.read_text())["configs"]
    unclear: list[str] = []
    for entry in entries:
        given = entry["config"]
        assert mlx.is_config(given)
        shapes = {
            name: tuple(given["lora_parameters"]["rank"] if n == 4 else n for n in shape)
            for name, shape in QV.items()
        }
        try:
            found = read_adapter(given, {mlx.WEIGHTS: header(shapes)})
        except SourceError as error:
            assert error.code == codes.FOREIGN_UNCLEAR.id
            unclear.append(entry["file"])
        else:
            scale = found.config["lora_alpha"] / found.config["r"]
            assert scale == pytest.approx(given["lora_parameters"]["scale"])
    assert len(entries) == 29
    assert unclear == ["015.json", "101.json", "102.json", "117.json", "118.json"]
