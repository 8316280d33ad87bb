"""Changing what a model does: merging and composing."""

from __future__ import annotations

from functools import partial
from typing import Any

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
