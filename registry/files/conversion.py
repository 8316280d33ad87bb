"""transformers' checkpoint conversions, applied to names and shapes.

Follows ``transformers/core_model_loading.py`` (5.23): every renaming in turn, then at most one
converter, which gathers several tensors of the checkpoint into one of the model, or splits one into
several. The rules are data that ``loader.tables.architecture_table`` exports.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

Shape = tuple[int, ...]

Shapes = dict[str, list[Shape]]
"""By source or target pattern, its tensors; none where they are unknown."""


class ConversionError(ValueError):
    """The checkpoint's tensors cannot be converted as transformers would."""


@dataclass
class Rule:
    """One renaming or converter. With a ``scope`` it applies only under these prefixes."""

    match: re.Pattern[str]
    to: tuple[str, ...]
    sources: tuple[str, ...] = ()
    operations: tuple[Sequence[Any], ...] = ()
    offset: int | None = None
    guarded: bool = False
    scope: tuple[str, ...] | None = None
    awake: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, data: Any, scope: tuple[str, ...] | None = None) -> Rule:
        """One entry of the table's ``conversions``."""
        if isinstance(data, list):
            return cls(re.compile(data[0]), (data[1],), scope=scope)
        return cls(
            re.compile(data["match"]),
            tuple(data["to"]),
            tuple(data.get("from", ())),
            tuple(data.get("do", ())),
            data.get("offset"),
            data.get("guarded", False),
            scope,
        )

    def rename(self, name: str) -> tuple[str, str | None]:
        """``name`` in the model, and the number of the source pattern that matched."""
        prefix = ""
        if self.scope is not None:
            inside = next((part for part in self.scope if name.startswith(part)), None)
            if inside is None:
                return name, None
            prefix = inside
        rest = name[len(prefix) :]
        found = self.match.search(rest)
        if found is None:
            return name, None
        group = next(key for key, value in found.groupdict().items() if value is not None)
        index, target = int(group[1:]), self.to[0]
        captured = self.match.groupindex[group]
        if self.guarded:
            # a chain of renamings (0 to 1, 1 to 2) runs only where its first name exists
            self.awake = self.awake or index == 0
            if not self.awake:
                return name, None
            target = self.to[index]
            target = re.sub(r"\\(\d)", lambda m: found.group(captured + int(m.group(1))), target)
        elif self.offset is not None:
            target = target.replace(r"\1", str(int(found.group(captured + 1)) + self.offset))
        elif r"\1" in target:
            target = target.replace(r"\1", found.group(captured + 1))
        source = self.sources[index] if self.sources else group
        return prefix + rest.replace(found.group(0), target, 1), source


def convert(
    tensors: Mapping[str, Shape | None],
    rules: Iterable[Rule],
    prefix: str,
    exists: Callable[[str], bool],
) -> dict[str, Shape | None]:
    """Live names and shapes of a checkpoint's ``tensors``.

    ``prefix`` is the model's ``base_model_prefix``, which is added or stripped where the result is
    a name that ``exists`` in the model. An unknown shape is ``None``. Names that do not exist in
    the model are returned too. Raises :class:`ConversionError`.
    """
    rules = list(rules)
    renamings = [rule for rule in rules if not rule.operations]
    converters = [rule for rule in rules if rule.operations]
    live: dict[str, Shape | None] = {}
    gathered: dict[str, tuple[Rule, dict[str, list[Shape | None]]]] = {}
    for name in sorted(tensors, key=natural):
        renamed, source, rule, _ = rename(name, renamings, converters, prefix, exists)
        if source is None or rule is None or not exists(renamed):
            live[renamed] = tensors[name]
        else:
            rule, parts = gathered.setdefault(renamed, (rule, {}))
            parts.setdefault(source, []).append(tensors[name])
    for name, (rule, parts) in gathered.items():
        live.update(_operate(name, rule, parts))
    return live


class Renamed(NamedTuple):
    """The result for one name: the ``name`` in the model, the converter (``rule``) that gathers or
    splits its tensor with the source pattern that matched, and the name before the converter."""

    name: str
    source: str | None
    rule: Rule | None
    before: str


def rename(
    name: str,
    renamings: Iterable[Rule],
    converters: Iterable[Rule],
    prefix: str,
    exists: Callable[[str], bool],
) -> Renamed:
    """``name`` after every renaming in turn and at most one converter; see :func:`convert`."""
    before = name
    for renaming in renamings:
        before, _ = renaming.rename(before)
    renamed, source, rule = before, None, None
    for rule in converters:
        renamed, source = rule.rename(renamed)
        if source is not None:
            break
    renamed = _prefixed(renamed, prefix, exists)
    if not exists(renamed) and exists(name):
        renamed, source = _prefixed(name, prefix, exists), None
    return Renamed(renamed, source, rule if source is not None else None, before)


def natural(name: str) -> list[tuple[Any, ...]]:
    """transformers' order: numbers by value, before words; words by their trailing number."""
    key: list[tuple[Any, ...]] = []
    for part in name.split("."):
        stem = part.rstrip("0123456789")
        if part.isdecimal():
            key.append((0, int(part)))
        elif stem != part:
            key.append((1, stem, int(part[len(stem) :])))
        else:
            key.append((1, part))
    return key


def _prefixed(name: str, prefix: str, exists: Callable[[str], bool]) -> str:
    if prefix and name.startswith(prefix) and exists(name[len(prefix) + 1 :]):
        return name[len(prefix) + 1 :]
    if prefix and exists(f"{prefix}.{name}"):
        return f"{prefix}.{name}"
    return name


def _operate(
    name: str, rule: Rule, parts: Mapping[str, list[Shape | None]]
) -> dict[str, Shape | None]:
    """Run a converter's operations on shapes; every target by its full name."""
    if any(shape is None for shapes in parts.values() for shape in shapes):
        state = _unknown({}, rule)
    else:
        state = {key: [s for s in shapes if s is not None] for key, shapes in parts.items()}
        try:
            for operation, *arguments in rule.operations:
                state = OPERATIONS[operation](state, rule, *arguments)
        except (IndexError, ValueError) as error:  # too few dimensions, or too many tensors
            raise ConversionError(f"{name}: {error}") from error
    full = name.replace("*.", "0.")
    part = next((key for key in state if key in full), None)
    if part is None:
        raise ConversionError(f"{name}: the name contains no target of {list(rule.to)}")
    before, _, after = full.partition(part)
    return {before + key + after: (shapes or [None])[0] for key, shapes in state.items()}


def _stacked(shapes: list[Shape], dim: int) -> Shape:
    if len({*shapes}) != 1:
        raise ConversionError(f"cannot stack tensors of several shapes: {sorted({*shapes})}")
    return (*shapes[0][:dim], len(shapes), *shapes[0][dim:])


def _joined(shapes: list[Shape], dim: int) -> Shape:
    others = {(*shape[:dim], *shape[dim + 1 :]) for shape in shapes}
    if len(others) != 1:
        raise ConversionError(f"cannot concatenate along {dim}: {sorted({*shapes})}")
    first = shapes[0]
    return (*first[:dim], sum(shape[dim] for shape in shapes), *first[dim + 1 :])


def _merge(state: Shapes, rule: Rule, dim: int) -> Shapes:
    """``MergeModulelist``: each list of tensors becomes one, with a new dimension."""
    return {
        rule.to[0] if len(state) == 1 else key: [_stacked(shapes, dim)]
        for key, shapes in state.items()
    }


def _concatenate(state: Shapes, rule: Rule, dim: int) -> Shapes:
    return {rule.to[0]: [_joined(list(chain(*state.values())), dim)]}


def _chunk(state: Shapes, rule: Rule, dim: int, shards: str | None = None) -> Shapes:
    if shards is not None:
        raise ConversionError(f"the number of parts is in the config ({shards})")
    (shapes,) = state.values()
    if not shapes:
        return _unknown(state, rule)
    shape = shapes[0]
    size = -(-shape[dim] // len(rule.to))
    return {
        target: [(*shape[:dim], min(size, shape[dim] - n * size), *shape[dim + 1 :])]
        for n, target in enumerate(rule.to)
    }


def _unknown(state: Shapes, rule: Rule, *_: Any) -> Shapes:
    """``Split``: the parts have the sizes of the model's own parameters."""
    return {target: [] for target in rule.to}


def _transpose(state: Shapes, rule: Rule, dim0: int, dim1: int, check: bool = False) -> Shapes:
    ((key, shapes),) = state.items()
    target = rule.to[0] if len(rule.to) == 1 else key
    if not shapes or (check and shapes[0][dim0] != shapes[0][dim1]):
        return {target: []}  # transposed only where the model's own shape requires it
    turned = list(shapes[0])
    turned[dim0], turned[dim1] = turned[dim1], turned[dim0]
    return {target: [tuple(turned)]}


def _same(state: Shapes, rule: Rule, *_: Any) -> Shapes:
    """Values move, the shape stays."""
    if len(state) == 1 and len(rule.to) == 1:
        return {rule.to[0]: next(iter(state.values()))}
    return state


def _flatten(state: Shapes, rule: Rule) -> Shapes:
    """``Conv3dToLinear``: (out, in, *kernel) becomes (out, in x kernel)."""
    (shapes,) = state.values()
    return {rule.to[0]: [(shape[0], math.prod(shape[1:])) for shape in shapes[:1]]}


def _deal(state: Shapes, rule: Rule, stack: int, join: int) -> Shapes:
    """Ernie's experts: each list is divided in order among the targets, stacked, then joined."""
    out: Shapes = {}
    for number, target in enumerate(rule.to):
        parts: list[Shape] = []
        for source in rule.sources:
            shapes = state.get(source, [])
            size = -(-len(shapes) // len(rule.to))
            parts.append(_stacked(shapes[number * size : (number + 1) * size], stack))
        out[target] = [_joined(parts, join)]
    return out


OPERATIONS: dict[str, Callable[..., Shapes]] = {
    "MergeModulelist": _merge,
    "Concatenate": _concatenate,
    "Chunk": _chunk,
    "Split": _unknown,
    "Transpose": _transpose,
    "Interleave": _same,
    "PermuteForRope": _same,
    "Conv3dToLinear": _flatten,
    "ErnieFuseAndSplitTextVisionExperts": _deal,
}
"""transformers' operations by class name, on shapes."""
