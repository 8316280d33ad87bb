"""How two adapters differ: config, targets, metrics, and the change that each makes in a layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..manifests.findings import registry as codes
from ..manifests.findings.errors import StoreError, UsageError
from ..manifests.findings.finding import Where
from ..manifests.findings.store import LOCAL_FILE_CHANGED
from ..manifests.language.source import Source, SourceSyntaxError
from ..manifests.manifest import ManifestFile
from .access.opening import Opening
from .access.published import PublishedFolder, open_folder
from .catalogue.reference import Reference, parse_reference
from .deltas import Deltas, LowRank
from .files.progress import Progress
from .heat_map import Place, place_of
from .inspecting import open_reference
from .measured import NO_NUMPY, deltas_of
from .sources.folder import Folder
from .sources.open import open_source
from .store.store import Store

IGNORED = frozenset({"inference_mode", "revision"})
"""Fields of a config that change nothing."""


@dataclass(frozen=True)
class Side:
    """One of the two adapters."""

    name: str
    deltas: Deltas
    metrics: Mapping[str, float] = field(default_factory=dict)
    digest: str | None = None
    """Of a published one: that of the files that loading reads."""


@dataclass(frozen=True)
class Compared:
    """The changes of both at one module or layer. Norms are 0 where an adapter changes nothing;
    ``cosine`` is ``None`` where one of them does not, or their shapes differ."""

    first: float
    second: float
    cosine: float | None


@dataclass(frozen=True)
class Difference:
    """How two adapters differ. Values are pairs: the first one's, the second one's.

    ``why`` says why weights were not compared.
    """

    config: Mapping[str, tuple[Any, Any]]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    metrics: Mapping[str, tuple[float | None, float | None]]
    modules: Mapping[str, Compared]
    layers: Mapping[tuple[str, int | None], Compared]
    left_out: Mapping[str, str]
    why: str | None = None


def open_side(
    text: str,
    store: Store,
    *,
    registry: str | None = None,
    file: ManifestFile | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Side:
    """The adapter that a reference (``team/refunds@2.1.0``) or a source (``./adapter``) names.

    Raises:
        UsageError: It is neither.
        SourceError: It cannot be read.
    """
    folder = _folder(text, registry, file, offline)
    deltas = deltas_of("adapter", folder, store, progress=progress)
    if isinstance(folder, PublishedFolder):
        entry = folder.resolved.entry
        return Side(text, deltas, entry.metrics, entry.digest)
    return Side(text, deltas)


def difference(first: Side, second: Side) -> Difference:
    """How two adapters differ. Raises :class:`StoreError` where a file changes meanwhile."""
    one, other = first.deltas, second.deltas
    targets = set(one.plan.targets), set(other.plan.targets)
    modules: dict[str, Compared] = {}
    products: dict[str, float | None] = {}
    why = None if find_spec("numpy") is not None else NO_NUMPY
    if why is None:
        try:
            for module in dict.fromkeys((*one.sites, *other.sites)):
                left = one.read(module) if module in one.sites else None
                right = other.read(module) if module in other.sites else None
                products[module] = _product(left, right)
                modules[module] = _compared(left, right, products[module])
        except OSError as error:
            raise StoreError(
                LOCAL_FILE_CHANGED.finding(
                    f"Cannot read the weights: {error}", Where(file=f"{first.name}, {second.name}")
                )
            ) from error
    return Difference(
        config=_pairs(one.facts.config, other.facts.config, lambda key: key not in IGNORED),
        only_first=tuple(sorted(targets[0] - targets[1])),
        only_second=tuple(sorted(targets[1] - targets[0])),
        metrics=_pairs(first.metrics, second.metrics, lambda key: True, same=True),
        modules=modules,
        layers=_by_layer(modules, products),
        left_out={**other.left_out, **one.left_out},
        why=why,
    )


def _folder(text: str, registry: str | None, file: ManifestFile | None, offline: bool) -> Folder:
    source = _source(text)
    if isinstance(source, Reference):
        return open_reference(source, registry=registry, file=file, offline=offline)
    if source.is_registry:
        return open_folder(Opening(source, file, offline=offline, registry=registry))
    where = Where(file=text)
    return open_source(source, directory=Path.cwd(), offline=offline, where=where)


def _source(text: str) -> Source | Reference:
    try:
        return Source.parse(text)
    except SourceSyntaxError as error:
        if "@" in text or not Path(text).is_dir():
            return parse_reference(text)
        raise UsageError(
            codes.BAD_REFERENCE.finding(
                "This is neither a reference nor a source",
                found=text,
                expected=f"team/refunds@2.1.0, or a source; {error}",
                hint="Write ./folder for a folder.",
            )
        ) from error


def _product(left: LowRank | None, right: LowRank | None) -> float | None:
    if left is None or right is None or left.shape != right.shape:
        return None
    return left.times(right)


def _compared(left: LowRank | None, right: LowRank | None, product: float | None) -> Compared:
    first = 0.0 if left is None else left.norm
    second = 0.0 if right is None else right.norm
    return Compared(first, second, _cosine(product, first, second))


def _cosine(product: float | None, first: float, second: float) -> float | None:
    if product is None or not first or not second:
        return None
    return max(-1.0, min(1.0, product / first / second))


def _by_layer(
    modules: Mapping[str, Compared], products: Mapping[str, float | None]
) -> dict[tuple[str, int | None], Compared]:
    """All modules of a layer as one change."""
    groups: dict[tuple[str, int | None], list[str]] = {}
    for module in modules:
        place: Place = place_of(module)
        groups.setdefault((place.stack if place.layer is not None else "", place.layer), []).append(
            module
        )
    found: dict[tuple[str, int | None], Compared] = {}
    for key in sorted(groups, key=lambda k: (k[1] is None, k[0], k[1] or 0)):
        names = groups[key]
        first = _length(modules[name].first for name in names)
        second = _length(modules[name].second for name in names)
        known = [product for name in names if (product := products[name]) is not None]
        found[key] = Compared(first, second, _cosine(sum(known) if known else None, first, second))
    return found


def _length(values: Iterable[float]) -> float:
    return math.sqrt(sum(value**2 for value in values))


def _pairs(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    counts: Callable[[str], bool],
    *,
    same: bool = False,
) -> dict[str, tuple[Any, Any]]:
    """Both values of each key; those that are the ``same`` only if asked for."""
    keys = sorted({*first, *second})
    found = {key: (first.get(key), second.get(key)) for key in keys if counts(key)}
    return {key: pair for key, pair in found.items() if same or not _equal(*pair)}


def _equal(first: Any, second: Any) -> bool:
    """Whether both mean the same: PEFT writes lists of names in any order."""
    if isinstance(first, list) and isinstance(second, list):
        return sorted(map(repr, first)) == sorted(map(repr, second))
    return first == second
