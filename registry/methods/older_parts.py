"""Today's factors for adapted modules that are a part of another one today, or several."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Where
from ..files.conversion import ConversionError, Rule, Shape
from ..files.facts import Joined, Piece, TensorInfo
from ..files.names import PEFT_PREFIX
from .lora import scale_of
from .lora_config import LoraConfig
from .method import Method
from .naming import WRAPPER, strip_peft_prefix
from .older_factors import Fused, Pair, PairPart, fuse, split
from .older_modules import Moves, Part, like
from .older_names import (
    AmbiguousNameError,
    OlderNames,
    numberless,
    numbers_of,
    pattern_of,
    renumbered,
    spelled,
    stacks,
    targets_of,
)
from .patterns import Patterns, PatternTable


@dataclass
class Regrouped:
    """What became of the parts. ``config`` is a :class:`LoraConfig` where the method is ``ranked``.

    Attributes:
        joined: By today's key, the shape of a tensor and what it is made of.
        fused: By today's parameter, the factors that its parts have together.
        modules: (the file's module, today's) where one became several, or several one.
    """

    method: Method
    config: LoraConfig
    patterns: Patterns
    tensors: Mapping[str, TensorInfo]
    names: OlderNames
    where: Where
    findings: list[Finding] = field(default_factory=list)
    joined: dict[str, tuple[Shape, Joined]] = field(default_factory=dict)
    fused: dict[str, Fused] = field(default_factory=dict)
    modules: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ranks = PatternTable(self.config.rank_pattern, self.patterns)
        self._alphas = PatternTable(self.config.alpha_pattern, self.patterns)
        self._stems: dict[str, tuple[str, Rule]] = {}

    def regroup(self, moves: Moves) -> None:
        """Make today's factors; ``findings`` say why some cannot be made. Raises
        ``AmbiguousNameError``."""
        for name, parts in moves.parts.items():
            try:
                self._regroup(name, parts)
            except ConversionError as error:
                message = f"Cannot convert {parts[0].author}, which is part of {name} today"
                self.findings.append(
                    codes.OLDER_LAYOUT_UNCONVERTIBLE.finding(f"{message}: {error}", self.where)
                )
                return
        self._place(moves)

    def _regroup(self, name: str, parts: list[Part]) -> None:
        if not self.method.ranked:
            raise ConversionError(f"{self.method.peft_type} cannot adapt a part of a weight")
        rule = parts[0].place.rule
        assert rule is not None
        if len(rule.to) == 1:
            self._join(name, rule, parts)
        elif len(parts) == 1:
            self._cut(name, rule, parts[0])
        else:
            raise AmbiguousNameError(parts[0].author, [name])

    def _join(self, name: str, rule: Rule, parts: list[Part]) -> None:
        """Make the factors of several older modules that are one weight today."""
        shape = self.names.shape(name)
        if shape is None:
            raise ConversionError("its size today is not known")
        pairs: dict[PairPart, Pair] = {}
        for part in parts:
            at = (part.place.source, part.place.expert)
            if at in pairs:
                raise AmbiguousNameError(part.author, [name])
            pairs[at] = self._pair(part)
        first = parts[0]
        if numberless(name) not in self._stems:
            found = pattern_of(first.place.source).search(f"{first.core}.weight")
            if found is not None:
                self._stems[numberless(name)] = first.core[: found.start()], rule
        self.fused[name] = fuse(rule, shape, pairs)

    def _pair(self, part: Part) -> Pair:
        config = self.config
        if more := sorted(set(part.roles) - {"A", "B"}):
            raise ConversionError(f"{part.author} has {', '.join(more)}, which a part cannot have")
        a, b = self._both(part)
        shapes = self.tensors[a].shape, self.tensors[b].shape
        if any(len(shape) != 2 or 0 in shape for shape in shapes):
            raise ConversionError(f"the factors of {part.author} are not matrices")
        core, found = part.core, shapes[0][0]
        rank = self._ranks.get(core, config.r)
        if found != rank:
            self.findings.append(
                codes.RANK_MISMATCH.finding(
                    f"Rank {found} in the file at {core}, but {rank} in the config",
                    self.where,
                    found=f"rank {found}",
                    expected=f"rank {rank} (r and rank_pattern)",
                )
            )
            raise ConversionError(f"the file and the config give {core} different ranks")
        alpha = self._alphas.get(core, config.alpha)
        return Pair(a, b, *shapes, scale_of(config, rank, alpha))

    @staticmethod
    def _both(part: Part) -> tuple[str, str]:
        if not {"A", "B"} <= part.roles.keys():
            raise ConversionError(f"{part.author} has only one of its two factors")
        return part.roles["A"], part.roles["B"]

    def _cut(self, name: str, rule: Rule, part: Part) -> None:
        """Cut the factors of a module that is several today: each has A, and its rows of B."""
        targets = targets_of(name, rule)
        height = (self.tensors[self._both(part)[1]].shape or (0,))[0]
        pieces = split(rule, [self.names.shape(target) for target in targets], height)
        for target, rows in zip(targets, pieces, strict=True):
            module = target.removesuffix(".weight")
            for role, key in part.roles.items():
                shape, taken = self.tensors[key].shape, slice(None)
                if role not in ("A", "B", "B_bias", "magnitude"):
                    raise ConversionError(f"{part.author} has {role}")
                if role != "A":
                    shape, taken = (rows.stop - rows.start, *shape[1:]), rows
                piece = Piece(key, tuple(slice(0, size) for size in shape), taken)
                today = like(key, module + strip_peft_prefix(key)[len(part.author) :])
                self.joined[today] = (shape, Joined(shape, (piece,)))
            self.modules.append((part.core, module))

    def _place(self, moves: Moves) -> None:
        """Name the fused factors. The first of a module's parameters is the innermost."""
        owners: dict[str, list[str]] = {}
        for name in self.fused:
            owner, _, own = name.rpartition(".")
            if own == "weight":
                self._put(name, owner)
                self.modules += [(part.author, owner) for part in moves.parts[name]]
            else:
                owners.setdefault(owner, []).append(own)
        for owner, own in owners.items():
            if owner in moves.modules.values():
                raise AmbiguousNameError(owner, ["factors of today", "factors of before"])
            order = [one for one in self.names.layout.modules[owner].parameters if one in own]
            for depth, one in enumerate(reversed(order)):
                self._put(f"{owner}.{one}", owner + f".{WRAPPER}" * depth)

    def _put(self, name: str, author: str) -> None:
        fused = self.fused[name]
        self.joined[f"{PEFT_PREFIX}{author}.lora_A.weight"] = (fused.a_shape, fused.a)
        self.joined[f"{PEFT_PREFIX}{author}.lora_B.weight"] = (fused.b_shape, fused.b)

    def ranks(self) -> dict[str, int]:
        """What ``rank_pattern`` says of the fused factors."""
        return {name.removesuffix(".weight"): fused.rank for name, fused in self.fused.items()}

    def alphas(self) -> dict[str, float]:
        """What ``alpha_pattern`` says of the fused factors: the alphas that give their scales."""
        found: dict[str, float] = {}
        for name, fused in self.fused.items():
            divisor = math.sqrt(fused.rank) if self.config.rslora else fused.rank
            alpha = fused.scale * divisor
            found[name.removesuffix(".weight")] = int(alpha) if alpha == int(alpha) else alpha
        return found

    def parts_of(self, name: str) -> Iterator[tuple[str, PairPart]]:
        """The older modules that are in the parameter ``name`` today, if the file shows how they
        were called."""
        if numberless(name) not in self._stems:
            return
        stem, rule = self._stems[numberless(name)]
        numbers, shape = numbers_of(name), self.names.shape(name)
        experts = range(shape[0]) if shape is not None and stacks(rule) else (None,)
        if len(numbers_of(stem)) == len(numbers):
            stem = renumbered(stem, numbers)
        for source in rule.sources:
            for expert in experts:
                yield (stem + spelled(source, expert)).removesuffix(".weight"), (source, expert)
