"""Which inputs other than token ids a model's forward takes: embeddings, and keys and values.

A model with embeddings in each layer needs the ids. Gemma 4 recovers them by comparing each of
``inputs_embeds`` with every row of its token embedding. Virtual tokens are not rows of it, so such
a model takes embeddings of tokens only.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cache

from torch import nn

from ...registry.files.facts import EMBEDS, INPUTS
from .uncalled import source_of

_COMPARED = re.compile(r"==\s*self\.\w+\.weight")


def inputs_of(model: nn.Module) -> frozenset[str]:
    """The ``INPUTS`` that the live model takes, with any values."""
    backbone = model._modules.get(str(getattr(model, "base_model_prefix", "")))  # pyright: ignore[reportPrivateUsage]
    taken = taken_by(type(model), None if backbone is None else type(backbone))
    return taken - {EMBEDS} if any(map(looked_up_again, model.modules())) else taken


def taken_by(kind: type[nn.Module], backbone: type[nn.Module] | None) -> frozenset[str]:
    """The ``INPUTS`` that a class takes: its forward has parameters for them, or its ``backbone``
    has and is called with the other keyword arguments (an encoder with a head)."""
    own = _parameters_of(kind)
    if backbone is not None and _passes_on(kind):
        own |= _parameters_of(backbone)
    return own


def _parameters_of(kind: type[nn.Module]) -> frozenset[str]:
    return INPUTS & inspect.signature(kind.forward).parameters.keys()


@cache
def _passes_on(kind: type[nn.Module]) -> bool:
    """Whether the forward calls the backbone with its own ``**kwargs``."""
    try:
        text = textwrap.dedent(inspect.getsource(inspect.unwrap(kind.forward)))
    except (OSError, TypeError):  # made in memory
        return False
    prefix = getattr(kind, "base_model_prefix", "")
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == prefix
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "self"
        and any(word.arg is None for word in node.keywords)
        for node in ast.walk(ast.parse(text))
    )


def looked_up_again(module: nn.Module) -> frozenset[str]:
    """The embeddings in ``module`` whose ids are recovered by comparing."""
    found = _looked_up(type(module))
    return found & module._modules.keys() if found else found  # pyright: ignore[reportPrivateUsage]


@cache
def _looked_up(kind: type[nn.Module]) -> frozenset[str]:
    names = {one.__name__ for one in kind.__mro__ if issubclass(one, nn.Module)}
    texts = [text for text in source_of(kind) if _COMPARED.search(text)]
    trees = [node for text in texts for node in ast.walk(ast.parse(text))]
    classes = [node for node in trees if isinstance(node, ast.ClassDef) and node.name in names]
    functions = [node for one in classes for node in one.body if isinstance(node, ast.FunctionDef)]
    return frozenset(name for one in functions if _compares(one) for name in _calls(one))


def _compares(function: ast.FunctionDef) -> bool:
    """Whether it compares ``inputs_embeds`` with a weight."""
    for node in ast.walk(function):
        if isinstance(node, ast.Compare) and any(isinstance(one, ast.Eq) for one in node.ops):
            inside = list(ast.walk(node))
            named = any(isinstance(n, ast.Name) and n.id == EMBEDS for n in inside)
            if named and any(isinstance(n, ast.Attribute) and n.attr == "weight" for n in inside):
                return True
    return False


def _calls(function: ast.FunctionDef) -> Iterator[str]:
    """The attributes of ``self`` that it calls."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "self":
                yield node.func.attr
