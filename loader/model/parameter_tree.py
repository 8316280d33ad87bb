"""The adapters' parameters as modules of the wrapper, so that the names that ``named_parameters``
gives them lead to them by attribute.

PEFT's live name of a parameter, ``base_model.model.<module>.lora_A.<adapter>.weight``, leads
through wrappers that are not there: ``base_model`` is the base itself. So the names are walked in a
tree of their own, ``tuners.base_model.model...``; ``state_dict`` keeps PEFT's.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable
from typing import Any, cast

from torch import nn

from ..adapter.adapter import Adapter

ROOT = "tuners"
"""The child of the wrapper in which the tree stands."""
_DOT = "\u00b7"
"""What a dot in an adapter's name becomes in a name that is walked by attribute."""


class _Node(nn.Module):
    """What stands in PEFT's wrappers, dictionaries and layers for their place: names, and nothing
    that can be called."""

    def __init__(self, tree: ParameterTree) -> None:
        super().__init__()
        self.__dict__["_parameters"] = _Watched(tree)

    @property
    def __class__(self) -> type[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """PEFT's LoRA+ asks so which factors are an embedding's, and gives these another rate."""
        layers = sys.modules.get("peft.tuners.lora.layer")
        if layers is not None and "lora_embedding_A" in self.__dict__.get("_modules", ()):
            return cast("type[Any]", layers.Embedding)
        return _Node


class _Watched(dict[str, Any]):
    """The parameters of a node: ``torch.func.functional_call`` and ``torch.export`` put others in
    their places for the time of a call, and the tree knows of it."""

    def __init__(self, tree: ParameterTree) -> None:
        super().__init__()
        self._tree = weakref.ref(tree)
        self.keys_of: dict[str, str] = {}

    def __setitem__(self, leaf: str, value: Any) -> None:
        super().__setitem__(leaf, value)
        key, tree = self.keys_of.get(leaf), self._tree()
        if key is None or tree is None:
            return
        if value is tree.held_parameters.get(key):
            tree.exchanged.pop(key, None)
        else:
            tree.exchanged[key] = value


class ParameterTree(nn.Module):
    """Every parameter and every replaced module of the attached adapters that are here.

    ``held_parameters`` and ``held_modules`` have them by PEFT's live names; ``exchanged`` says
    which of these parameters are others for the time of a call.
    """

    held_parameters: dict[str, nn.Parameter]
    held_modules: dict[str, nn.Module]
    exchanged: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.__dict__.update(held_parameters={}, held_modules={}, exchanged={})

    def put(self, adapter: Adapter) -> None:
        """What the adapter has goes in, in the place of what had these names."""
        for key, parameter in adapter.resident.parameters.items():
            node, leaf = self._place(key, adapter.name, make=True)
            self.held_parameters[key] = parameter
            own = cast(_Watched, node._parameters)
            own.keys_of[leaf] = key
            own[leaf] = parameter
        for key, replacement in adapter.resident.replacements.items():
            node, leaf = self._place(key, adapter.name, make=True)
            self.held_modules[key] = replacement
            node._modules[leaf] = replacement

    def take(self, adapter: Adapter) -> None:
        """What the adapter has goes out, where it is not another's by now."""
        for key, parameter in adapter.resident.parameters.items():
            if self.held_parameters.get(key) is parameter:
                self._cut(key, adapter.name)
                self.exchanged.pop(key, None)
                del self.held_parameters[key]
        for key, replacement in adapter.resident.replacements.items():
            if self.held_modules.get(key) is replacement:
                self._cut(key, adapter.name)
                del self.held_modules[key]

    def restore(self, adapters: Iterable[Adapter]) -> None:
        """Hold what these have, and nothing else."""
        for known in (self.held_parameters, self.held_modules, self.exchanged, self._modules):
            known.clear()
        for adapter in adapters:
            self.put(adapter)

    def key_of(self, name: str) -> str:
        """PEFT's live name of what ``named_parameters`` calls ``name``; any other name as it is."""
        if not name.startswith(f"{ROOT}."):
            return name
        node: nn.Module = self
        path = name.split(".")[1:]
        for at, piece in enumerate(path, 1):
            own = node._parameters
            if isinstance(own, _Watched) and piece in own.keys_of:
                return own.keys_of[piece]
            child = node._modules.get(piece)
            if child is None:
                return name
            if type(child) is not _Node:
                keys = (key for key, one in self.held_modules.items() if one is child)
                return ".".join((next(keys), *path[at:]))
            node = child
        return name

    def find(self, key: str) -> nn.Parameter | nn.Module | None:
        """What has PEFT's live name ``key``, or lies at it in a replaced module."""
        if key in self.held_parameters:
            return self.held_parameters[key]
        if key in self.held_modules:
            return self.held_modules[key]
        for name, replacement in self.held_modules.items():
            if key.startswith(f"{name}."):
                return _at(replacement, key[len(name) + 1 :])
        return None

    def _place(self, key: str, adapter: str, *, make: bool = False) -> tuple[_Node, str]:
        *path, leaf = pieces(key, adapter)
        node: nn.Module = self
        for piece in path:
            child = node._modules.get(piece)
            if child is None and make:
                child = node._modules[piece] = _Node(self).train(self.training)
            node = cast(nn.Module, child)
        return cast(_Node, node), leaf

    def _cut(self, key: str, adapter: str) -> None:
        """Take the place away, and the nodes that it leaves empty; what was interrupted before may
        have done a part of it."""
        *path, leaf = pieces(key, adapter)
        nodes: list[nn.Module] = [self]
        for piece in path:
            node = nodes[-1]._modules.get(piece)
            if node is None:
                return
            nodes.append(node)
        last = nodes[-1]
        if leaf in last._parameters:
            dict.__delitem__(last._parameters, leaf)
            cast(_Watched, last._parameters).keys_of.pop(leaf, None)
        else:
            last._modules.pop(leaf, None)
        for parent, piece in zip(reversed(nodes[:-1]), reversed(path), strict=True):
            node = cast(nn.Module, parent._modules[piece])
            if node._parameters or node._modules:
                return
            del parent._modules[piece]


def pieces(key: str, adapter: str) -> list[str]:
    """PEFT's live name as it is walked, piece by piece: an adapter's name is one of them, whatever
    dots are in it, and none that a module has as an attribute."""
    name = adapter.replace(".", _DOT)
    if hasattr(_EMPTY, name):
        name = _DOT + name
    if name == adapter:
        return key.split(".")
    before, found, after = key.rpartition(f".{adapter}")
    return [*before.split("."), name, *after.split(".")[1:]] if found else key.split(".")


def walked(key: str, adapter: str) -> str:
    """The name in ``named_parameters`` of what has PEFT's live name ``key``."""
    return ".".join((ROOT, *pieces(key, adapter)))


_EMPTY = nn.Module()


def _at(module: nn.Module, path: str) -> nn.Parameter | nn.Module | None:
    owner, _, leaf = path.rpartition(".")
    try:
        found = getattr(module.get_submodule(owner), leaf)
    except AttributeError:
        return None
    return found if isinstance(found, nn.Parameter | nn.Module) else None
