"""Copies a registry to another storage, verified. The copy is a mirror: it keeps the registry's id,
and refuses to be published to.

What a killed mirror has so far is valid: contents are copied before the entries that need them,
signatures before what they sign, marks before the entries that they are about, entries before the
aliases that select them, each series in order, and the journal last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import IntegrityError, StoreError, UsageError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.names import did_you_mean, listed
from ..files.pool import each
from ..files.progress import OneAtATime, Progress, Silent
from ..records.entry import LIMIT, InvalidEntryError, parse_object
from ..records.inventory import JOURNAL_SERIES, RULES_SERIES, Inventory, Part, take_inventory
from ..records.series import canonical
from ..records.snapshot import snapshot_number
from ..storages.layout import ADAPTERS, GC, HOLDS, IDENTITY, JOURNAL, MIRROR, PROBE
from ..storages.storage import Storage, write_once
from .catalogue import Catalogue
from .init import keep_bytes, require_creating
from .mirror_copy import Copying, blobs_of
from .registry_part import PART, is_part

FORMAT = 1
"""Of ``mirror.json``."""
WORKERS = 8
BATCH = 200
"""Entries that are copied together."""
_NOT_OURS = (f"{GC}/", f"{HOLDS}/")


@dataclass(frozen=True)
class Mirrored:
    """What was copied, or would be.

    Attributes:
        id: Of the registry.
        names: Adapters that the mirror has now.
        files: Paths that were copied.
        size: Their bytes.
        there: How many files the mirror had before.
    """

    id: str
    names: tuple[str, ...]
    files: tuple[str, ...]
    size: int
    there: int


@dataclass(frozen=True)
class Plan:
    """What a mirror lacks, by paths in the order of copying. Its contents are not known yet."""

    entries: tuple[str, ...]
    signatures: tuple[str, ...]
    marks: tuple[str, ...]
    rules: tuple[str, ...]
    aliases: tuple[str, ...]
    journal: tuple[str, ...]
    snapshots: tuple[str, ...]


def mirror(
    origin: Catalogue,
    storage: Storage,
    *,
    only: Sequence[str] = (),
    dry_run: bool = False,
    local: bool = False,
    workers: int = WORKERS,
    progress: Progress | None = None,
) -> Mirrored:
    """Copy what a mirror lacks; nothing is deleted or overwritten. A run that was killed is
    continued by the next.

    Args:
        origin: The registry, or a mirror of it.
        storage: An empty folder, or a mirror of the same registry.
        only: Patterns (``team/*``) of the adapters' names; all without any.
        dry_run: Copies nothing.
        local: Whether ``storage`` is on this machine's disk.
        workers: Files that are copied at the same time.
        progress: Gets the bytes that are copied.

    Raises:
        UsageError: No adapter of the registry matches ``only``.
        StoreError: ``storage`` holds something that is not a mirror.
        IntegrityError: The mirror has a file that the origin does not have, or has with other
            bytes; or a file of the origin does not have its digest. The first is found before
            anything is copied.
        SourceError, PolicyError: Something cannot be read or written.
    """
    # what the mirror has was in the origin before; so this listing is the first
    there = take_inventory(storage.find(""))
    _check_place(origin, storage, there)
    everything, wanted = _listed(origin, only)
    _require_match(origin, everything.names, wanted.names, only)
    if not dry_run:
        require_creating(storage)
    differing = _differences(origin.storage, storage, everything, there, workers)
    if differing:
        raise IntegrityError(*differing)
    lacking = plan(wanted, there, snapshots=not only)
    shown = OneAtATime(progress or Silent())
    copying = Copying(origin, storage, wanted, there, workers, shown)
    needed = [path for path in wanted.entries if path in there.entries or path in lacking.entries]
    batches = [needed[at : at + BATCH] for at in range(0, len(needed), BATCH)]
    if dry_run:
        contents = blobs_of(origin, wanted, needed, workers)
        files = {path: n for path, n in contents.items() if path not in there.sizes}
        files.update((path, wanted.sizes[path]) for path in _paths(lacking))
        return _summary(origin, wanted, there, files)
    copying.read_journal(lacking.journal)
    _begin(origin, storage, local)
    copying.signatures(lacking.signatures)
    copying.series(lacking.rules)
    copying.series(lacking.marks)
    for batch in batches:
        copying.entries(batch, frozenset(lacking.entries))
    copying.series(lacking.aliases)
    copying.journal()
    copying.snapshots(lacking.snapshots)
    return _summary(origin, wanted, there, copying.copied)


def plan(wanted: Inventory, there: Inventory, *, snapshots: bool = True) -> Plan:
    """What a mirror that has ``there`` lacks of ``wanted``. Pure."""

    def lacking(paths: Iterable[str]) -> tuple[str, ...]:
        return tuple(path for path in paths if path not in there.sizes)

    def of(part: Part) -> tuple[str, ...]:
        found = sorted(series for series in wanted.series if series.part is part)
        return lacking(path for series in found for path in wanted.series[series])

    lines = len(wanted.series.get(JOURNAL_SERIES, ()))
    fitting = [path for path in wanted.snapshots if (snapshot_number(path) or lines + 1) <= lines]
    return Plan(
        lacking(wanted.entries),
        lacking(wanted.signatures),
        of(Part.MARKS),
        lacking(wanted.series.get(RULES_SERIES, ())),
        of(Part.ALIAS),
        lacking(wanted.series.get(JOURNAL_SERIES, ())),
        lacking(fitting) if snapshots else (),
    )


def select(inventory: Inventory, only: Sequence[str]) -> Inventory:
    """The part of a registry whose adapters' names match one of the patterns ``only`` (all without
    any). Rules and the journal, which is one chain, are always of it."""
    if not only:
        return inventory
    names = {path: name for path, (name, _) in inventory.entries.items()}
    names.update((p, s.name) for s, paths in inventory.series.items() for p in paths)
    for path in inventory.signatures:
        of_rules = not path.startswith(f"{ADAPTERS}/")
        name = path.removeprefix(f"{ADAPTERS}/").partition("/signatures/")[0]
        names[path] = "" if of_rules else name

    def is_wanted(path: str) -> bool:
        name = names.get(path)
        if name is None:
            return not path.startswith(f"{ADAPTERS}/")
        return not name or any(fnmatchcase(name, pattern) for pattern in only)

    return take_inventory({path: n for path, n in inventory.sizes.items() if is_wanted(path)})


def _listed(origin: Catalogue, only: Sequence[str]) -> tuple[Inventory, Inventory]:
    """All that the origin has, and what of it is copied.

    While it is listed, others publish. What a file needs was written before it, so it is listed
    after it: the journal first, then entries and aliases, then marks, signatures and contents.
    """
    journal = origin.storage.find(JOURNAL)
    adapters = take_inventory(origin.storage.find(ADAPTERS))
    sizes = origin.storage.find("")
    everything = take_inventory(sizes)
    early = {*journal, *adapters.entries}
    early.update(p for s, paths in adapters.series.items() if s.part is Part.ALIAS for p in paths)
    late = {*everything.entries}
    late.update(
        path
        for series, paths in everything.series.items()
        if series.part in (Part.ALIAS, Part.JOURNAL)
        for path in paths
    )
    known = {path: n for path, n in sizes.items() if path not in late or path in early}
    return everything, select(take_inventory(known), only)


def _require_match(
    origin: Catalogue, names: Sequence[str], chosen: Sequence[str], only: Sequence[str]
) -> None:
    """Raise :class:`UsageError` where the patterns choose none of the registry's adapters."""
    if chosen or not only or not names:
        return
    near = did_you_mean(only[0].strip("*"), names)
    raise UsageError(
        codes.NOT_PUBLISHED.finding(
            f"No adapter of this registry matches {' or '.join(map(repr, only))}",
            origin.where,
            found=listed(names, 5),
            expected="a name, or a pattern of names: 'support/*'",
            hint=near or "Correct --only; `adapterdock search` lists the names.",
        )
    )


def _check_place(origin: Catalogue, storage: Storage, there: Inventory) -> None:
    """Raise where ``storage`` is neither empty nor a mirror of this registry."""
    where = Where(file=storage.url)
    if MIRROR not in there.sizes:
        others = [path for path in there.sizes if path != PROBE and not path.startswith(_NOT_OURS)]
        if others:
            what = "There is a registry already, which is not a mirror"
            raise StoreError(
                codes.EXISTS_ALREADY.finding(
                    what if IDENTITY in there.sizes else "The folder is not empty",
                    where,
                    found=others[0],
                    expected=f"an empty folder, or a mirror: {MIRROR}",
                    hint="Use an empty folder.",
                )
            )
        return
    found = _id_of(storage)
    if found != origin.id:
        raise IntegrityError(
            codes.MIRROR_DIFFERS.finding(
                "This is a mirror of another registry", where, found=found, expected=origin.id
            )
        )


def _id_of(storage: Storage) -> str | None:
    try:
        found = parse_object(storage.read(MIRROR, LIMIT + 1)).get("id")
    except (InvalidEntryError, FileNotFoundError):
        return None
    return found if isinstance(found, str) else None


def _differences(
    origin: Storage, storage: Storage, everything: Inventory, there: Inventory, workers: int
) -> list[Finding]:
    """What the mirror has, and the origin does not have like that."""
    where = Where(file=storage.url)

    def check(path: str) -> Finding | None:
        if path not in everything.sizes:
            return codes.MIRROR_DIFFERS.finding(f"The origin does not have {path}", where)
        same = there.sizes[path] == everything.sizes[path]
        if same and path in small:
            try:
                same = origin.read(path, LIMIT + 1) == storage.read(path, LIMIT + 1)
            except FileNotFoundError:
                same = False
        if same:
            return None
        return codes.MIRROR_DIFFERS.finding(f"{path} has other bytes than in the origin", where)

    small = set(there.small())
    blobs = [p for p in there.sizes if p.startswith("blobs/sha256/") and p in everything.sizes]
    found = each(check, sorted([*small, *blobs]), workers)
    return [finding for finding in found if finding is not None]


def _begin(origin: Catalogue, storage: Storage, local: bool) -> None:
    """Make the folder a mirror, and then a registry. A registry that is not a mirror yet could be
    published to."""
    if local:
        keep_bytes(storage)
    data = {"format": FORMAT, "id": origin.id, "origin": origin.storage.url}
    if is_part(origin.storage):
        data[PART] = True
    write_once(storage, MIRROR, canonical(data))
    write_once(storage, IDENTITY, origin.storage.read(IDENTITY, LIMIT + 1))


def _paths(lacking: Plan) -> list[str]:
    return [path for paths in vars(lacking).values() for path in paths]


def _summary(
    origin: Catalogue, wanted: Inventory, there: Inventory, files: Mapping[str, int]
) -> Mirrored:
    names = sorted({*wanted.names, *there.names})
    size = sum(files.values())
    return Mirrored(origin.id, tuple(names), tuple(sorted(files)), size, len(there.sizes))
