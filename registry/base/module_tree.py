"""The tree of modules in a row of the table, and the tensors put into it.

A :data:`Tree` is a model's modules by the parts of their names: ``*`` is any number,
``?name`` is optional, and ``""`` holds what the module itself owns, as words:

- ``2``: a weight of so many dimensions and of their usual kind (1: norm, 2: linear, 3 to 5:
  convolution), perhaps with a bias; ``2E``: a weight of another kind, a letter of ``KINDS``;
- ``C=16``: a convolution's groups (``*``: depthwise; default 1);
- ``+name``: another parameter; ``-name``: a persistent buffer;
- ``~``: never called, its weight is read.

Several words for the same dimensions mean that members of a list differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..files.conversion import Shape
from ..files.facts import ModuleKind, ModuleShape

Tree = dict[str, Any]

KINDS = {
    "L": ModuleKind.LINEAR,
    "T": ModuleKind.CONV1D,
    "E": ModuleKind.EMBEDDING,
    "C": ModuleKind.CONV,
    "N": ModuleKind.NORM,
    "O": ModuleKind.OTHER,
}
UNCALLED = "~"
USUAL = {1: "N", 2: "L", 3: "C", 4: "C", 5: "C"}
BATCH_NORM = frozenset({"running_mean", "running_var", "num_batches_tracked"})


def node_at(tree: Tree, name: str) -> Tree | None:
    """The node of a module, or ``None`` for an unknown module."""
    node: Tree | None = tree
    for piece in name.split(".") if name else ():
        found = node.get(piece) or node.get(f"?{piece}")
        node = found or (node.get("*") if piece.isdecimal() else None)
        if node is None:
            return None
    return node


def has(tree: Tree, name: str) -> bool:
    """Whether the model may have this parameter or persistent buffer."""
    owner, _, own = name.rpartition(".")
    node = node_at(tree, owner)
    return node is not None and owns(node.get("", ""), own)


def modules_of(
    tree: Tree, live: Mapping[str, Shape | None], exact: Mapping[str, str]
) -> dict[str, ModuleShape]:
    """Every module that owns or contains a parameter, in the order of ``tree``.

    ``live`` are parameters and buffers by their live names, with ``None`` for an unknown shape. One
    that the tree does not have makes a module without sizes. ``exact`` has the words of modules by
    their full names, where the tree has them only for a complete list.
    """
    found: Tree = {}
    for name, shape in live.items():
        owner, _, own = name.rpartition(".")
        if not has(tree, name):
            owner, own = _nearest(tree, owner, own)
        node = found
        for piece in owner.split(".") if owner else ():
            node = node.setdefault(piece, {})
        node.setdefault("", {})[own] = shape
    out: dict[str, ModuleShape] = {}
    _collect(tree, found, "", out, exact, alone=True)
    return out


def _nearest(tree: Tree, owner: str, own: str) -> tuple[str, str]:
    """The module for a tensor that the model does not have, and a name that marks it: ``!`` for a
    quantiser's ``weight.absmax`` or ``qweight``, at its module; ``?`` for any other, at a module of
    its own."""
    near, node = owner, node_at(tree, owner)
    while near and node is None:
        near = near.rpartition(".")[0]
        node = node_at(tree, near)
    if near and node and node.get(""):
        return near, f"!{own}"
    return owner, f"?{own}"


def _collect(
    tree: Tree,
    found: Tree,
    path: str,
    out: dict[str, ModuleShape],
    exact: Mapping[str, str],
    *,
    alone: bool,
) -> bool:
    """Fill ``out`` in the order of ``tree``: what was found, and what the checkpoint lacks but the
    model has (only if ``alone``: not in a list, whose members may differ). Returns whether there
    was any; modules that own only buffers do not count."""
    taken: set[str] = {""}
    before = len(out)
    for key, node in tree.items():
        if key == "":
            continue
        names = sorted((k for k in found if k.isdecimal()), key=int) if key == "*" else [key]
        for name in names:
            name = name.removeprefix("?")
            inner = found.get(name)
            lacks = inner is None and not (alone and key[0] != "?" and _required(node))
            if name in taken or lacks:
                continue
            taken.add(name)
            here = f"{path}.{name}".lstrip(".")
            words = exact.get(here) or node.get("", "")
            own = None if inner is None else inner.get("", {})
            shape = _shape(words, own, inner or {})
            out[here] = replace(shape, called=False) if UNCALLED in words else shape
            below = _collect(node, inner or {}, here, out, exact, alone=alone and key != "*")
            if not below and not (_parameters(words) if own is None else _not_buffers(words, own)):
                del out[here]
    for name in (key for key in found if key not in taken):
        here = f"{path}.{name}".lstrip(".")
        out[here] = _stranger(found[name].get("", {}))
        _collect({}, found[name], here, out, exact, alone=False)
    return len(out) > before


def _required(node: Tree) -> bool:
    """Whether a model always has this module, and it owns something."""
    return bool(_parameters(node.get("", ""))) or any(
        _required(value) for key, value in node.items() if key and key[0] not in "*?"
    )


def _parameters(words: str) -> list[str]:
    return [word for word in words.split() if word[0] not in "-C" + UNCALLED]


def _not_buffers(words: str, own: Iterable[str]) -> list[str]:
    every = words.split()
    both = any(word[0].isdigit() for word in every)  # a batch norm may be frozen, as buffers

    def is_buffer(name: str) -> bool:
        said = f"-{name}" in every or ("-*" in every and name.isdecimal())
        return name in BATCH_NORM or (said and not (both and name in ("weight", "bias")))

    return [name for name in own if not is_buffer(name)]


def owns(words: str, name: str) -> bool:
    """Whether a module with these words has this parameter or buffer of its own. A weight may have
    a bias beside it."""
    every = words.split()
    if name == "weight" or name == "bias" or name in BATCH_NORM:
        return any(w[0].isdigit() or w in (f"+{name}", f"-{name}") for w in every)
    return any(
        word[0] in "+-" and (word[1:] == name or (word[1:] == "*" and name.isdecimal()))
        for word in every
    )


def _shape(words: str, own: Mapping[str, Shape | None] | None, found: Tree) -> ModuleShape:
    """A module by its words and its own tensors (``None``: it has none in the file)."""
    every = words.split()
    known = {n: shape for n, shape in (own or {}).items() if n[0] not in "!?" and shape is not None}
    trained = _not_buffers(words, known)
    parameters = {name: known[name] for name in trained}
    buffers = {name: shape for name, shape in known.items() if name not in parameters}
    weight = (own or {}).get("weight") or _parametrised(found)
    kinds = {
        word[1:] or USUAL[int(word[0])]
        for word in every
        if word[0].isdigit() and (weight is None or int(word[0]) == len(weight))
    }
    packed = own is None or "weight" in own or any(name[0] == "!" for name in own)
    sure = len(kinds) == 1 and (weight is not None or packed)
    kind = KINDS[kinds.pop()] if sure else ModuleKind.OTHER
    if weight is None:
        return ModuleShape(kind, parameters=parameters, buffers=buffers)
    if kind is ModuleKind.LINEAR:
        return ModuleShape(kind, weight[1], weight[0], parameters)
    if kind in (ModuleKind.CONV1D, ModuleKind.EMBEDDING):
        return ModuleShape(kind, weight[0], weight[1], parameters)
    if kind is ModuleKind.CONV:
        groups = _groups({word[2:] for word in every if word.startswith("C=")}, weight)
        inner = None if groups is None else weight[1] * groups
        return ModuleShape(kind, inner, weight[0], parameters, weight[2:], groups or 1)
    return ModuleShape(kind, parameters=parameters, buffers=buffers)


def _parametrised(found: Tree) -> Shape | None:
    """The shape of a weight that torch's ``weight_norm`` computes: that of its ``original1``."""
    inner = found.get("parametrizations", {}).get("weight", {}).get("", {})
    return inner.get("original1") or inner.get("original")


def _groups(said: set[str], weight: Shape) -> int | None:
    """The number of a convolution's groups, from all words at its name."""
    if said == {"1", "*"} and weight[1] > 1:
        return 1
    if len(said) > 1:
        return None
    groups = next(iter(said), "1")
    return weight[0] if groups == "*" else int(groups)


def _stranger(own: Mapping[str, Shape | None]) -> ModuleShape:
    """A module that the table does not have: the model may or may not have it."""
    weight = own.get("?weight")
    return ModuleShape(KINDS[USUAL.get(len(weight), "O")] if weight else ModuleKind.OTHER)
