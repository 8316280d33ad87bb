"""`validate --deep`: the layout of an architecture that the committed table does not know.

The class in config.json is built without memory (on the ``meta`` device), and its modules give the
layout. No weights are read, and no code from the checkpoint is run.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import transformers
from torch import nn

from ...registry.files.facts import Layout
from .empty_model import build
from .layout import layout_of_model

log = logging.getLogger("adapterdock")


def layout_of_config(config: Mapping[str, Any]) -> Layout | None:
    """The modules of the model that transformers builds from a ``config.json``; ``None`` where it
    does not have the class, or cannot build it (the reason goes to the log)."""
    model = model_of_config(config)
    return None if model is None else layout_of_model(model)


def model_of_config(config: Mapping[str, Any]) -> nn.Module | None:
    """The model itself, on the ``meta`` device."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    cls: Any = getattr(transformers, name, None) if isinstance(name, str) else None
    if not (isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)):
        return None
    try:
        model: Any = build(cls, cls.config_class.from_dict(dict(config)))  # pyright: ignore[reportOptionalMemberAccess]
        model.tie_weights()
        return model
    except Exception as error:
        log.warning("transformers cannot build a %s: %s: %s", name, type(error).__name__, error)
        return None
