"""Where an adapter acts, by layer and kind of module."""

from __future__ import annotations

import pytest
from adapterdock.registry.heat_map import Place, Size, heat_maps, is_relative, place_of, together


@pytest.mark.parametrize(
    ("module", "place"),
    [
        ("model.layers.12.self_attn.q_proj", Place("model.layers", 12, "q_proj")),
        ("model.layers.3.mlp.experts.7.up_proj", Place("model.layers", 3, "up_proj")),
        ("transformer.h.0.attn.c_attn", Place("transformer.h", 0, "c_attn")),
        ("encoder.block.1.layer.0.SelfAttention.q", Place("encoder.block", 1, "q")),
        ("0.auto_model.query", Place("", 0, "query")),
        ("layer1.conv", Place("layer1", None, "conv")),
        ("lm_head", Place("", None, "lm_head")),
        ("", Place("", None, "")),
    ],
)
def test_the_first_number_of_a_name_is_the_layer(module: str, place: Place) -> None:
    assert place_of(module) == place


def test_rows_are_layers_and_columns_are_kinds() -> None:
    sizes = {
        "m.layers.10.q": Size(3.0),
        "m.layers.2.q": Size(1.0),
        "m.layers.2.v": Size(2.0),
        "v.layers.0.q": Size(5.0),
        "lm_head": Size(7.0),
    }
    first, second, rest = heat_maps(sizes)
    assert (first.stack, first.kinds) == ("m.layers", ("q", "v"))
    assert first.rows == ((2, (1.0, 2.0)), (10, (3.0, None)))
    assert first.highest == 3.0
    assert (second.stack, second.rows) == ("v.layers", ((0, (5.0,)),))
    assert (rest.stack, rest.kinds, rest.rows) == ("", ("lm_head",), ((None, (7.0,)),))


def test_experts_of_a_layer_are_one_value() -> None:
    sizes = {f"layers.0.experts.{n}.up": Size(size, 10.0) for n, size in enumerate((3.0, 4.0))}
    (one,) = heat_maps(sizes)
    (row,) = one.rows
    assert row[1] == (pytest.approx(5 / 200**0.5),)


def test_values_are_relative_only_where_all_weights_are_known() -> None:
    sizes = {"layers.0.q": Size(3.0, 30.0), "layers.1.q": Size(3.0)}
    assert not is_relative(sizes) and not is_relative({})
    assert [row[1] for row in heat_maps(sizes)[0].rows] == [(3.0,), (3.0,)]
    del sizes["layers.1.q"]
    assert [row[1] for row in heat_maps(sizes)[0].rows] == [(0.1,)]
    assert together(sizes.values()) == Size(3.0, 30.0)
    assert Size(1.0, 0.0).relative is None
