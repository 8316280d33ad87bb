"""The base's modules by name."""

from __future__ import annotations

import functools

import torch
from torch import nn

from ...registry.files.facts import ModuleShape
from .layout import layout_of_model, shape_of_module
from .uncalled import uncalled_children


class ModuleMap:
    """Every module by all of its names, from one walk of the model."""

    def __init__(self, base: nn.Module) -> None:
        self.base = base
        self.by_name: dict[str, nn.Module] = dict(base.named_modules(remove_duplicate=False))
        names: dict[int, list[str]] = {}
        for name, module in self.by_name.items():
            names.setdefault(id(module), []).append(name)
        self._names = names
        self._linears: dict[str, ModuleShape] = {}

    def current(self) -> bool:
        """Whether the model still has exactly these modules."""
        seen = 1
        for name, module in self.by_name.items():
            prefix = f"{name}." if name else ""
            for leaf, child in module._modules.items():  # pyright: ignore[reportPrivateUsage]
                if child is not None:
                    if self.by_name.get(prefix + leaf) is not child:
                        return False
                    seen += 1
        return seen == len(self.by_name)

    def shape(self, name: str) -> ModuleShape:
        """The kind and sizes of a module; cached for a plain linear until its sizes change."""
        module = self.by_name[name]
        if type(module) is not nn.Linear:
            return shape_of_module(module)
        sizes = (module.in_features, module.out_features)
        known = self._linears.get(name)
        if known is None or (known.in_features, known.out_features) != sizes:
            known = self._linears[name] = shape_of_module(module)
        return known

    def sizes(self) -> list[torch.Size]:
        """The shapes of all parameters, in the order of the modules."""
        kept = (module._parameters for module in self.by_name.values())  # pyright: ignore[reportPrivateUsage]
        return [p.shape for own in kept for p in own.values() if p is not None]

    def called(self, name: str) -> bool:
        """Whether the model runs this module under any of its names, and does not only read its
        weight."""
        places = (one.rpartition(".") for one in self._names[id(self.by_name[name])])
        return any(own not in uncalled_children(self.by_name[parent]) for parent, _, own in places)

    def other_names(self, name: str) -> list[str]:
        """The other names of the module ``name``."""
        return [other for other in self._names[id(self.by_name[name])] if other != name]

    @functools.cached_property
    def foreign(self) -> tuple[str, ...]:
        """Prefixes of the parts whose input is neither the model's own nor text, by transformers'
        ``main_input_name``: their rows are images or sounds."""
        own = getattr(type(self.base), "main_input_name", None)
        if own is None:
            return ()
        found: list[str] = []
        for name, module in self.by_name.items():
            other = getattr(type(module), "main_input_name", None)
            if name and isinstance(other, str) and other not in (own, "input_ids"):
                found.append(f"{name}.")
        return tuple(found)

    @functools.cached_property
    def _tied(self) -> dict[str, str]:
        return dict(layout_of_model(self.base).tied)

    def tied_to(self, parameter: str) -> list[str]:
        """Other names of a parameter, such as ``lm_head.weight`` for the input embedding's."""
        root = self._tied.get(parameter, parameter)
        same = [root, *(name for name, source in self._tied.items() if source == root)]
        return [name for name in same if name != parameter]
