"""The sizes of an adapter's changes, beside the base's weights where these are on this machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from ..manifests.findings.errors import AdapterdockError, FitError, StoreError
from ..manifests.findings.finding import Where
from ..manifests.findings.store import LOCAL_FILE_CHANGED
from ..manifests.language.source import Source
from .checks.check_adapter import check_adapter, plan_on
from .deltas import Deltas
from .files.arrays import READABLE, square_sum
from .files.facts import AdapterFacts, AdapterPlan, BaseFacts, FileFact, Layout
from .files.progress import Progress
from .heat_map import Size
from .read_facts import gather_adapter, gather_base
from .sources.fetch import fetch
from .sources.folder import Folder
from .sources.open import open_source
from .store.store import Store

LARGEST_UNASKED = 2 << 30
"""Bytes of a base's weights that are read although nobody named the base."""
NO_NUMPY = "numpy is not installed (`pip install 'adapterdock[inspect]'`)"


@dataclass(frozen=True)
class Measured:
    """What was measured of an adapter: by module, the size of its change.

    ``why`` says why sizes are not beside the base's weights, or why there are none. ``left_out``
    are modules without a size, and the reason; ``notes`` are on modules with one.
    """

    sizes: Mapping[str, Size] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    why: str | None = None


@dataclass(frozen=True)
class Base:
    """A base whose files are looked at: its facts and its folder. With a ``limit``, no more bytes
    of its weights are read."""

    facts: BaseFacts
    folder: Folder
    limit: int | None = None
    _norms: dict[str, float] = field(default_factory=dict, repr=False, compare=False)

    def norm(self, name: str, file: str, place: Path) -> float:
        """The norm of one of its weights, in a file that is at ``place``; read once."""
        if name not in self._norms:
            header = self.facts.headers[file]
            self._norms[name] = math.sqrt(square_sum(place, header, name))
        return self._norms[name]


def deltas_of(
    name: str,
    folder: Folder,
    store: Store,
    layout: Layout | None = None,
    progress: Progress | None = None,
) -> Deltas:
    """The changes of the adapter in a folder, whose files are brought onto this machine.

    Raises:
        SourceError: The folder has no adapter, or cannot be read.
        FitError: The adapter's config or header is invalid.
    """
    where = Where(file=str(folder.source))
    facts = gather_adapter(name, folder, where)
    plan = plan_on(facts, layout) or _plan_alone(facts)
    fetched = fetch(folder, facts.files, store, progress=progress, where=where)
    return Deltas.of(facts, plan, {path: one.path for path, one in fetched.items()})


def deltas_here(
    name: str, folder: Folder, place: Callable[[FileFact], Path | None], layout: Layout | None
) -> Deltas | None:
    """The same, where its files are on this machine already, at ``place``; else ``None``."""
    facts = gather_adapter(name, folder, Where(file=str(folder.source)))
    places: dict[str, Path] = {}
    for file in facts.files:
        here = place(file)
        if here is None:
            return None
        places[file.path] = here
    return Deltas.of(facts, plan_on(facts, layout) or _plan_alone(facts), places)


def measure_deltas(deltas: Deltas, base: Base | None, why: str | None) -> Measured:
    """The size of each change; ``why`` says why there is no ``base``. Raises :class:`StoreError`
    where a file changes meanwhile."""
    if find_spec("numpy") is None:
        return Measured(left_out=deltas.left_out, why=NO_NUMPY)
    try:
        norms = {module: (delta.norm, delta.shape) for module, delta in deltas.each()}
        weights: Mapping[str, float] = {}
        if base is not None:
            shapes = {module: shape for module, (_, shape) in norms.items()}
            weights, why = _weights(base, shapes)
    except OSError as error:
        where = Where(file=str(deltas.facts.source))
        raise StoreError(
            LOCAL_FILE_CHANGED.finding(f"Cannot read the weights: {error}", where)
        ) from error
    sizes = {module: Size(norm, weights.get(module)) for module, (norm, _) in norms.items()}
    return Measured(sizes, deltas.left_out, deltas.notes, why)


def open_base(
    source: Source | None, revision: str | None, *, asked: bool, offline: bool
) -> tuple[Base | None, str | None]:
    """A base, or why it cannot be used.

    Args:
        source: Its source, if that is known.
        revision: Of a base on the Hub.
        asked: Whether a person named it. Otherwise the network is not used for it, and what is
            wrong with it is only a reason.
        offline: Use no network.

    Raises:
        AdapterdockError: ``asked``, and the base cannot be read.
    """
    if source is None:
        return None, "the entry does not say where its base is"
    at = source.at(revision) if revision and source.is_hub and source.revision is None else source
    where = Where(file=str(source))
    try:
        folder = open_source(at, directory=Path.cwd(), offline=offline or not asked, where=where)
        facts = gather_base(folder, where)
    except AdapterdockError:
        if asked:
            raise
        return None, f"{source} is not on this machine"
    return Base(facts, folder, None if asked else LARGEST_UNASKED), None


def _plan_alone(facts: AdapterFacts) -> AdapterPlan:
    """The plan of an adapter without a base. Raises :class:`FitError`."""
    findings, plan = check_adapter(facts, None, where=Where(file=str(facts.source)))
    if plan is None:
        raise FitError(*findings)
    return plan


def _weights(
    base: Base, shapes: Mapping[str, tuple[int, int]]
) -> tuple[Mapping[str, float], str | None]:
    """The norms of the weights of these modules, or why there are none."""
    file_of = {name: file for file, header in base.facts.headers.items() for name in header.tensors}
    names: dict[str, str] = {}
    for module, (outer, inner) in shapes.items():
        for name in _names(module, base.facts.layout):
            info = base.facts.tensors.get(name)
            if info is None or info.dtype not in READABLE:
                continue
            if math.prod(info.shape) == outer * inner:
                names[module] = name
                break
    if len(names) < len(shapes):
        return {}, f"{len(shapes) - len(names)} of {len(shapes)} weights cannot be compared"
    size = sum(base.facts.tensors[name].nbytes for name in names.values())
    if base.limit is not None and size > base.limit:
        return {}, f"{size:,} bytes of {base.folder.source} would be read; name it with --base"
    places = {file: base.folder.local(file) for file in {file_of[n] for n in names.values()}}
    found: dict[str, float] = {}
    for module, name in names.items():
        place = places[file_of[name]]
        if place is None:
            return {}, f"the weights of {base.folder.source} are not on this machine"
        found[module] = base.norm(name, file_of[name], place)
    return found, None


def _names(module: str, layout: Layout | None) -> list[str]:
    """What the weight of a module may be called on disk."""
    prefix = f"{layout.prefix}." if layout is not None and layout.prefix else ""
    names = [module]
    if prefix:
        names.append(module.removeprefix(prefix) if module.startswith(prefix) else prefix + module)
    return [f"{name}.weight" for name in names]
