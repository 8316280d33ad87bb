"""Find the model inside of wrappers."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.nn.parallel import DataParallel, DistributedDataParallel

from .adapted import AdaptedModel


def extract_base_model(model: Any) -> Any:
    """The base model inside of wrappers. Changes nothing.

    Removes our wrapper, PEFT's (its layers stay in the base), and torch's for compiled and parallel
    models.

    Args:
        model: A model, wrapped or not.

    Returns:
        The base model, or ``model`` itself if it is not wrapped.
    """
    while (inner := _inside(model)) is not None:
        model = inner
    return model


def _inside(model: Any) -> Any:
    if isinstance(model, AdaptedModel):
        return model.get_base_model()
    if isinstance(model, DistributedDataParallel | DataParallel):
        return model.module
    if isinstance(model, torch._dynamo.eval_frame.OptimizedModule):  # pyright: ignore[reportPrivateUsage]
        return model._orig_mod  # pyright: ignore[reportPrivateUsage]
    peft = sys.modules.get("peft")  # if it was never imported, nothing is PEFT's
    if peft is not None and isinstance(model, (peft.PeftModel, peft.PeftMixedModel)):
        tuner = model.base_model
        return tuner.model if isinstance(tuner, peft.tuners.tuners_utils.BaseTuner) else tuner
    return None
