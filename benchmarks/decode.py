"""One decode step: eight rows, one token each, after 64 tokens of context."""

from __future__ import annotations

from typing import Any

import torch
from timing import Times, timed

ROWS = 8
STEPS = 15


@torch.no_grad()
def decode_rounds(times: Times, ours: Any, peft: Any) -> None:
    """The base, one adapter for all rows, and an adapter for each row, with each library."""
    ours.set_adapter("a1")
    peft.set_adapter("a1")
    names = {"adapter_names": [f"a{row + 1}" for row in range(ROWS)]}
    subjects: dict[str, tuple[Any, dict[str, Any]]] = {
        "base": (ours.base_model, {}),
        "ours": (ours, {}),
        "peft": (peft, {}),
        "ours rows": (ours, names),
        "peft rows": (peft, names),
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
