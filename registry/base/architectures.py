"""The modules that a live transformers model will have, from its config and header, without torch.

``architectures.json`` is exported from transformers by ``loader.tables.architecture_table``: one
row for every class that is a model or part of one. The rows are combined as the config says, the
checkpoint's names are converted as in transformers (``registry.files.conversion``), and each tensor
is put into its module.
"""

from __future__ import annotations

import json
import re
from collections import UserDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from ..files.conversion import ConversionError, Rule, Shape, convert
from ..files.facts import DECODED, EMBEDS, INPUTS, Layout, ModuleKind, ModuleShape, TensorInfo
from .module_tree import Tree, has, modules_of, node_at
from .packed import unpacked, with_stand_ins

ALWAYS_IGNORED = (r"rotary_emb\.inv_freq", r"(^|\.)position_ids$")
"""Buffers of old checkpoints that transformers drops for every class."""

LONGEST_NAME = 512
"""Characters; four times the longest tensor name in the table."""


@dataclass(frozen=True)
class SubModel:
    """One ``PreTrainedModel`` of a model: its path, its row, and its part of the config."""

    path: str
    name: str
    row: Mapping[str, Any]
    config: Mapping[str, Any]
    model_type: str

    def at(self, name: str) -> str:
        """The full name of a module or parameter in this part."""
        return f"{self.path}.{name}".strip(".")


class UnknownArchitectureError(LookupError):
    """The table does not have this model, or not all of it."""


class Lines(UserDict[str, Any]):
    """A JSON object with one member a line; a member is parsed when it is first read. ``data`` has
    the members as text."""

    def __init__(self, lines: Iterable[str]) -> None:
        cut = ((line.index('":'), line) for line in lines)
        self.data = {line[1:at]: line[at + 2 :].rstrip(",") for at, line in cut}
        self._parsed: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._parsed:
            self._parsed[key] = json.loads(self.data[key])
        return self._parsed[key]


@cache
def architecture_table() -> Mapping[str, Any]:
    """The committed table; ``["transformers"]`` is the version that it was exported from.

    ``conversions``, ``auto`` and ``rows`` are parsed line by line, on use: all of them at once
    would take much of the time of a ``validate``.
    """
    path = Path(__file__).parents[1] / "architectures.json"
    text = path.read_text(encoding="utf-8")
    lines: dict[str, list[str]] = {}
    section: list[str] = []
    for line in text.splitlines()[2:]:
        if line.endswith(":{"):
            section = lines.setdefault(line[1:-3], [])
        elif line[0] != "}":
            section.append(line)
    version = json.loads("{" + text.split("\n", 2)[1].rstrip(",") + "}")
    return {**version, **{name: Lines(members) for name, members in lines.items()}}


def layout_of(
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    reported: Mapping[str, Shape] = MappingProxyType({}),
) -> Layout | None:
    """The layout of the model that transformers will load from this checkpoint.

    ``config`` is ``config.json``, whose first ``architectures`` is the class that is loaded;
    ``tensors`` are the checkpoint's, by their names on disk. A packed tensor counts as the weight
    that it was (``registry.base.packed``), with its size in ``reported``, if there is one.
    Nothing is guessed: ``None`` means that the table does not have the class or one of its parts,
    or that the tensors do not match such a model. A module of a known kind and unknown sizes has
    ``in_features`` and ``out_features`` of ``None``: its weight is packed in a way that hides them,
    is not in the checkpoint (a head that will be newly initialised), or belongs to a module that
    the table does not have. The class is transformers' own, never from a repository's code.
    """
    names = config.get("architectures")
    name = cast("list[Any]", names)[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or name not in architecture_table()["rows"]:
        return None
    if any(len(tensor) > LONGEST_NAME or "" in tensor.split(".") for tensor in tensors):
        return None  # no model has such names, and the rules' patterns are slow on long ones
    parts: list[SubModel] = []
    try:
        tree = _expand(_root(name, config), parts)
        if any("unsure" in part.row for part in parts):
            return None
        prefix = parts[0].row.get("prefix", "")
        rules = tuple(_rules(parts))
        stored = unpacked(config, tensors, reported)
        live = convert(stored.shapes, rules, prefix, partial(has, tree))
        # packed tensors are those that have no shape after the same conversion
        hidden = {n: None if n in stored.packed else shape for n, shape in stored.shapes.items()}
        unsized = convert(hidden, rules, prefix, partial(has, tree)) if stored.packed else {}
        tied = _tie(parts, tree, live)
    except (ConversionError, UnknownArchitectureError):
        return None
    ignored = _ignored(parts)
    strangers = {name for name in live if not has(tree, name)}
    without = _left_out(parts)
    dropped = {name for name in strangers if ignored.search(name) or name.startswith(without)}
    if 2 * len(strangers - dropped) >= len(live.keys() - dropped):
        return None  # another model's tensors
    dropped |= _of_other_classes(parts[0], strangers - dropped)
    live = {n: shape for n, shape in live.items() if n not in dropped}
    modules = _without_lists(parts, modules_of(tree, live, _exact(parts, live)))
    packed = frozenset(name for name, shape in unsized.items() if not shape and has(tree, name))
    packed |= {name for name, source in tied.items() if source in packed}
    output = parts[0].row.get("output", "")
    heads = frozenset({output} & modules.keys())
    return Layout(
        with_stand_ins(modules, packed),
        heads,
        tied,
        prefix,
        packed,
        _inputs(parts, modules),
        parts[0].model_type,
        conversions=lambda: rules,
    )


def _without_lists(
    parts: list[SubModel], modules: Mapping[str, ModuleShape]
) -> dict[str, ModuleShape]:
    """``modules``, with lists of modules marked as never called."""
    paths = [part.at(name) for part in parts for name in part.row.get("lists", ())]
    names = re.compile("|".join(re.escape(path).replace(r"\*", r"\d+") for path in paths) or "(?!)")
    return {
        name: replace(module, called=False)
        if module.kind is ModuleKind.OTHER and names.fullmatch(name)
        else module
        for name, module in modules.items()
    }


def _inputs(parts: list[SubModel], modules: Collection[str]) -> frozenset[str]:
    """The model's inputs beside ids: no embeddings where it looks up their ids again."""
    row = parts[0].row
    taken = INPUTS.difference(row.get("lacks", ()), () if row.get("decodes") else (DECODED,))
    again = (part.at(name) for part in parts for name in part.row.get("ids", ()))
    return taken - {EMBEDS} if any(name in modules for name in again) else taken


def conversions_of(name: str, config: Mapping[str, Any]) -> tuple[Rule, ...]:
    """transformers' conversions for a model of the class ``name`` with this ``config.json``; none
    where the table does not have it."""
    if name not in architecture_table()["rows"]:
        return ()
    parts: list[SubModel] = []
    try:
        _expand(_root(name, config), parts)
        return tuple(_rules(parts))
    except UnknownArchitectureError:
        return ()


# --- the model -------------------------------------------------------------------------------


def _root(name: str, config: Mapping[str, Any]) -> SubModel:
    row = architecture_table()["rows"][name]
    kind = config.get("model_type")
    return SubModel("", name, row, config, kind if isinstance(kind, str) else row["type"])


def _expand(part: SubModel, parts: list[SubModel]) -> Tree:
    """The tree of a class with those of its sub-models, which are added to ``parts`` in the order
    of ``named_modules``."""
    parts.append(part)
    return _copy(part, part.row["modules"], part.path, parts)


def _copy(part: SubModel, node: Tree, path: str, parts: list[SubModel]) -> Tree:
    """``node`` with the tree of the sub-model in every slot for one."""
    out: Tree = {}
    needs = cast("Mapping[str, str]", part.row.get("needs", {}))
    for key, value in node.items():
        below = f"{path}.{key.lstrip('?')}".strip(".")
        need = needs.get(below.removeprefix(part.path).lstrip(".")) if key else None
        if need is not None:
            if not _is_configured(part.config, need):
                continue
            key = key.lstrip("?")
        if isinstance(value, str):
            words = _filled(value, part.config)
            out[key] = words if key == "" else {"": words}
            continue
        if "@" not in value:
            out[key] = _copy(part, value, below, parts)
            continue
        slot = value["@"]
        inner = _part(part, slot, below)
        out[key] = _expand(inner, parts)
        if inner.name == slot[0]:
            _remove(out[key], slot[3:])
    return out


def _is_configured(config: Mapping[str, Any], need: str) -> bool:
    """Whether the config has the sub-config that a module needs, or lacks the one that the module
    replaces (``!backbone_config``)."""
    return (config.get(need.lstrip("!")) is not None) != need.startswith("!")


def _left_out(parts: list[SubModel]) -> tuple[str, ...]:
    """Prefixes of modules that the config leaves out; transformers drops their tensors."""
    return tuple(
        f"{part.at(name)}."
        for part in parts
        for name, need in part.row.get("needs", {}).items()
        if not _is_configured(part.config, need)
    )


def _exact(parts: list[SubModel], live: Iterable[str]) -> dict[str, str]:
    """The words of single members of a list with different members, where the checkpoint has the
    same members as the surveyed model."""
    found: dict[str, str] = {}
    owners = (
        {name.rpartition(".")[0] for name in live} if any("members" in p.row for p in parts) else ()
    )
    for part in parts:
        for path, words in part.row.get("members", {}).items():
            name = re.compile(re.escape(part.at(path)).replace(r"\*", r"\d+"))
            here = {part.at(own): said for own, said in words.items()}
            if {owner for owner in owners if name.fullmatch(owner)} == here.keys():
                found |= here
    return found


def _filled(words: str, config: Mapping[str, Any]) -> str:
    """``C=field:16`` with the config's number instead of the default."""

    def number(match: re.Match[str]) -> str:
        value = config.get(match[1])
        return f"C={value if isinstance(value, int) else match[2]}"

    return re.sub(r"C=(\w+):(\d+)", number, words) if ":" in words else words


def _part(parent: SubModel, slot: list[Any], path: str) -> SubModel:
    """The sub-model in a slot: its class, or the one that an auto class picks for its config."""
    name, where, auto, *_ = slot
    table = architecture_table()
    row = table["rows"][name]
    if where == "":
        return SubModel(path, name, row, parent.config, parent.model_type)
    config = parent.config.get(where) if where else None
    if not isinstance(config, Mapping):
        config = {}
    config = cast("Mapping[str, Any]", config)
    kind = config.get("model_type", row["type"]) if auto else row["type"]
    if kind != row["type"]:
        name = table["auto"].get(auto, {}).get(kind) if isinstance(kind, str) else None
        if name is None:
            raise UnknownArchitectureError(f"{parent.name}: no class for {where} {kind!r}")
        row = table["rows"][name]
    return SubModel(path, name, row, config, kind)


def _remove(tree: Tree, changes: list[str]) -> None:
    """Remove what the sub-model lacks here (``-pooler``) or may lack (``?pooler``)."""
    for change in changes:
        above, _, last = change[1:].rpartition(".")
        node = node_at(tree, above)
        if node is None:
            continue
        value = node.pop(last, None) or node.pop(f"?{last}", None)
        if value is not None and change[0] == "?":
            node[f"?{last}"] = value


def _rules(parts: list[SubModel]) -> Iterator[Rule]:
    """transformers' conversions for a model: the root's, then those of its parts, each for its own
    names, then the legacy ones. A part inside a part of the same class or type adds none."""
    table = architecture_table()["conversions"]
    served: dict[str, list[str]] = {}
    prefix = parts[0].row.get("prefix", "")

    def lookup(key: str) -> Any:
        value = table.get(key)
        return table[value] if isinstance(value, str) else value

    def covered(key: str, path: str) -> bool:
        return any(not outer or path.startswith(f"{outer}.") for outer in served.get(key, ()))

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
        yield from (Rule.parse(rule, scope) for rule in found)
        served.setdefault(part.name, []).append(part.path)
        if not by_class:
            served.setdefault(part.model_type, []).append(part.path)
    yield from map(Rule.parse, lookup("legacy"))


def _ignored(parts: list[SubModel]) -> re.Pattern[str]:
    """Names in a checkpoint that the model silently drops."""
    patterns = list(ALWAYS_IGNORED)
    for part in parts:
        patterns += part.row.get("ignored", ())
    return re.compile("|".join(f"({pattern})" for pattern in patterns))


def _of_other_classes(root: SubModel, names: Collection[str]) -> set[str]:
    """Those of ``names`` that this class drops because another class of the same type has them: the
    pooler or the head of ``BertForPreTraining`` in a checkpoint for ``BertForMaskedLM``."""
    found: set[str] = set()
    rows: Lines = architecture_table()["rows"]
    same = f'{{"type":{json.dumps(root.row["type"])},'  # the start of every row of this type
    for name, line in rows.data.items():
        if names and line.startswith(same) and name != root.name:
            tree = _expand(_root(name, root.config), [])
            found |= {tensor for tensor in names if has(tree, tensor)}
    return found


# --- tied parameters -------------------------------------------------------------------------


def _tie(parts: list[SubModel], tree: Tree, live: dict[str, Shape | None]) -> dict[str, str]:
    """Add the tied parameters that the checkpoint leaves out to ``live``. Returns each tied
    parameter with its source."""
    tied: dict[str, str] = {}
    for part in parts:
        pairs = cast("Mapping[str, str]", part.row.get("tied", {}))
        shared = cast("list[str]", part.row.get("shared", []))
        if not (pairs or shared) or not _ties(part):
            continue
        for path in shared:
            copies = _copies(part.at(path), live)
            live |= {copy: live[source] for copy, source in copies.items()}
            tied |= copies
        for target, source in pairs.items():
            target, source = (part.at(name.strip("^$")) for name in (target, source))
            if not re.fullmatch(r"[\w.]+", target + source):
                raise UnknownArchitectureError(f"{part.name}: tied by a pattern, {target}")
            for name, origin in _pairs(tree, live, target, source):
                shape = live.get(origin) or live.get(name)
                live.setdefault(name, shape)
                live.setdefault(origin, shape)
                tied[name] = tied.get(origin, origin)
    return tied


def _copies(path: str, live: Mapping[str, Shape | None]) -> dict[str, str]:
    """The parameters that layers share with the first layers of their kind: only those have them in
    the checkpoint. ``path`` is ``layers.*.shared_transf``: a layer without that module, but with
    the same other modules, shares it. Where several layers have their own, the others take turns.
    """
    before, _, shared = path.partition("*.")
    layers: dict[int, dict[str, list[str]]] = {}
    for name in live:
        number, _, rest = name.removeprefix(before).partition(".")
        if name.startswith(before) and number.isdecimal() and rest:
            inner = layers.setdefault(int(number), {})
            inner.setdefault(rest.partition(".")[0], []).append(rest)
    sources = sorted(number for number, inner in layers.items() if shared in inner)
    if not sources:
        return {}
    beside = layers[sources[0]].keys() - {shared}
    alike = sorted(n for n, inner in layers.items() if inner.keys() - {shared} == beside)
    return {
        f"{before}{number}.{rest}": f"{before}{source}.{rest}"
        for turn, number in enumerate(alike)
        if number not in sources
        for source in [sources[turn % len(sources)]]
        for rest in layers[source][shared]
    }


def _pairs(
    tree: Tree, live: Mapping[str, Shape | None], target: str, source: str
) -> Iterator[tuple[str, str]]:
    """The parameters that an entry of ``_tied_weights_keys`` ties: one, or all of a module."""
    ends = {""}
    if not has(tree, target):
        sides = [(name, side) for name in live for side in (target, source)]
        ends = {name[len(side) :] for name, side in sides if name.startswith(f"{side}.")}
    for end in sorted(ends):
        name, origin = target + end, source + end
        if has(tree, name) and has(tree, origin) and (name in live or origin in live):
            yield name, origin


def _ties(part: SubModel) -> bool:
    """``tie_word_embeddings`` as the config class derives it, from its own and its text config's
    value (see ``tie_states``)."""
    text = part.config.get("text_config")
    inner = cast("Mapping[str, Any]", text) if isinstance(text, Mapping) else {}
    digits = part.row["tie"]

    def state(value: Any) -> int:
        return 0 if value is None else 2 if value else 1

    own = state(part.config.get("tie_word_embeddings"))
    return digits[(own + 3 * state(inner.get("tie_word_embeddings"))) % len(digits)] == "1"
