"""A loaded base model, as the code that builds adapters sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ...manifests.lockfile import LoadedAs
from ...registry.base.fingerprint import Measured
from ...registry.checks.recorded_base import is_hub_id
from ...registry.files.facts import Layout
from .layout import layout_of_model
from .modules import ModuleMap


class LiveBase:
    """The base of one adapted model. Its modules, layout and fingerprint are found once.

    ``loaded_as`` says how it differs from its files; it is set before the first adapter.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.loaded_as = LoadedAs()
        self.known_modules = ModuleMap(module)
        """The modules as they were last found, for callers that check that they are current."""
        self._layout: tuple[Any, Layout] | None = None
        self._measured: tuple[Any, Measured] | None = None

    @property
    def modules(self) -> ModuleMap:
        """Its modules by name; walked again only if the base was rebuilt."""
        if not self.known_modules.current():
            self.known_modules = ModuleMap(self.module)
        return self.known_modules

    @property
    def layout(self) -> Layout:
        """Its modules as the checks see them; found again only if one has another size now."""
        modules = self.modules
        stamp = (modules, modules.sizes())
        if self._layout is None or self._layout[0] != stamp:
            self._layout = (stamp, layout_of_model(self.module))
        return self._layout[1]

    @property
    def measured(self) -> Measured:
        """Its current fingerprint; measured again only if its weights were changed."""
        stamp = tuple(map(_stamp, self.module.parameters()))
        if self._measured is None or self._measured[0] != stamp:
            from .live_fingerprint import fingerprint_of_model

            measured = fingerprint_of_model(self.module, loaded_as=self.loaded_as)
            self._measured = (stamp, measured)
        return self._measured[1]

    @property
    def config(self) -> Mapping[str, Any]:
        """Its ``config.json``; empty for a model without a config."""
        config = getattr(self.module, "config", None)
        if not hasattr(config, "to_dict"):
            return {}
        return json.loads(json.dumps(cast(Any, config).to_dict(), default=str))

    @property
    def hub_name(self) -> str | None:
        """The Hub id from which transformers loaded it; ``None`` where it is not an id, or is a
        local folder."""
        name = getattr(getattr(self.module, "config", None), "_name_or_path", None)
        known = isinstance(name, str) and is_hub_id(name) and not Path(name).exists()
        return name if known else None


def _stamp(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Differs after a parameter gets other values, in place or as another tensor."""
    place = tensor.data_ptr() if type(tensor.data) is torch.Tensor else 0  # quantised: no pointer
    return id(tensor), place, 0 if tensor.is_inference() else tensor._version, tensor.dtype
