"""The modules a live transformers model will have, from its config and header, without torch.

``architectures.json`` holds what :mod:`adapterdock.loader.architecture_table` exported from
transformers: one row for every class that is a model or part of one. Here the rows are put
together as the config asks, the checkpoint's names are converted as transformers would
(:mod:`adapterdock.registry.conversion`), and each tensor finds its module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

from .conversion import ConversionError, Rule, Shape, convert
from .facts import Layout, ModuleKind, ModuleShape, TensorInfo

Tree = dict[str, Any]
"""Module names in pieces (``*``: any number, ``?name``: not always there); ``""`` holds what
the module owns, as words (see :func:`_owns` and :func:`_kind`)."""

KINDS = {
    "L": ModuleKind.LINEAR,
    "T": ModuleKind.CONV1D,
    "E": ModuleKind.EMBEDDING,
    "C": ModuleKind.CONV,
    "N": ModuleKind.NORM,
    "O": ModuleKind.OTHER,
}
USUAL = {1: "N", 2: "L", 3: "C", 4: "C", 5: "C"}
BATCH_NORM = frozenset({"running_mean", "running_var", "num_batches_tracked"})
ALWAYS_IGNORED = (r"rotary_emb\.inv_freq", r"(^|\.)position_ids$")
"""Buffers of old checkpoints that transformers drops whatever the class."""


@dataclass
class Model:
    """The classes of one model put together; ``parts`` in the order of ``named_modules``."""

    tree: Tree
    parts: list[Part] = field(default_factory=list)

    def node(self, name: str) -> Tree | None:
        """The node of a module, or ``None`` where the model has no such module."""
        node: Tree | None = self.tree
        for piece in name.split(".") if name else ():
            node = _step(node, piece)
            if node is None:
                return None
        return node

    def has(self, name: str) -> bool:
        """Whether the model has this parameter or persistent buffer."""
        owner, _, own = name.rpartition(".")
        node = self.node(owner)
        return node is not None and _owns(node.get("", ""), own)


@dataclass(frozen=True)
class Part:
    """One ``PreTrainedModel`` of a model: where it is, its row, and its part of the config."""

    path: str
    name: str
    row: Mapping[str, Any]
    config: Mapping[str, Any]
    model_type: str


class UnknownArchitectureError(LookupError):
    """The table cannot say how this model is made."""


@cache
def architecture_table() -> Mapping[str, Any]:
    """The committed table; ``["transformers"]`` is the version that it was exported from."""
    path = Path(__file__).with_name("architectures.json")
    return cast("Mapping[str, Any]", json.loads(path.read_bytes()))


def layout_of(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Layout | None:
    """The layout of the model that transformers will load from this checkpoint.

    ``config`` is ``config.json``, whose first ``architectures`` is the class that is loaded;
    ``tensors`` are the checkpoint's, by their names on disk. Nothing is guessed: ``None`` means
    that the table does not know the class or one of its parts, or that the tensors are not
    those of such a model. A module whose kind is known and whose sizes are not has
    ``in_features`` and ``out_features`` of ``None``: its weight is packed by a quantiser, is
    not in the checkpoint (a head that will be newly initialised), or belongs to no module that
    the table knows. The class is transformers' own, never one from a repository's code.
    """
    names = config.get("architectures")
    name = cast("list[Any]", names)[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or name not in architecture_table()["rows"]:
        return None
    try:
        model = _assemble(name, config)
        live = convert(
            _shapes(config, tensors),
            _rules(model.parts),
            model.parts[0].row.get("prefix", ""),
            model.has,
        )
        tied = _tie(model, live)
        known = sum(model.has(one) for one in live)
        if 2 * known < len(live):
            return None
        modules = _modules(model, live)
    except (ConversionError, UnknownArchitectureError):
        return None
    output = model.parts[0].row.get("output")
    return Layout(
        modules=modules,
        output_modules=frozenset({output}) & modules.keys(),
        tied=tied,
        prefix=model.parts[0].row.get("prefix", ""),
    )


def _shapes(
    config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]
) -> dict[str, Shape | None]:
    """A quantiser's integers are packed: their shape is not the weight's."""
    packed = bool(config.get("quantization_config"))
    return {
        name: None if packed and not info.dtype.startswith(("F", "BF")) else tuple(info.shape)
        for name, info in tensors.items()
    }


# --- the model -------------------------------------------------------------------------------


def _assemble(name: str, config: Mapping[str, Any]) -> Model:
    """Put the rows of a class and of its sub-models together, as the config asks."""
    row = architecture_table()["rows"][name]
    kind = config.get("model_type")
    root = Part("", name, row, config, kind if isinstance(kind, str) else row["type"])
    parts: list[Part] = []
    return Model(_expand(root, parts), parts)


def _expand(part: Part, parts: list[Part]) -> Tree:
    parts.append(part)
    return _copy(part, part.row["modules"], part.path, parts)


def _copy(part: Part, node: Tree, path: str, parts: list[Part]) -> Tree:
    """``node`` with every slot for a sub-model filled by that sub-model's tree."""
    out: Tree = {}
    for key, value in node.items():
        if isinstance(value, str):
            words = _filled(value, part.config)
            out[key] = words if key == "" else {"": words}
            continue
        below = f"{path}.{key.lstrip('?')}".lstrip(".")
        if "@" not in value:
            out[key] = _copy(part, value, below, parts)
            continue
        slot = value["@"]
        inner = _part(part, slot, below)
        out[key] = _expand(inner, parts)
        if inner.name == slot[0]:
            _remove(out[key], slot[3:])
    return out


def _filled(words: str, config: Mapping[str, Any]) -> str:
    """``C=field:16`` with the config's own number in place of the default."""

    def number(match: re.Match[str]) -> str:
        value = config.get(match[1])
        return f"C={value if isinstance(value, int) else match[2]}"

    return re.sub(r"C=(\w+):(\d+)", number, words) if ":" in words else words


def _part(parent: Part, slot: list[Any], path: str) -> Part:
    """The sub-model in a slot: its class, or the one that an auto class picks for its config."""
    name, where, auto, *_ = slot
    table = architecture_table()
    row = table["rows"][name]
    if where == "":
        return Part(path, name, row, parent.config, parent.model_type)
    config = parent.config.get(where) if where else None
    if not isinstance(config, Mapping):
        config = {}
    config = cast("Mapping[str, Any]", config)
    kind = config.get("model_type", row["type"]) if auto else row["type"]
    if kind != row["type"]:
        name = table["auto"].get(auto, {}).get(kind)
        if name is None:
            raise UnknownArchitectureError(f"{parent.name}: no class for {where} {kind!r}")
        row = table["rows"][name]
    return Part(path, name, row, config, kind)


def _remove(tree: Tree, changes: list[str]) -> None:
    """Take out what the sub-model lacks here (``-pooler``) or may lack (``?pooler``)."""
    for change in changes:
        above, _, last = change[1:].rpartition(".")
        node: Tree | None = tree
        for piece in above.split(".") if above else ():
            node = _step(node, piece)
        if node is None:
            continue
        value = node.pop(last, None) or node.pop(f"?{last}", None)
        if value is not None and change[0] == "?":
            node[f"?{last}"] = value


def _step(node: Tree | None, piece: str) -> Tree | None:
    if node is None:
        return None
    found = node.get(piece) or node.get(f"?{piece}")
    return found or (node.get("*") if piece.isdigit() else None)


def _rules(parts: list[Part]) -> Iterator[Rule]:
    """transformers' conversions for a model: the root's, then those of its parts, each within
    its own names, then the legacy ones. A part below one of the same class or type that was
    already served is covered by it."""
    table = architecture_table()["conversions"]
    served: dict[str, list[str]] = {}
    prefix = parts[0].row.get("prefix", "")

    def lookup(key: str) -> Any:
        value = table.get(key)
        return table[value] if isinstance(value, str) else value

    def covered(key: str, path: str) -> bool:
        return any(not one or path.startswith(f"{one}.") for one in served.get(key, ()))

    for part in parts:
        if covered(part.name, part.path):
            continue
        found = lookup(part.name)
        by_class = found is not None
        if not by_class:
            if covered(part.model_type, part.path):
                continue
            found = lookup(part.model_type)
        if found is None:
            continue
        scope = None
        if part.path:
            if "*" in part.path:
                raise UnknownArchitectureError(f"{part.path}: conversions in a list of models")
            inside = part.path.removeprefix(prefix).removeprefix(".")
            inside = f"{inside}." if inside else ""
            scope = (f"{prefix}.{inside}" if prefix else inside, inside)
        yield from (Rule.parse(one, scope) for one in found)
        served.setdefault(part.name, []).append(part.path)
        if not by_class:
            served.setdefault(part.model_type, []).append(part.path)
    yield from (Rule.parse(one) for one in lookup("legacy"))


# --- tied parameters -------------------------------------------------------------------------


def _tie(model: Model, live: dict[str, Shape | None]) -> dict[str, str]:
    """Add the tied parameters that the checkpoint leaves out to ``live``; all tied, by name."""
    tied: dict[str, str] = {}
    for part in model.parts:
        pairs = cast("Mapping[str, str]", part.row.get("tied", {}))
        if not pairs or not _ties(part):
            continue
        before = f"{part.path}." if part.path else ""
        for target, source in pairs.items():
            target, source = (before + one.strip("^$") for one in (target, source))
            if not re.fullmatch(r"[\w.]+", target + source):
                raise UnknownArchitectureError(f"{part.name}: tied by a pattern, {target}")
            for one, other in _pairs(model, live, target, source):
                shape = live.get(other) or live.get(one)
                live.setdefault(one, shape)
                live.setdefault(other, shape)
                tied[one] = tied.get(other, other)
    return tied


def _pairs(
    model: Model, live: Mapping[str, Shape | None], target: str, source: str
) -> Iterator[tuple[str, str]]:
    """The parameters that one entry of ``_tied_weights_keys`` ties: itself, or all of a module's."""
    ends = {""} if model.has(target) else {
        name[len(side) :]
        for side in (target, source)
        for name in live
        if name.startswith(f"{side}.")
    }
    for end in sorted(ends):
        one, other = target + end, source + end
        if model.has(one) and model.has(other) and (one in live or other in live):
            yield one, other


def _ties(part: Part) -> bool:
    """``tie_word_embeddings`` as the class of config makes it out, from its own and its text
    config's (see :func:`adapterdock.loader.architecture_table.tie_states`)."""
    text = part.config.get("text_config")
    inner = cast("Mapping[str, Any]", text) if isinstance(text, Mapping) else {}
    digits = part.row["tie"]

    def state(value: Any) -> int:
        return 0 if value is None else 2 if value else 1

    own = state(part.config.get("tie_word_embeddings"))
    return digits[(own + 3 * state(inner.get("tie_word_embeddings"))) % len(digits)] == "1"


# --- the modules -----------------------------------------------------------------------------


def _modules(model: Model, live: Mapping[str, Shape | None]) -> dict[str, ModuleShape]:
    """Every module that owns or contains a parameter, in the order of the model."""
    ignored = [*ALWAYS_IGNORED, *(p for part in model.parts for p in part.row.get("ignored", ()))]
    dropped = re.compile("|".join(f"({pattern})" for pattern in ignored))
    found: Tree = {}
    for name, shape in live.items():
        owner, _, own = name.rpartition(".")
        if not model.has(name):
            if dropped.search(name):
                continue
            owner, own = _nearest(model, owner, own)
        node = found
        for piece in owner.split(".") if owner else ():
            node = node.setdefault(piece, {})
        node.setdefault("", {})[own] = shape
    out: dict[str, ModuleShape] = {}
    _collect(model.tree, found, "", out, alone=True)
    return out


def _nearest(model: Model, owner: str, own: str) -> tuple[str, str]:
    """Where a tensor that the model does not know belongs: a quantiser's ``weight.absmax`` or
    ``qweight`` to the module it serves, any other to a module of its own."""
    name = f"{owner}.{own}"
    while owner:
        node = model.node(owner)
        if node is not None:
            return (owner, f"!{own}") if node.get("") else (name.rpartition(".")[0], f"?{own}")
        owner = owner.rpartition(".")[0]
    return name.rpartition(".")[0], f"?{own}"


def _collect(
    tree: Tree, found: Tree, path: str, out: dict[str, ModuleShape], *, alone: bool
) -> None:
    """Fill ``out`` in the order of ``tree``: what was found, and (``alone``: in no list, whose
    members may differ) what the checkpoint lacks and the model has all the same."""
    taken: set[str] = {""}
    for key, node in tree.items():
        if key == "":
            continue
        names = sorted((k for k in found if k.isdigit()), key=int) if key == "*" else [key]
        for name in names:
            name = name.removeprefix("?")
            inner = found.get(name)
            lacks = inner is None and not (alone and key[0] != "?" and _required(node))
            if name in taken or lacks:
                continue
            taken.add(name)
            here = f"{path}.{name}" if path else name
            out[here] = _shape(node.get("", ""), (inner or {}).get("", {}), inner)
            _collect(node, inner or {}, here, out, alone=alone and key != "*")
    for name in (one for one in found if one not in taken):
        here = f"{path}.{name}" if path else name
        out[here] = _stranger(found[name].get("", {}))
        _collect({}, found[name], here, out, alone=False)


def _required(node: Tree) -> bool:
    """Whether a module that the checkpoint lacks is there all the same, and owns something."""
    return bool(_parameters(node.get("", ""))) or any(
        _required(value) for key, value in node.items() if key and key[0] not in "*?"
    )


def _parameters(words: str) -> list[str]:
    return [word for word in words.split() if word[0] not in "-C"]


def _owns(words: str, name: str) -> bool:
    """Whether a module described so has this parameter or buffer of its own.

    ``2`` is a weight of that many dimensions and of their usual kind, ``2E`` one of another
    kind, ``+name`` another parameter, ``-name`` a buffer. A weight may have a bias beside it.
    """
    every = words.split()
    if name == "weight" or name == "bias" or name in BATCH_NORM:
        return any(word[0].isdigit() for word in every) or f"+{name}" in every
    return any(
        word[0] in "+-" and (word[1:] == name or (word[1:] == "*" and name.isdigit()))
        for word in every
    )


def _shape(words: str, own: Mapping[str, Shape | None], found: Tree | None) -> ModuleShape:
    """A module by its description and its own tensors."""
    every = words.split()
    parameters = {
        name: shape
        for name, shape in own.items()
        if shape is not None
        and name[0] not in "!?"
        and name not in BATCH_NORM
        and f"-{name}" not in every
    }
    weight = own.get("weight") or _parametrised(found)
    if any(name[0] == "!" for name in own):
        weight = None
    kinds = {
        word[1:] or USUAL[int(word[0])]
        for word in every
        if word[0].isdigit() and (weight is None or int(word[0]) == len(weight))
    }
    kind = KINDS[kinds.pop()] if len(kinds) == 1 else ModuleKind.OTHER
    if weight is None:
        return ModuleShape(kind, parameters=parameters)
    if kind is ModuleKind.LINEAR:
        return ModuleShape(kind, weight[1], weight[0], parameters)
    if kind in (ModuleKind.CONV1D, ModuleKind.EMBEDDING):
        return ModuleShape(kind, weight[0], weight[1], parameters)
    if kind is ModuleKind.CONV:
        groups = _groups({word[2:] for word in every if word.startswith("C=")}, weight)
        inner = None if groups is None else weight[1] * groups
        return ModuleShape(kind, inner, weight[0], parameters, weight[2:], groups or 1)
    return ModuleShape(kind, parameters=parameters)


def _parametrised(found: Tree | None) -> Shape | None:
    """The weight that torch's ``weight_norm`` computes has the shape of its ``original1``."""
    inner = (found or {}).get("parametrizations", {}).get("weight", {}).get("", {})
    return inner.get("original1") or inner.get("original")


def _groups(said: set[str], weight: Shape) -> int | None:
    """How many groups a convolution has, from all that was seen at its name."""
    if said == {"1", "*"} and weight[1] > 1:
        return 1
    if len(said) > 1:
        return None
    one = next(iter(said), "1")
    return weight[0] if one == "*" else int(one)


def _stranger(own: Mapping[str, Shape | None]) -> ModuleShape:
    """A module that the table does not know: perhaps there, perhaps unexpected."""
    weight = own.get("?weight")
    return ModuleShape(KINDS[USUAL.get(len(weight), "O")] if weight else ModuleKind.OTHER)
