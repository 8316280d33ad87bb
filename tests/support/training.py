"""transformers' own ``Trainer`` on tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments


def rows(count: int = 16, seed: int = 3, labels: int | None = None) -> list[dict[str, Any]]:
    """Sentences that differ, some of their labels masked, with a column of no use."""
    generator = torch.Generator().manual_seed(seed)
    found: list[dict[str, Any]] = []
    for at in range(count):
        ids = torch.randint(3, 61, (8,), generator=generator)
        target: Any = at % labels if labels else ids.clone()
        if labels is None:
            target[: at % 5] = -100
        found.append({"input_ids": ids, "labels": target, "note": f"row {at}"})
    return found


def arguments(folder: Path, **more: Any) -> TrainingArguments:
    settings: dict[str, Any] = {
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 11,
    }
    return TrainingArguments(str(folder), **{**settings, **more})


def train(model: Any, folder: Path, resume: Any = None, data: Any = None, **more: Any) -> Any:
    trainer = Trainer(model, arguments(folder, **more), train_dataset=data or rows())
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
