"""`validate --deep`: where the committed table does not know an architecture, ask transformers.

The class that config.json names is built without memory (on the ``meta`` device), and its modules
are the layout. No weight is read, and no code of the checkpoint's runs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import nn
from transformers import initialization as init

from ...registry.files.facts import Layout
from .layout import layout_of_model

log = logging.getLogger("adapterdock")


def layout_of_config(config: Mapping[str, Any]) -> Layout | None:
    """The modules of the model that transformers makes of a ``config.json``; ``None`` where it has
    no class of that name, or cannot make it (what it says goes to the log)."""
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
        settings = cls.config_class.from_dict(dict(config))  # pyright: ignore[reportOptionalMemberAccess]
        with torch.device("meta"), init.no_init_weights(), init.meta_device_safe_creation_ops():
            model = cls(settings)
        model.tie_weights()
        return model
    except Exception as error:
        log.warning("transformers cannot make a %s: %s: %s", name, type(error).__name__, error)
        return None
