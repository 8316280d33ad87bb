"""One decode step: eight rows, one token each, after 64 tokens of context."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from shape import write_dora, write_ia3
from timing import Times, timed

ROWS = 8
STEPS = 15


@torch.no_grad()
def decode_rounds(times: Times, ours: Any, peft: Any) -> None:
    """The base, one adapter for all rows, and an adapter for each row, with each library; of DoRA
    and IA3 with ours (PEFT has no DoRA and no IA3 by rows)."""
    ours.set_adapter("a1")
    peft.set_adapter("a1")
    others = {"dora": "d", "ia3": "i"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for path, name in (
            *((path, f"d{n}") for n, path in enumerate(write_dora(folder / "d", ROWS), 1)),
            *((path, f"i{n}") for n, path in enumerate(write_ia3(folder / "i", ROWS), 1)),
        ):
            ours.load_adapter(str(path), name)
    subjects: dict[str, tuple[Any, dict[str, Any]]] = {
        "base": (ours.base_model, {}),
        "ours": (ours, {}),
        "peft": (peft, {}),
        "ours rows": (ours, _names("a")),
        "peft rows": (peft, _names("a")),
        **{f"{what} rows": (ours, _names(letter)) for what, letter in others.items()},
    }
    context = torch.randint(0, 49152, (ROWS, 64))
    token = torch.randint(0, 49152, (ROWS, 1))
    caches = {
        name: model(input_ids=context, use_cache=True, **more).past_key_values
        for name, (model, more) in subjects.items()
    }
    for _ in range(STEPS):
        for name, (model, more) in subjects.items():
            cache = caches[name]
            timed(
                times,
                f"decode {name}",
                lambda model=model, cache=cache, more=more: model(
                    input_ids=token, past_key_values=cache, use_cache=True, **more
                ),
            )
            cache.crop(-1)
    ours.delete_adapter(
        [name for letter in others.values() for name in _names(letter)["adapter_names"]]
    )


def _names(letter: str) -> dict[str, list[str]]:
    """An adapter for each row."""
    return {"adapter_names": [f"{letter}{row + 1}" for row in range(ROWS)]}
