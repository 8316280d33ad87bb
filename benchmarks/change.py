"""Changing what a model does: merging, composing, and following another manifest."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import adapterdock
from shape import BASE_NAME, build_model
from timing import Times, timed

TURNS = 3
COMBINATIONS = ("linear", "cat")


def merge_rounds(times: Times, ours: Any, peft: Any) -> None:
    """One adapter into the base's weights, and out again."""
    for _ in range(TURNS):
        for name, model in (("ours", ours), ("peft", peft)):
            timed(times, f"merge {name}", partial(model.merge_adapter, ["a1"]))
            timed(times, f"unmerge {name}", model.unmerge_adapter)


def compose_rounds(times: Times, ours: Any, peft: Any) -> None:
    """Two adapters of one rank made into a third."""
    for turn in range(TURNS):
        for method in COMBINATIONS:
            made = f"{method}{turn}"
            for name, model in (("ours", ours), ("peft", peft)):
                timed(
                    times,
                    f"compose {method} {name}",
                    partial(
                        model.add_weighted_adapter,
                        ["a1", "a2"],
                        [0.7, 0.3],
                        made,
                        combination_type=method,
                    ),
                )
        timed(times, "compose sum ours", partial(ours.set_adapter, {"a1": 0.7, "a2": 0.3 + turn}))


def apply_rounds(times: Times, adapters: list[Path]) -> None:
    """A manifest of eight adapters of which one has become another."""
    first = [str(path) for path in adapters[:8]]
    model = adapterdock.attach(build_model(), _manifest(first))
    for turn in range(TURNS):
        wanted = _manifest([str(adapters[8 + turn]), *first[1:]])
        timed(times, "apply", lambda wanted=wanted: model.apply(model.plan(wanted)))


def _manifest(sources: list[str]) -> dict[str, Any]:
    return {
        "version": 1,
        "base": {"aliases": [BASE_NAME]},
        "adapters": {f"a{number}": {"source": source} for number, source in enumerate(sources)},
    }
