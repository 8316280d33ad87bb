"""Modules that a model never calls: it reads their weight, and computes with it itself.

An adapter that changes a module's input or output has no effect there. ``nn.MultiheadAttention``
passes on the weight of its ``out_proj``; Mamba multiplies with ``dt_proj.weight``, WavLM with the
weights of all its projections. The source of the class shows it: the attribute is only used with
``.weight`` or ``.bias``.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from torch import nn

_OWN = ("weight", "bias")
_BEGINNING = frozenset({"__init__", "_init_weights", "init_weights", "reset_parameters"})
"""Functions that use weights before anything is computed."""
_READ = re.compile(r"\.(\w+)\.weight\b")
_GENERAL = ("torch.nn.modules.module", "transformers.modeling_utils")
"""The base classes of all models: their source does not name modules of a model."""

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
"""Containers: their members are called, they are not. PEFT (0.21, ``utils/other.py``,
``check_module``) does not wrap them."""


def uncalled_children(parent: nn.Module) -> frozenset[str]:
    """The names of the modules in ``parent`` whose weight is read and whose forward never runs."""
    if isinstance(parent, nn.MultiheadAttention):
        return frozenset({"out_proj"})
    found = _read_alone(_files(type(parent)))
    return found & parent._modules.keys() if found else found  # pyright: ignore[reportPrivateUsage]


def uncalled_in(modules: Mapping[str, nn.Module]) -> set[str]:
    """The names of a model's modules that are not called, lists of modules included. A module that
    another one holds too, and calls, is called."""
    found = {name for name, module in modules.items() if isinstance(module, CONTAINERS)}
    idle: dict[str, nn.Module | None] = {}
    called: set[nn.Module] = set()
    for name, module in modules.items():
        own, alone = module._modules, uncalled_children(module)  # pyright: ignore[reportPrivateUsage]
        idle |= {f"{name}.{child}".lstrip("."): own.get(child) for child in alone}
        called |= {one for child, one in own.items() if one is not None and child not in alone}
    return found | {name for name, one in idle.items() if one not in called}


def source_of(kind: type[nn.Module]) -> list[str]:
    """The source of a class and of its base classes, as far as there is any."""
    return [text for file in _files(kind) if (text := _text(file))]


@cache
def _files(kind: type[nn.Module]) -> tuple[str, ...]:
    """The source files of a class and of its base classes."""
    names = dict.fromkeys(one.__module__ for one in kind.__mro__ if issubclass(one, nn.Module))
    files = (
        getattr(sys.modules.get(name), "__file__", None) for name in names.keys() - {*_GENERAL}
    )
    return tuple(sorted(file for file in files if file))


@cache
def _read_alone(files: tuple[str, ...]) -> frozenset[str]:
    """The attributes whose weight these files read, and which they do not use otherwise."""
    texts = [text for file in files if (text := _text(file))]
    read = {name for text in texts for name in _READ.findall(text)}
    read = {name for name in read if not any(f".{name}(" in text for text in texts)}
    if not read:  # the usual case: nothing is parsed
        return frozenset()
    uses = [use for text in texts for use in _uses(text)]
    other = {name for name, how in uses if how not in _OWN}
    return frozenset(name for name, how in uses if how == "weight" and name in read - other)


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError):  # compiled, or created at run time
        return ""


def _uses(text: str) -> Iterator[tuple[str, str]]:
    """Every attribute that is read outside of initialisation, with the attribute that follows
    (``""`` for none)."""
    try:
        pending: list[tuple[ast.AST, str]] = [(ast.parse(text), "")]
    except (SyntaxError, ValueError):
        return
    while pending:
        node, after = pending.pop()
        if isinstance(node, ast.FunctionDef) and node.name in _BEGINNING:
            continue
        if isinstance(node, ast.Attribute):
            if isinstance(node.ctx, ast.Load):
                yield node.attr, after
            pending.append((node.value, node.attr if isinstance(node.ctx, ast.Load) else "="))
            continue
        pending += [(child, "") for child in ast.iter_child_nodes(node)]
