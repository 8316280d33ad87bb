"""The adapters' parameters as modules of the wrapper, so that every name in ``named_parameters``
can be followed by attributes.

PEFT's live name of a parameter, ``base_model.model.<module>.lora_A.<adapter>.weight``, contains
wrappers that we do not have: our ``base_model`` is the base itself. So the names are in a tree of
their own, ``tuners.base_model.model...``; ``state_dict`` keeps PEFT's names.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable
from typing import Any, cast

from torch import nn

from ..adapter.adapter import Adapter

ROOT = "tuners"
"""The child of the wrapper that is the tree."""
_DOT = "\u00b7"
"""Replaces a dot in an adapter's name, since attributes have no dots."""


class _Node(nn.Module):
    """In place of PEFT's wrappers, dictionaries and layers: has names and cannot be called."""

    def __init__(self, tree: ParameterTree) -> None:
        super().__init__()
        self.__dict__["_parameters"] = _Watched(tree)

    @property
    def __class__(self) -> type[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """For PEFT's LoRA+, which gives the factors of an embedding another learning rate."""
        layers = sys.modules.get("peft.tuners.lora.layer")
        if layers is not None and "lora_embedding_A" in self.__dict__.get("_modules", ()):
            return cast("type[Any]", layers.Embedding)
        return _Node


class _Watched(dict[str, Any]):
    """The parameters of a node. Notes in the tree when ``torch.func.functional_call`` or
    ``torch.export`` exchange them during a call."""

    def __init__(self, tree: ParameterTree) -> None:
        super().__init__()
        self._tree = weakref.ref(tree)
        self.keys_of: dict[str, str] = {}

    def __setitem__(self, leaf: str, value: Any) -> None:
        super().__setitem__(leaf, value)
        key, tree = self.keys_of.get(leaf), self._tree()
        if key is None or tree is None:
            return
        if value is tree.held.get(key):
            tree.exchanged.pop(key, None)
        else:
            tree.exchanged[key] = value


class ParameterTree(nn.Module):
    """All parameters and replacement modules of the loaded adapters.

    ``held`` has them by PEFT's live names; ``exchanged`` has the parameters that are exchanged
    during a call.
    """

    held: dict[str, nn.Parameter | nn.Module]
    exchanged: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.__dict__.update(held={}, exchanged={})

    def put(self, adapter: Adapter) -> None:
        """Add what the adapter has, replacing what had the same names."""
        for key, held in _held_by(adapter):
            node, leaf = self._place(key, adapter.name)
            self.held[key] = held
            if isinstance(held, nn.Module):
                node._modules[leaf] = held
            else:
                own = cast(_Watched, node._parameters)
                own.keys_of[leaf] = key
                own[leaf] = held

    def take(self, adapter: Adapter) -> None:
        """Remove what the adapter has, unless another adapter has the name by now."""
        for key, held in _held_by(adapter):
            if self.held.get(key) is held:
                self._cut(key, adapter.name)
                self.exchanged.pop(key, None)
                del self.held[key]

    def restore(self, adapters: Iterable[Adapter]) -> None:
        """Contain exactly what these adapters have."""
        for known in (self.held, self.exchanged, self._modules):
            known.clear()
        for adapter in adapters:
            self.put(adapter)

    def key_of(self, name: str) -> str:
        """PEFT's live name of ``name`` in ``named_parameters``; any other name unchanged."""
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
                keys = (key for key, held in self.held.items() if held is child)
                return ".".join((next(keys), *path[at:]))
            node = child
        return name

    def find(self, key: str) -> nn.Parameter | nn.Module | None:
        """The parameter or module with PEFT's live name ``key``, also inside a replacement."""
        if key in self.held:
            return self.held[key]
        for name, held in self.held.items():
            if isinstance(held, nn.Module) and key.startswith(f"{name}."):
                return _at(held, key[len(name) + 1 :])
        return None

    def _place(self, key: str, adapter: str) -> tuple[_Node, str]:
        """The node of ``key``, created if need be, and the name in it."""
        *path, leaf = pieces(key, adapter)
        node: nn.Module = self
        for piece in path:
            child = node._modules.get(piece)
            if child is None:
                child = node._modules[piece] = _Node(self).train(self.training)
            node = child
        return cast(_Node, node), leaf

    def _cut(self, key: str, adapter: str) -> None:
        """Remove the name and the nodes left empty; an interrupted call may have done a part."""
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


def _held_by(adapter: Adapter) -> Iterable[tuple[str, nn.Parameter | nn.Module]]:
    resident = adapter.resident
    return (*resident.parameters.items(), *resident.replacements.items())


def pieces(key: str, adapter: str) -> list[str]:
    """PEFT's live name as attributes. An adapter's name is one of them even with dots, and never an
    attribute that every module has."""
    name = adapter.replace(".", _DOT)
    if hasattr(_EMPTY, name):
        name = _DOT + name
    if name == adapter:
        return key.split(".")
    before, found, after = key.rpartition(f".{adapter}")
    return [*before.split("."), name, *after.split(".")[1:]] if found else key.split(".")


def walked(key: str, adapter: str) -> str:
    """The name in ``named_parameters`` for PEFT's live name ``key``."""
    return ".".join((ROOT, *pieces(key, adapter)))


_EMPTY = nn.Module()


def _at(module: nn.Module, path: str) -> nn.Parameter | nn.Module | None:
    owner, _, leaf = path.rpartition(".")
    try:
        found = getattr(module.get_submodule(owner), leaf)
    except AttributeError:
        return None
    return found if isinstance(found, nn.Parameter | nn.Module) else None
