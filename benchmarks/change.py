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


def apply_rounds(times: Times, adapters: list[Path], peft: Any) -> None:
    """A manifest of eight adapters of which one has become another; with PEFT, deleting that one
    and loading the other under its name."""
    first = [str(path) for path in adapters[:8]]
    model = adapterdock.attach(build_model(), _manifest(first))
    for turn in range(TURNS):
        path = adapters[8 + turn]
        wanted = _manifest([str(path), *first[1:]])
        timed(times, "plan ours", partial(model.plan, wanted))
        plan = model.plan(wanted)
        timed(times, "apply ours", partial(model.apply, plan))
        timed(times, "apply peft", partial(_replace, peft, "a1", path))


def _replace(peft: Any, name: str, path: Path) -> None:
    peft.delete_adapter(name)
    peft.load_adapter(path, name)


def _manifest(sources: list[str]) -> dict[str, Any]:
    return {
        "version": 1,
        "base": {"aliases": [BASE_NAME]},
        "adapters": {f"a{number}": {"source": source} for number, source in enumerate(sources)},
    }
