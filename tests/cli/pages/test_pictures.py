"""Plots of metrics, graphs of compositions and heat maps as numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from adapterdock.cli.pages.facts import Composition, Version
from adapterdock.cli.pages.graph import Tree, composition_tree, cut, draw
from adapterdock.cli.pages.heat_picture import SHADES, picture
from adapterdock.cli.pages.plot import HEIGHT, WIDTH, plots
from adapterdock.registry.heat_map import HeatMap


def version(number: int, marks: tuple[str, ...] = (), **metrics: float) -> Version:
    return Version(f"1.{number}.0", "", "", marks=marks, metrics=metrics)


def test_a_plot_goes_from_the_oldest_version_to_the_newest() -> None:
    (plot,) = plots([version(2, loss=1.0), version(1, loss=3.0), version(0, loss=2.0)])
    assert [point.version for point in plot.points] == ["1.0.0", "1.1.0", "1.2.0"]
    xs, ys = [p.x for p in plot.points], [p.y for p in plot.points]
    assert xs == sorted(xs) and ys[1] < ys[0] < ys[2]  # up is more
    assert plot.summary == (
        "loss in 3 versions: from 2 in 1.0.0 to 1 in 1.2.0; lowest 1, highest 3"
    )


def test_versions_without_a_metric_leave_their_place_free() -> None:
    first, second = plots([version(2, a=1.0, b=1.0), version(1, b=2.0), version(0, a=3.0, b=3.0)])
    assert [p.x for p in first.points] == [second.points[0].x, second.points[2].x]


def test_marked_versions_are_hollow() -> None:
    (plot,) = plots([version(1, a=1.0), version(0, ("yanked",), a=2.0)])
    assert [point.marked for point in plot.points] == [True, False]


@pytest.mark.parametrize(
    "values", [(1.0,), (2.0, 2.0), (-1e308, 1e308), (0.0, 5e-324), (1.0, 1.0 + 2**-52)]
)
def test_every_plot_stays_in_its_frame(values: tuple[float, ...]) -> None:
    (plot,) = plots([version(n, a=value) for n, value in enumerate(values)])
    for point in plot.points:
        assert math.isfinite(point.y)
        assert 0 <= point.x <= WIDTH and 0 <= point.y <= HEIGHT


def test_a_thousand_versions_are_a_line_without_dots() -> None:
    (plot,) = plots([version(n, a=float(n)) for n in reversed(range(1000))])
    assert len(plot.points) == 1000 and plot.dots == (plot.last,)


def test_no_metrics_are_no_plots() -> None:
    assert plots([version(1)]) == []


MIX = Composition("m", "mix", "sum", (("a", "0.5"), ("inner", "1")))
INNER = Composition("m", "inner", "ties", (("b", "1"), ("c", "*.mlp.* 0.1")))


def test_a_composition_is_drawn_with_what_its_members_are_made_of() -> None:
    graph = draw(composition_tree(MIX, {"mix": MIX, "inner": INNER}))
    place = {box.name: (box.x, box.y) for box in graph.boxes}
    assert place["b"][0] == place["c"][0] < place["inner"][0] == place["a"][0] < place["mix"][0]
    assert len(graph.edges) == 4 and {edge.full for edge in graph.edges} >= {"0.5", "*.mlp.* 0.1"}
    assert graph.summary == "mix combines a 0.5, inner 1"
    for box in graph.boxes:
        assert box.x >= 0 and box.x + 190 <= graph.width
        assert box.y >= 0 and box.y + 32 <= graph.height


def test_no_two_boxes_share_a_place() -> None:
    graph = draw(Tree("root", "", tuple(Tree(f"part{n}") for n in range(40))))
    assert len({(box.x, box.y) for box in graph.boxes}) == 41


def test_a_composition_of_itself_is_drawn_to_a_depth() -> None:
    loop = Composition("m", "loop", "sum", (("loop", "1"),))
    assert len(draw(composition_tree(loop, {"loop": loop})).boxes) == 9


def test_long_names_lose_their_middle() -> None:
    assert cut("short", 24) == "short"
    assert len(cut("x" * 100 + "end", 24)) == 24 and cut("x" * 100 + "end", 24).endswith("end")


def test_a_heat_map_has_a_cell_for_each_layer_and_kind() -> None:
    drawn = HeatMap("model.layers", ("q", "v"), ((0, (0.01, None)), (1, (0.02, 0.0))))
    seen = picture(drawn, relative=True)
    assert [(c.shade, c.text) for c in seen.cells] == [
        (4, "layer 0 q: 1%"),
        (0, "layer 0 v: not changed"),
        (SHADES, "layer 1 q: 2%"),
        (0, "layer 1 v: 0%"),
    ]
    assert seen.highest[0] == "layer 1 q: 2%" and seen.top == "2%"
    assert picture(drawn, relative=False).highest[0] == "layer 1 q: 0.02"


def test_modules_outside_of_layers_have_no_number() -> None:
    drawn = HeatMap("", ("lm_head",), ((None, (0.5,)),))
    seen = picture(drawn, relative=False)
    assert [c.text for c in seen.cells] == ["lm_head: 0.5"]
    assert seen.summary.startswith("Where the adapter acts, modules outside of layers")
    many = replace(drawn, rows=tuple((n, (1.0,)) for n in range(100)))
    assert len(picture(many, relative=False).columns) == 13  # every eighth layer has its number
