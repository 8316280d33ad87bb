"""An adapter of an older transformers, read as one of today's.

Its names are those that the modules had then, and modules that are one today may have been
several (a mixture's experts, each with its own). The conversion table of the base says what became
of them (:mod:`.older_names`), where their factors lie now (:mod:`.older_factors`), and so what the
config's fields have to say (:mod:`.older_config`). What the base has by its name is never renamed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Where
from ..base.architectures import architecture_table
from ..files.conversion import ConversionError, Rule, natural
from ..files.facts import (
    AdapterFacts,
    AdapterPlan,
    Conversion,
    Header,
    Joined,
    Layout,
    ModuleKind,
    Piece,
    TensorInfo,
)
from ..files.names import PEFT_PREFIX
from .lora import scale_of
from .lora_config import LoraConfig
from .method import Method
from .naming import WRAPPER, Naming, strip_peft_prefix
from .older_config import Renamed, converted
from .older_factors import Fused, Pair, PairPart, fuse, split
from .older_names import (
    AmbiguousNameError,
    OlderNames,
    OldPlace,
    numberless,
    numbers_of,
    pattern_of,
    peeled,
    renumbered,
    spelled,
    stacks,
    targets_of,
)
from .patterns import Patterns, PatternTable
from .peft_table import PEFT_TABLE
from .places import saved_module
from .table import SITES
from .targets import TargetSelection
from .tuner_config import TunerConfig

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_SHOWN = 3


def is_older(plan: AdapterPlan, layout: Layout | None) -> bool:
    """Whether this plan of an adapter has names that the base does not have, or a router that is
    no linear layer today: all else is asked only then."""
    if layout is None or layout.conversions is None:
        return False
    modules = layout.modules
    wanted = (*plan.saved, *plan.tuned, *plan.biases, *plan.embeddings)
    if plan.leftovers or any(name not in modules for name in wanted):
        return True
    for site in plan.sites:
        module = modules.get(site.module)
        if module is None:
            return True
        other = module.kind is ModuleKind.OTHER and SITES[site.method].ranked
        if other and _is_router(layout, site.module):
            return True
    return False


@dataclass
class Today:
    """What came of the reading: findings, and the adapter of today where there is one."""

    findings: list[Finding] = field(default_factory=list)
    conversion: Conversion | None = None


def read_as_today(
    adapter: AdapterFacts,
    method: Method,
    config: TunerConfig,
    layout: Layout,
    patterns: Patterns,
    where: Where,
) -> Today:
    """The adapter by today's names and layouts; without a conversion where nothing is an older
    version's, or where it cannot be converted (a finding says why). Raises
    ``PatternError``."""
    names = OlderNames(layout)
    reading = _Reading(adapter, method, config, layout, patterns, where, names)
    try:
        return Today(reading.findings, reading.read())
    except AmbiguousNameError as error:
        return Today([_ambiguous(error.name, error.today, where)])


def _ambiguous(name: str, today: Iterable[str], where: Where) -> Finding:
    return codes.OLDER_NAME_AMBIGUOUS.finding(
        f"{name!r} has more than one meaning in this base: {', '.join(today)}", where, found=name
    )


@dataclass
class _Source:
    """One adapted module whose weight is a part of another today, or several."""

    author: str
    place: OldPlace
    roles: Mapping[str, str]


@dataclass
class _Reading:
    adapter: AdapterFacts
    method: Method
    config: TunerConfig
    layout: Layout
    patterns: Patterns
    where: Where
    names: OlderNames
    findings: list[Finding] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    """Keys of the file to today's."""
    joined: dict[str, tuple[tuple[int, ...], Joined]] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    moved: dict[str, str] = field(default_factory=dict)
    """Adapted modules: the file's name to today's."""
    parted: list[tuple[str, str]] = field(default_factory=list)
    """The same for modules of which one is several today, or several one."""
    saved: dict[str, str] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    alphas: dict[str, float] = field(default_factory=dict)
    parameters: list[str] = field(default_factory=list)
    """Of the base, that were modules of their own."""
    stems: dict[str, list[tuple[str, str, Rule]]] = field(default_factory=dict)
    """{today's parameter, numbers left out: [(its stem and the file's, source, rule)]}."""

    def read(self) -> Conversion | None:
        factors, others = _split(self.method, self.adapter.header.tensors)
        groups = self._move(factors, others)
        self._move_others(others)
        if not self.findings:
            self._fuse(groups)
        changes = any(key != new for key, new in self.renamed.items()) or self.joined
        if self.findings or not (changes or self.parameters):
            return None
        if not self._is_unique():
            return None
        config = self._config(factors, groups)
        if self.findings:
            return None
        self._note(factors)
        return self._conversion(config)

    # -- names -----------------------------------------------------------------------------

    def _move(
        self, factors: Mapping[str, Mapping[str, str]], others: Mapping[str, str]
    ) -> dict[str, list[_Source]]:
        """Find today's name of every adapted module; those that are a part of another today, or
        several, are returned by the first parameter that they are in."""
        cores = {author: peeled(author) for author in factors}
        unique = dict.fromkeys(core for core, _ in cores.values())
        stored = [name.rpartition(".")[0] for name in others]
        self.naming = Naming.find(list(unique) or stored, self.layout)
        groups: dict[str, list[_Source]] = {}
        places: dict[str, OldPlace | None] = {}
        for core in sorted(unique, key=natural):
            live = self.naming.live(core)
            if live in self.layout.modules or core in self.layout.modules:
                self.moved[core] = live if live in self.layout.modules else core
                continue
            place = places[core] = self.names.place(f"{core}.weight")
            if place is not None and place.rule is None:
                self.moved[core] = place.name.removesuffix(".weight")
        for author, roles in factors.items():
            core, tail = cores[author]
            place = places.get(core)
            if place is not None and place.rule is not None:
                groups.setdefault(place.name, []).append(_Source(author, place, roles))
                continue
            today = self.moved.get(core, core)
            for key in roles.values():
                rest = strip_peft_prefix(key)[len(author) :]
                self.renamed[key] = _like(key, today + tail + rest)
            if set(roles) == {"A", "B"} and not tail and self._is_new_router(core, today):
                self.parameters.append(f"{today}.weight")
        return groups

    def _is_new_router(self, core: str, today: str) -> bool:
        if not self.method.ranked or not _is_router(self.layout, today):
            return False
        return not any(f"{core}.weight".endswith(name) for name in self.config.parameters)

    def _move_others(self, others: Mapping[str, str]) -> None:
        """Whole modules, biases and embeddings, a tensor at a time."""
        inside: dict[str, list[tuple[str, str]]] = {}
        for name, key in others.items():
            plain, put_back = _unwrapped(name)
            today = self._other(plain)
            if today is not None:
                self.renamed[key] = _like(key, put_back(today))
            module = saved_module(self.config, plain)
            if module is not None and module != plain:
                inside.setdefault(module, []).append((plain, today or plain))
        for module, tensors in inside.items():
            self.saved[module] = _module_today(module, tensors)

    def _other(self, name: str) -> str | None:
        """Today's name of one tensor of the base; ``None`` where it has none, or this one."""
        owner, _, own = name.rpartition(".")
        live = f"{self.naming.live(owner)}.{own}"
        if self.names.has(live) or self.names.has(name):
            return live if self.names.has(live) else name
        place = self.names.place(name)
        if place is None:
            return None
        if place.rule is not None:
            self._refuse(f"{name} is stored whole", "it is part of another tensor today")
            return None
        return place.name

    def _is_unique(self) -> bool:
        """Whether no two tensors got one name."""
        taken: dict[str, str] = {}
        for key in self.adapter.header.tensors:
            if key in self.dropped:
                continue
            new = self.renamed.get(key, key)
            if taken.setdefault(new, key) != key or new in self.joined:
                self.findings.append(
                    codes.OLDER_NAME_AMBIGUOUS.finding(
                        f"{strip_peft_prefix(key)!r} and another tensor of the file are the same "
                        f"one today: {strip_peft_prefix(new)}",
                        self.where,
                        found=key,
                    )
                )
                return False
        return True

    # -- factors ---------------------------------------------------------------------------

    def _fuse(self, groups: Mapping[str, list[_Source]]) -> None:
        for name, sources in groups.items():
            if not self.method.ranked:
                self._refuse(
                    f"{sources[0].author} is part of {name} today",
                    f"{self.method.peft_type} has no form for a part of a weight",
                )
                return
            rule = sources[0].place.rule
            assert rule is not None
            try:
                if len(rule.to) > 1:
                    self._cut(name, rule, sources)
                else:
                    self._join(name, rule, sources)
            except ConversionError as error:
                self._refuse(f"{sources[0].author} is part of {name} today", str(error))
                return
        self._place_parameters(groups)

    @property
    def _of_pairs(self) -> LoraConfig:
        """The config of a ``ranked`` method."""
        return cast(LoraConfig, self.config)

    def _pair(self, source: _Source) -> Pair:
        config, tensors = self._of_pairs, self.adapter.header.tensors
        if set(source.roles) != {"A", "B"}:
            extra = sorted(set(source.roles) - {"A", "B"})
            raise ConversionError(
                f"{source.author} has {', '.join(extra)}, for which a part has no place"
                if extra
                else f"{source.author} has one factor of two"
            )
        a, b = source.roles["A"], source.roles["B"]
        shapes = tensors[a].shape, tensors[b].shape
        if any(len(shape) != 2 or 0 in shape for shape in shapes):
            raise ConversionError(f"the factors of {source.author} are no matrices")
        core, _ = peeled(source.author)
        rank = self._rank_table.get(core, config.r)
        if shapes[0][0] != rank:
            self.findings.append(
                codes.RANK_MISMATCH.finding(
                    f"rank {shapes[0][0]} in the file and {rank} by the config at {core}",
                    self.where,
                    found=f"rank {shapes[0][0]}",
                    expected=f"rank {rank} (r and rank_pattern)",
                )
            )
            raise ConversionError(f"{core} has another rank than the config says")
        alpha = self._alpha_table.get(core, config.alpha)
        return Pair(a, b, *shapes, scale_of(config, rank, alpha))

    def __post_init__(self) -> None:
        self._rank_table = PatternTable(self.config.rank_pattern, self.patterns)
        self._alpha_table = PatternTable(self.config.alpha_pattern, self.patterns)
        self.fused: dict[str, Fused] = {}

    def _join(self, name: str, rule: Rule, sources: list[_Source]) -> None:
        shape = self.names.shape(name)
        if shape is None:
            raise ConversionError("its size today is not known")
        pairs: dict[PairPart, Pair] = {}
        for source in sources:
            part = (source.place.source, source.place.expert)
            if part in pairs:
                raise AmbiguousNameError(source.author, [name])
            pairs[part] = self._pair(source)
        self._learn(name, sources[0])
        self.fused[name] = fuse(rule, shape, pairs)
        self._set_scale(_key_of(name), self.fused[name].rank, self.fused[name].scale)
        self.dropped |= {key for source in sources for key in source.roles.values()}

    def _set_scale(self, key: str, rank: int, scale: float) -> None:
        """The rank and the alpha that give this scale."""
        alpha = scale * (math.sqrt(rank) if self._of_pairs.rslora else rank)
        self.ranks[key] = rank
        self.alphas[key] = int(alpha) if alpha == int(alpha) else alpha

    def _place_parameters(self, groups: Mapping[str, list[_Source]]) -> None:
        """Names for the fused factors: of a module's parameters the first is the innermost."""
        owners: dict[str, list[str]] = {}
        for name in self.fused:
            if name.endswith(".weight"):
                module = name.removesuffix(".weight")
                self._put(name, module)
                self.parted += [(source.author, module) for source in groups[name]]
            else:
                owner, _, own = name.rpartition(".")
                owners.setdefault(owner, []).append(own)
        for owner, own in owners.items():
            if owner in self.moved.values():
                self.findings.append(
                    _ambiguous(owner, ["factors of today", "of before"], self.where)
                )
                return
            order = [one for one in self.layout.modules[owner].parameters if one in own]
            for depth, one in enumerate(reversed(order)):
                self.parameters.append(f"{owner}.{one}")
                self._put(f"{owner}.{one}", owner + f".{WRAPPER}" * depth)

    def _put(self, name: str, author: str) -> None:
        fused = self.fused[name]
        self.joined[f"{PEFT_PREFIX}{author}.lora_A.weight"] = (fused.a_shape, fused.a)
        self.joined[f"{PEFT_PREFIX}{author}.lora_B.weight"] = (fused.b_shape, fused.b)

    def _cut(self, name: str, rule: Rule, sources: list[_Source]) -> None:
        """One module of before is several today: A is that of all, B has the rows of each."""
        (source, *more) = sources
        if more:
            raise AmbiguousNameError(source.author, [name])
        parts = targets_of(name, rule)
        pieces = split(rule, [self.names.shape(one) for one in parts], self._rows(source))
        tensors = self.adapter.header.tensors
        core, _ = peeled(source.author)
        for part, rows in zip(parts, pieces, strict=True):
            module = part.removesuffix(".weight")
            for role, key in source.roles.items():
                shape = tensors[key].shape
                if role not in ("A", "B", "B_bias", "magnitude"):
                    raise ConversionError(f"{source.author} has {role}")
                rest = strip_peft_prefix(key)[len(source.author) :]
                if role != "A":
                    shape = (rows.stop - rows.start, *shape[1:])
                piece = Piece(key, tuple(slice(0, size) for size in shape), slice(None))
                if role != "A":
                    piece = piece._replace(rows=rows)
                self.joined[_like(key, module + rest)] = (shape, Joined(shape, (piece,)))
            self.parted.append((core, module))
        self.dropped |= set(source.roles.values())

    def _rows(self, source: _Source) -> int:
        key = source.roles.get("B")
        if key is None or "A" not in source.roles:
            raise ConversionError(f"{source.author} has one factor of two")
        return (self.adapter.header.tensors[key].shape or (0,))[0]

    def _refuse(self, what: str, why: str) -> None:
        self.findings.append(
            codes.OLDER_LAYOUT_UNCONVERTIBLE.finding(
                f"{what}, and cannot be converted: {why}", self.where
            )
        )

    # -- the config ------------------------------------------------------------------------

    def _learn(self, name: str, source: _Source) -> None:
        """How the list that became ``name`` was called, and where its number stood."""
        rule = source.place.rule
        if rule is None or numberless(name) in self.stems:
            return
        core, _ = peeled(source.author)
        found = pattern_of(source.place.source).search(f"{core}.weight")
        if found is not None:
            stem = core[: found.start()]
            self.stems[numberless(name)] = [(stem, one, rule) for one in rule.sources]

    def _parts_of(self, name: str) -> Iterator[tuple[str, PairPart]]:
        """The modules of before that are ``name`` today, as far as the file tells their names."""
        numbers = numbers_of(name)
        shape = self.names.shape(name)
        for stem, source, rule in self.stems.get(numberless(name), ()):
            count = shape[0] if shape is not None and stacks(rule) else None
            own = numbers_of(stem)
            begin = renumbered(stem, numbers) if len(own) == len(numbers) else stem
            for expert in range(count) if count is not None else (None,):
                text = begin + spelled(source, expert)
                yield text.removesuffix(".weight"), (source, expert)

    def _config(
        self, factors: Mapping[str, Mapping[str, str]], groups: Mapping[str, list[_Source]]
    ) -> Mapping[str, Any]:
        selection = TargetSelection(self.config, self.patterns, self.method.kinds)
        analogy = _Analogy(self.moved, self.naming, self.names)
        modules = [
            (analogy.old(live), live)
            for live, module in self.layout.modules.items()
            if module.kind in self.method.kinds
        ]
        modules += self.parted
        parameters = self._selected_parameters(selection, groups)
        owners = [
            (analogy.old(live), live)
            for live, module in self.layout.modules.items()
            if module.parameters and self.config.parameters
        ]
        sites = [*self.moved.items(), *self.parted]
        tokens = {
            core: self.moved[core]
            for author, roles in factors.items()
            if "rows" in roles and (core := peeled(author)[0]) in self.moved
        }
        names = Renamed(
            modules, sites, self.saved, tokens, owners, parameters, self.ranks, self.alphas
        )
        row = PEFT_TABLE.get(self.method.peft_type)
        return converted(
            self.adapter.config,
            self.config,
            names,
            self.layout,
            selection,
            self.patterns,
            row.tables if row is not None else (),
        )

    def _selected_parameters(
        self, selection: TargetSelection, groups: Mapping[str, list[_Source]]
    ) -> list[str]:
        """Today's parameters that the config selects by the names of before. Findings for parts
        without factors, and for factors of parts that are not selected."""

        def selects(old: str) -> bool:
            if selection.is_all_linear:
                return not selection.excludes(old)
            return selection.selects(old)

        found = [name for name in self.parameters if name not in self.fused]
        found = [name for name in found if selects(self._old_of(name))]
        missing: list[str] = []
        for owner, module in self.layout.modules.items():
            for own in module.parameters:
                name = f"{owner}.{own}"
                if numberless(name) not in self.stems:
                    continue
                chosen = [(old, part) for old, part in self._parts_of(name) if selects(old)]
                if chosen and not name.endswith(".weight"):
                    found.append(name)
                present = {(s.place.source, s.place.expert) for s in groups.get(name, ())}
                missing += [old for old, part in chosen if part not in present]
        odd = [s.author for group in groups.values() for s in group if not selects(s.author)]
        if missing:
            self.findings.append(
                codes.TARGETS_WITHOUT_TENSORS.finding(
                    f"{_count(missing)} selected by the config and without factors: "
                    f"{_some(missing)}",
                    self.where,
                )
            )
        if odd:
            self.findings.append(
                codes.TENSORS_WITHOUT_TARGET.finding(
                    f"factors for {_count(odd)} that the config does not select: {_some(odd)}",
                    self.where,
                )
            )
        return found

    def _old_of(self, parameter: str) -> str:
        module = parameter.removesuffix(".weight")
        return next(old for old, today in self.moved.items() if today == module)

    # -- what comes of it ------------------------------------------------------------------

    def _note(self, factors: Mapping[str, Mapping[str, str]]) -> None:
        version = ".".join(str(architecture_table()["transformers"]).split(".")[:2])
        changed = [
            f"{strip_peft_prefix(key)} is {strip_peft_prefix(new)}"
            for key, new in self.renamed.items()
            if key != new
        ]
        fused = [f"{s} is part of {n}" for s, n in self._first_fused(factors)]
        examples = [*changed, *fused] or [f"{self.parameters[0]} is a parameter"]
        self.findings.append(
            codes.OLDER_NAMES.finding(
                f"names of transformers < {version}: today {_shortened(examples[0])}", self.where
            )
        )

    def _first_fused(self, factors: Iterable[str]) -> Iterator[tuple[str, str]]:
        name = next(iter(self.fused), None)
        for author in factors:
            if name is not None and peeled(author)[0] not in self.moved:
                yield author, name
                return

    def _conversion(self, config: Mapping[str, Any]) -> Conversion:
        header = self.adapter.header
        sources: dict[str, str | Joined] = {
            self.renamed.get(key, key): key for key in header.tensors if key not in self.dropped
        }
        infos = {new: header.tensors[str(key)] for new, key in sources.items()}
        for new, (shape, made) in self.joined.items():
            kind = _kind({header.tensors[piece.key].dtype for piece in made.pieces}, made)
            infos[new] = TensorInfo(kind, shape)
            sources[new] = made
        conversion = Conversion(config, replace(header, tensors=infos), sources)
        if conversion.only_renames:
            return conversion
        return replace(conversion, header=_packed(header, infos))


def _split(
    method: Method, tensors: Iterable[str]
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """{module by the file's name: {role: key}}, and {name: key} of what is no factor."""
    keys = method.keys_of(tensors)
    return keys.factors, keys.others


def _is_router(layout: Layout, name: str) -> bool:
    """Whether this is what chooses a mixture's experts, and not a linear layer: beside it is a
    module whose own parameters are those of all experts."""
    module = layout.modules.get(name)
    if module is None or module.kind is not ModuleKind.OTHER:
        return False
    if len(module.parameters.get("weight", ())) != 2:
        return False
    experts = layout.modules.get(f"{name.rpartition('.')[0]}.experts")
    return experts is not None and any(len(shape) == 3 for shape in experts.parameters.values())


def _like(key: str, name: str) -> str:
    """``name`` with PEFT's prefix where ``key`` has it."""
    return PEFT_PREFIX + name if key.startswith(PEFT_PREFIX) else name


def _key_of(name: str) -> str:
    """What ``rank_pattern`` calls a site on this parameter."""
    return name.removesuffix(".weight")


def _unwrapped(name: str) -> tuple[str, Callable[[str], str]]:
    """A tensor's name without a wrapper of PEFT's in it, and what puts that back."""
    parts = name.split(".")
    marks = {"original_module", "modules_to_save", WRAPPER}
    at = next((n for n, part in enumerate(parts) if part in marks), len(parts))
    after = parts[at + 1 :]

    def put_back(today: str) -> str:
        tail = today.split(".")
        cut = len(tail) - len(after)
        return ".".join([*tail[:cut], *parts[at : at + 1], *tail[cut:]])

    return ".".join([*parts[:at], *after]), put_back


def _module_today(module: str, tensors: Iterable[tuple[str, str]]) -> str:
    """What a module that is stored whole is called, by the names of its tensors."""
    pairs = list(tensors)
    rests = [old[len(module) :] for old, _ in pairs]
    stems = {
        today[: len(today) - len(rest)] if today.endswith(rest) else None
        for rest, (_, today) in zip(rests, pairs, strict=True)
    }
    if len(stems) == 1 and (stem := stems.pop()) is not None:
        return stem
    paths = [today.split(".")[:-1] for _, today in pairs]
    shared: list[str] = []
    for pieces in zip(*paths, strict=False):
        if len({*pieces}) > 1:
            break
        shared.append(pieces[0])
    return ".".join(shared)


class _Analogy:
    """What a module of today would have been called in the file, by what others are called."""

    def __init__(self, moved: Mapping[str, str], naming: Naming, names: OlderNames) -> None:
        self._own: dict[str, str] = {}
        self._whole: dict[str, str] = {}
        self._begins: dict[str, str] = {}
        self._naming = naming
        self._names = names
        for old, today in moved.items():
            self._own.setdefault(today, old)
            if old == today or len(numbers_of(old)) != len(numbers_of(today)):
                continue
            self._whole.setdefault(numberless(today), old)
            before, after = old.split("."), today.split(".")
            while before and after and before[-1] == after[-1]:
                before.pop()
                after.pop()
                self._begins.setdefault(numberless(".".join(after)), ".".join(before))

    def old(self, live: str) -> str:
        """The file's name for it; where nothing tells, the one that the file's prefix gives."""
        known = self._own.get(live)
        if known is not None:
            return known
        for guess in self._guesses(live):
            place = self._names.place(f"{guess}.weight") if guess not in self._own else None
            if place is not None and place.name == f"{live}.weight":
                return guess
        return self._naming.author(live)

    def _guesses(self, live: str) -> Iterator[str]:
        numbers = numbers_of(live)
        whole = self._whole.get(numberless(live))
        if whole is not None:
            yield renumbered(whole, numbers)
        parts = live.split(".")
        for at in range(len(parts) - 1, -1, -1):
            begin = ".".join(parts[:at])
            old = self._begins.get(numberless(begin))
            if old is not None:
                before = renumbered(old, numbers_of(begin))
                yield ".".join([*([before] if before else []), *parts[at:]])
                break
        prefix = f"{self._names.layout.prefix}."
        if live.startswith(prefix):
            yield live[len(prefix) :]


def _kind(dtypes: set[str], made: Joined) -> str:
    """The dtype of a tensor that is made of others: theirs, or one that holds all of their
    values (products: nearly)."""
    scaled = any(piece.factor != 1 for piece in made.pieces)
    if len(dtypes) == 1 and not scaled:
        return next(iter(dtypes))
    return "F64" if "F64" in dtypes else "F32"


def _packed(header: Header, infos: Mapping[str, TensorInfo]) -> Header:
    """The header of a file of these tensors, one after the other."""
    packed: dict[str, TensorInfo] = {}
    at = 0
    for name, info in infos.items():
        size = info.nbytes or math.prod(info.shape) * _BYTES.get(info.dtype, 4)
        packed[name] = TensorInfo(info.dtype, info.shape, at, at + size)
        at += size
    return Header(packed, header.metadata, header.data_start, header.data_start + at)


def _count(names: list[str]) -> str:
    return "1 module" if len(names) == 1 else f"{len(names)} modules"


def _some(names: list[str]) -> str:
    text = ", ".join(names[:_SHOWN])
    return text if len(names) <= _SHOWN else f"{text} and {len(names) - _SHOWN} more"


def _shortened(text: str, most: int = 240) -> str:
    shown = text if len(text) <= most else f"{text[: most - 3]}..."
    return shown if shown.isprintable() else repr(shown)
