"""Reads the adapters of a registry: every version of every name, its aliases, marks, signatures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import yaml
from semver import Version

from ...manifests.findings.errors import AdapterdockError
from ...manifests.language.names import is_name
from ...manifests.language.selector import parse_selector
from ...manifests.language.versions import parse_version
from ...manifests.manifest import ManifestFile
from ...registry.catalogue.catalogue import Catalogue, Listing, Resolved
from ...registry.catalogue.promote import history
from ...registry.catalogue.reference import Reference
from ...registry.catalogue.search_index import Query
from ...registry.files.pool import each
from ...registry.inspecting import open_reference
from ...registry.records.entry import Entry, EntryBase
from ...registry.records.thin_row import ThinRow
from ...registry.search import search
from ...registry.signatures.envelope import Envelope
from ...registry.signatures.signatures import read_signatures
from ...registry.storages.layout import signatures_folder
from ...registry.store.store import Store
from .facts import Adapter, Alias, Problem, Signature
from .facts import Version as Shown
from .heat_of import Measuring

WORKERS = 16
"""Names that are read at once."""


@dataclass(frozen=True)
class Registry:
    """A registry to show. ``name`` is what manifests here call it, ``url`` where it is, as the
    user wrote it and without secrets. ``place`` is what opens it; ``None`` for the name's own
    place, which ``file`` or the user's config says."""

    catalogue: Catalogue
    name: str
    url: str
    place: str | None = None
    file: ManifestFile | None = None


@dataclass(frozen=True)
class Read:
    """The adapters of a registry, by name the text of the base that is shown (see ``base_text``),
    and what could not be read."""

    adapters: tuple[Adapter, ...]
    bases: tuple[str, ...]
    problems: tuple[Problem, ...]


def read_registry(registry: Registry, store: Store, measuring: Measuring) -> Read:
    """Everything that a registry has. What cannot be read is a problem, and does not raise.

    Raises:
        AdapterdockError: The registry cannot be searched.
    """
    hits = search(registry.catalogue, Query(), store)
    names: dict[str, list[ThinRow]] = {}
    for row in hits.rows:
        names.setdefault(row.name, []).append(row)
    read = each(lambda name: _read(registry, name, names[name]), sorted(names), WORKERS)
    adapters: list[Adapter] = []
    bases: list[str] = []
    problems = [Problem(registry.name, one.code, one.message) for one in hits.problems]
    for found, base, wrong in read:
        problems += wrong
        if found is not None:
            adapters.append(_with_heat(registry, found, measuring))
            bases.append(base)
    return Read(tuple(adapters), tuple(bases), tuple(problems))


def _read(
    registry: Registry, name: str, rows: Sequence[ThinRow]
) -> tuple[Adapter | None, str, list[Problem]]:
    """One name, without its map; the text of its base; and what could not be read of it."""
    catalogue = registry.catalogue
    problems: list[Problem] = []
    try:
        listing = catalogue.listing(name)
        aliases = _aliases(catalogue, listing, registry, problems)
    except AdapterdockError as error:
        return None, "", [*problems, *_problems(f"{registry.name}/{name}", error)]
    found: list[tuple[Shown, Entry, ThinRow]] = []
    for row in sorted(rows, key=_order, reverse=True):
        try:
            resolved = catalogue.entry(name, row.version, row.entry)
            found.append(
                (_version(catalogue, listing, row, resolved, aliases), resolved.entry, row)
            )
        except AdapterdockError as error:
            problems += _problems(f"{registry.name}/{name}@{row.version}", error)
    if not found:
        return None, "", problems
    best = next((one for one in found if "yanked" not in one[0].marks), found[0])
    versions = tuple(version for version, _, _ in found)
    return _adapter(registry, best[0], best[1], versions, aliases), best[2].base, problems


def _aliases(
    catalogue: Catalogue, listing: Listing, registry: Registry, problems: list[Problem]
) -> tuple[Alias, ...]:
    found: list[Alias] = []
    for alias in listing.aliases:
        try:
            found.append(Alias(alias, tuple(history(catalogue, listing.name, alias))))
        except AdapterdockError as error:
            problems += _problems(f"{registry.name}/{listing.name}@{alias}", error)
    return tuple(found)


def _version(
    catalogue: Catalogue,
    listing: Listing,
    row: ThinRow,
    resolved: Resolved,
    aliases: Sequence[Alias],
) -> Shown:
    entry = resolved.entry
    mark = catalogue.mark(listing, row.version) if row.marks else None
    return Shown(
        version=entry.version,
        created=entry.created,
        digest=resolved.digest,
        aliases=tuple(alias.name for alias in aliases if alias.version == entry.version),
        marks=row.marks,
        why=None if mark is None else mark.why,
        metrics=dict(sorted(entry.metrics.items())),
        signatures=_signatures(catalogue, listing, entry.version),
        method=entry.method,
        size=sum(file.size for file in entry.files),
    )


def _signatures(
    catalogue: Catalogue, listing: Listing, version: str
) -> tuple[Signature, ...] | None:
    if not catalogue.storage.lists:
        return None
    folder = signatures_folder(listing.name, version)
    found = read_signatures(catalogue.storage, folder, listing.paths)
    return tuple(
        Signature(tuple(key.key_id for key in one.signatures) if isinstance(one, Envelope) else ())
        for one in found.values()
    )


def _adapter(
    registry: Registry,
    shown: Shown,
    entry: Entry,
    versions: tuple[Shown, ...],
    aliases: tuple[Alias, ...],
) -> Adapter:
    said, base = entry.provenance, entry.base
    source = f"registry://{registry.name}/{entry.name}@{entry.version}"
    names = [name for name in (base.source, *base.aliases) if name]
    return Adapter(
        group=registry.name,
        name=entry.name,
        origin="registry",
        source=source,
        lines=lines_to_copy(
            {
                "registries": {registry.name: registry.url},
                "adapters": {key_of(entry.name): {"source": source}},
            }
        ),
        shown=entry.version,
        created=entry.created,
        owner=entry.owner,
        licence=entry.licence,
        description=entry.description,
        tags=entry.tags,
        base=names[0] if names else _architecture(base),
        base_names=tuple(names[1:]),
        base_note=_base_note(base),
        method=entry.method,
        files=entry.files,
        marks=shown.marks,
        why=shown.why,
        data=said.data,
        code=said.code,
        trained=said.date,
        parents=said.parents,
        versions=versions,
        aliases=aliases,
    )


def _with_heat(registry: Registry, adapter: Adapter, measuring: Measuring) -> Adapter:
    reference = Reference(registry.name, adapter.name, parse_selector(adapter.shown or ""))
    heat = measuring.published(
        lambda: open_reference(
            reference, registry=registry.place, file=registry.file, offline=measuring.offline
        )
    )
    return replace(adapter, heat=heat)


def key_of(name: str) -> str:
    """What a manifest may call an adapter of this name: its last part."""
    last = name.rpartition("/")[2]
    return last if is_name(last) else "adapter"


def lines_to_copy(data: object) -> str:
    """Lines of a manifest. Nothing in them is a variable when the manifest is read."""
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10_000)
    return text.replace("$", "$$")


def _architecture(base: EntryBase) -> str | None:
    return next((one.architecture for one in base.fingerprints if one.architecture), None)


def _base_note(base: EntryBase) -> str | None:
    parts = (
        _architecture(base),
        None if base.quantisation is None else f"quantised with {base.quantisation}",
        None if base.licence is None else f"licence {base.licence}",
        "gated" if base.gated else None,
        None if base.revision is None else f"revision {base.revision[:12]}",
    )
    return ", ".join(part for part in parts if part) or None


def _order(row: ThinRow) -> Version:
    return parse_version(row.version) or Version(0)


def _problems(what: str, error: AdapterdockError) -> Iterable[Problem]:
    return [Problem(what, one.code, one.message, left_out=True) for one in error.findings]
