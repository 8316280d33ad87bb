"""The dropouts of LoHa and LoKr, beside PEFT's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from support.near import close, differs

from .peft_adapters import adapted, inputs_of, logits, one_layer, peft_loads, peft_saves


def check_module_dropout(folder: Path, kind: Any) -> None:
    """While training a module's delta is there or not; else it is always there."""
    base = one_layer("linear")
    alone = logits(base)
    saved = peft_saves(base, folder, kind=kind, target_modules=["layer"], r=1, module_dropout=0.5)
    model = adapted(base, saved, trainable=True)
    assert all(close(logits(model), saved.answer) for _ in range(8))
    model.train()
    torch.manual_seed(0)
    answers = [logits(model) for _ in range(32)]
    gone = [torch.equal(answer, alone) for answer in answers]
    there = [close(answer, saved.answer) for answer in answers]
    assert any(gone) and any(there)
    assert all(one or other for one, other in zip(gone, there, strict=True))


def check_rank_dropout(layer: str, folder: Path, kind: Any, dtype: Any, **config: Any) -> None:
    """The same random numbers drop the same rows as in PEFT."""
    base = one_layer(layer)
    saved = peft_saves(
        base, folder, kind=kind, target_modules=["layer"], r=1, rank_dropout=0.5, **config
    )
    oracle = peft_loads(base, folder).train()
    model = adapted(base, saved, trainable=True, dtype=dtype)
    model.train()
    differed = False
    for seed in range(4):
        torch.manual_seed(seed)
        torch.rand(1)  # ours draws nothing for a module dropout of 0, PEFT always
        answer = logits(model)
        torch.manual_seed(seed)
        expected = logits(oracle, inputs_of(base))
        assert close(answer, expected)
        differed = differed or differs(answer, saved.answer)
    assert differed
