"""Read an adapter of an older transformers as an adapter of today.

It has the names that the modules had then, and a module of today may have been several (a mixture's
experts, each with its own factors). The conversion table of the base says what became of them
(:mod:`.older_names`, :mod:`.older_modules`), and so where their factors lie now
(:mod:`.older_factors`, :mod:`.older_parts`) and what the config's fields have to say
(:mod:`.older_config`). A name that the base has is never changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Where
from ..base.architectures import architecture_table
from ..files.facts import (
    AdapterFacts,
    AdapterPlan,
    Conversion,
    Header,
    Joined,
    Layout,
    ModuleKind,
    TensorInfo,
)
from ..files.header import DTYPE_BITS
from ..files.wording import count, shown, some
from .lora_config import LoraConfig
from .method import Method
from .naming import strip_peft_prefix, unwrapped
from .older_config import Renamed, converted
from .older_modules import Analogy, is_router, like, module_today, moves_of, without_copy
from .older_names import AmbiguousNameError, OlderNames
from .older_parts import Regrouped
from .patterns import Patterns
from .peft_table import PEFT_TABLE
from .places import saved_module
from .table import SITES
from .targets import TargetSelection
from .tuner_config import TunerConfig


def is_older(plan: AdapterPlan, layout: Layout | None) -> bool:
    """Whether this plan of an adapter has names that the base does not have, or a router that is
    not a linear layer today. Otherwise the adapter needs no reading."""
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
        if other and is_router(layout, site.module):
            return True
    return False


def read_as_today(
    adapter: AdapterFacts,
    method: Method,
    config: TunerConfig,
    layout: Layout,
    patterns: Patterns,
    where: Where,
) -> tuple[list[Finding], Conversion | None]:
    """Findings, and the adapter by today's names and layouts: ``None`` where it has no name of an
    older version, or where it cannot be converted (a finding says why). Raises
    ``PatternError``."""
    try:
        reading = _Reading(adapter, method, config, layout, patterns, where)
        return reading.findings, reading.read()
    except AmbiguousNameError as error:
        message = f"{error.name!r} could mean any of these: {', '.join(error.today)}"
        return [codes.OLDER_NAME_AMBIGUOUS.finding(message, where, found=error.name)], None


class _Reading:
    def __init__(
        self,
        adapter: AdapterFacts,
        method: Method,
        config: TunerConfig,
        layout: Layout,
        patterns: Patterns,
        where: Where,
    ) -> None:
        self.adapter, self.method, self.config = adapter, method, config
        self.layout, self.patterns, self.where = layout, patterns, where
        self.names = OlderNames(layout)
        self.tensors = adapter.header.tensors
        self.keys = method.keys_of(self.tensors)
        self.moves = moves_of(self.keys, layout, self.names)
        self.renamed = dict(self.moves.keys)
        """Today's keys, by the file's."""
        typed = cast(LoraConfig, config)
        self.parts = Regrouped(method, typed, patterns, self.tensors, self.names, where)
        self.findings = self.parts.findings
        self.dropped = {
            key
            for parts in self.moves.parts.values()
            for part in parts
            for key in part.roles.values()
        }
        self.routers = dict(self._routers())

    def read(self) -> Conversion | None:
        saved = self._move_others()
        if not self.findings:
            self.parts.regroup(self.moves)
        changes = any(key != new for key, new in self.renamed.items()) or self.parts.joined
        if self.findings or not (changes or self.routers) or not self._is_unique():
            return None
        config = self._config(saved)
        if self.findings:
            return None
        self._note()
        return self._conversion(config)

    def _routers(self) -> Iterator[tuple[str, str]]:
        """(today's parameter, the file's module) of routers that were linear layers."""
        for author, roles in self.keys.factors.items():
            today = self.moves.modules.get(author, author)
            if (
                roles.keys() == {"A", "B"}
                and self.method.ranked
                and is_router(self.layout, today)
                and not any(f"{author}.weight".endswith(n) for n in self.config.parameters)
            ):
                yield f"{today}.weight", author

    def _move_others(self) -> dict[str, str]:
        """Rename the tensors that are not factors, one by one; gives today's names of the saved
        modules."""
        inside: dict[str, list[tuple[str, str]]] = {}
        for name, key in self.keys.others.items():
            plain, put_back = without_copy(name)
            today = self._other(plain)
            if today is not None:
                self.renamed[key] = like(key, put_back(today))
            module = saved_module(self.config, plain)
            if module is not None and module != plain:
                inside.setdefault(module, []).append((plain, today or plain))
        return {module: module_today(module, tensors) for module, tensors in inside.items()}

    def _other(self, name: str) -> str | None:
        """Today's name of one tensor of the base; ``None`` where it is not known."""
        owner, _, own = name.rpartition(".")
        for known in (f"{self.moves.naming.live(owner)}.{own}", name):
            if self.names.has(known):
                return known
        place = self.names.place(name)
        if place is None or place.rule is None:
            return None if place is None else place.name
        message = f"Cannot convert {name}, which is a part of another tensor today"
        self.findings.append(codes.OLDER_LAYOUT_UNCONVERTIBLE.finding(message, self.where))
        return None

    def _is_unique(self) -> bool:
        """Whether every tensor has a name of its own today."""
        taken = dict.fromkeys(self.parts.joined, "")
        for key in self.tensors:
            if key in self.dropped:
                continue
            new = self.renamed.get(key, key)
            if taken.setdefault(new, key) != key:
                old, today = strip_peft_prefix(key), strip_peft_prefix(new)
                message = f"{old!r} and another tensor of the file have the same name today"
                self.findings.append(
                    codes.OLDER_NAME_AMBIGUOUS.finding(f"{message}: {today}", self.where, found=key)
                )
                return False
        return True

    def _config(self, saved: Mapping[str, str]) -> Mapping[str, Any]:
        selection = TargetSelection(self.config, self.patterns, self.method.kinds)
        analogy = Analogy(self.moves, self.names)
        moved, live = self.moves.modules, self.layout.modules.items()
        adaptable = [(analogy.old(n), n) for n, m in live if m.kind in self.method.kinds]
        cores = (unwrapped(a)[0] for a, roles in self.keys.factors.items() if "rows" in roles)
        parameters = self._selected_parameters(selection)
        names = Renamed(
            [*adaptable, *self.parts.modules],
            [*moved.items(), *self.parts.modules],
            saved,
            {core: moved[core] for core in cores if core in moved},
            [(analogy.old(n), n) for n, m in live if m.parameters and self.config.parameters],
            parameters,
            self.parts.ranks(),
            self.parts.alphas(),
        )
        row = PEFT_TABLE.get(self.method.peft_type)
        tables = row.tables if row is not None else ()
        return converted(self.adapter.config, names, self.layout, selection, self.patterns, tables)

    def _selected_parameters(self, selection: TargetSelection) -> list[str]:
        """Today's parameters that the config selects by older names. Adds findings for parts
        without factors, and for factors of parts that are not selected."""

        def selects(old: str) -> bool:
            if selection.is_all_linear:
                return not selection.excludes(old)
            return selection.selects(old)

        found = [name for name, old in self.routers.items() if selects(old)]
        missing: list[str] = []
        for owner, module in self.layout.modules.items():
            for own in module.parameters:
                name = f"{owner}.{own}"
                chosen = [(old, at) for old, at in self.parts.parts_of(name) if selects(old)]
                if chosen and own != "weight":
                    found.append(name)
                parts = self.moves.parts.get(name, ())
                present = {(part.place.source, part.place.expert) for part in parts}
                missing += [old for old, at in chosen if at not in present]
        authors = [part.author for parts in self.moves.parts.values() for part in parts]
        odd = [author for author in authors if not selects(author)]
        if missing:
            message = f"The config selects {count(len(missing), 'module')} without factors"
            self.findings.append(
                codes.TARGETS_WITHOUT_TENSORS.finding(f"{message}: {some(missing)}", self.where)
            )
        if odd:
            message = f"The config does not select {count(len(odd), 'module')} with factors"
            self.findings.append(
                codes.TENSORS_WITHOUT_TARGET.finding(f"{message}: {some(odd)}", self.where)
            )
        return found

    def _note(self) -> None:
        """Say that the names are older ones, with an example."""
        version = ".".join(str(architecture_table()["transformers"]).split(".")[:2])
        changes = [
            *(
                (strip_peft_prefix(key), strip_peft_prefix(new))
                for key, new in self.renamed.items()
            ),
            *((parts[0].author, f"in {name}") for name, parts in self.moves.parts.items()),
            *((author, name) for name, author in self.routers.items()),
        ]
        old, new = next((old, new) for old, new in changes if old != new)
        message = f"The adapter has names of transformers < {version}: {old} is {new} today"
        self.findings.append(codes.OLDER_NAMES.finding(shown(message, 300), self.where))

    def _conversion(self, config: Mapping[str, Any]) -> Conversion:
        header = self.adapter.header
        sources: dict[str, str | Joined] = {
            self.renamed.get(key, key): key for key in self.tensors if key not in self.dropped
        }
        infos = {new: self.tensors[str(key)] for new, key in sources.items()}
        for new, (shape, made) in self.parts.joined.items():
            infos[new] = TensorInfo(_dtype(self.tensors, made), shape)
            sources[new] = made
        conversion = Conversion(config, replace(header, tensors=infos), sources)
        if conversion.only_renames:
            return conversion
        return replace(conversion, header=_packed(header, infos))


def _dtype(tensors: Mapping[str, TensorInfo], made: Joined) -> str:
    """The dtype of a tensor that is made of others: theirs, or one that holds all of their
    values (products: nearly)."""
    dtypes = {tensors[piece.key].dtype for piece in made.pieces}
    if len(dtypes) == 1 and all(piece.factor == 1 for piece in made.pieces):
        return dtypes.pop()
    return "F64" if "F64" in dtypes else "F32"


def _packed(header: Header, infos: Mapping[str, TensorInfo]) -> Header:
    """The header of a file of these tensors, one after the other."""
    packed: dict[str, TensorInfo] = {}
    at = 0
    for name, info in infos.items():
        size = info.nbytes or math.prod(info.shape) * DTYPE_BITS[info.dtype] // 8
        packed[name] = TensorInfo(info.dtype, info.shape, at, at + size)
        at += size
    return Header(packed, header.metadata, header.data_start, header.data_start + at)
