"""A base model that is loaded, as whoever builds adapters for it sees it."""

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
    """The base of one adapted model: what it is made of, each part found out once.

    ``loaded_as`` is what of it is not as in its files; it is set before the first adapter.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.loaded_as = LoadedAs()
        self._modules = ModuleMap(module)
        self._layout: tuple[Any, Layout] | None = None
        self._measured: tuple[Any, Measured] | None = None

    @property
    def modules(self) -> ModuleMap:
        """Its modules by name; walked again only if the base was rebuilt."""
        if not self._modules.current():
            self._modules = ModuleMap(self.module)
        return self._modules

    @property
    def known_modules(self) -> ModuleMap:
        """The same as they were last found, for whoever checks by itself that they are current."""
        return self._modules

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
        """Its fingerprint as it is now; measured again only if its weights were changed."""
        stamp = tuple(map(_stamp, self.module.parameters()))
        if self._measured is None or self._measured[0] != stamp:
            from .live_fingerprint import fingerprint_of_model

            measured = fingerprint_of_model(self.module, loaded_as=self.loaded_as)
            self._measured = (stamp, measured)
        return self._measured[1]

    @property
    def config(self) -> Mapping[str, Any]:
        """Its ``config.json``; empty for a model that has none."""
        config = getattr(self.module, "config", None)
        if not hasattr(config, "to_dict"):
            return {}
        return json.loads(json.dumps(cast(Any, config).to_dict(), default=str))

    @property
    def hub_name(self) -> str | None:
        """The Hub's id under which transformers loaded it."""
        return hub_name(self.module)


def _stamp(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What changes when a parameter is given other values, in place or as another tensor."""
    place = tensor.data_ptr() if type(tensor.data) is torch.Tensor else 0  # quantised: no pointer
    return id(tensor), place, 0 if tensor.is_inference() else tensor._version, tensor.dtype


def hub_name(base: nn.Module) -> str | None:
    """The Hub's id under which transformers loaded a model; ``None`` where it was none, or a folder
    of that name is here."""
    name = getattr(getattr(base, "config", None), "_name_or_path", None)
    return name if isinstance(name, str) and is_hub_id(name) and not Path(name).exists() else None
