"""Searches registries: the index of each, brought up to date, and which of its bases fit."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from ..manifests.findings import registry as codes
from ..manifests.findings.errors import AdapterdockError, OfflineError, UsageError
from ..manifests.findings.finding import Finding
from ..manifests.manifest import ManifestFile
from .access.configured import configured
from .catalogue.catalogue import Catalogue
from .catalogue.index_file import current_index, forget_index, kept_index
from .catalogue.search_index import Query, SearchIndex
from .records.thin_row import ThinRow
from .registries import local_name, named, open_named, reach
from .sources.failures import scrub
from .store.store import Store

if TYPE_CHECKING:
    from .base.fingerprint import Measured


@dataclass(frozen=True)
class Hits:
    """What one registry answers: the best rows, how many there are in all, and how many may
    fit, but recorded too little of their base. ``newer`` versions of the registry can only be read
    by a newer adapterdock, and were not searched. ``problems`` are warnings."""

    rows: tuple[ThinRow, ...] = ()
    total: int = 0
    unknown: int = 0
    newer: int = 0
    problems: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Searched:
    """A registry that was searched: the first segment of its references, its place without secrets,
    and its hits, or ``None`` where it could not be searched; then ``problems`` say why."""

    name: str | None
    url: str
    id: str | None = None
    hits: Hits | None = None
    problems: tuple[Finding, ...] = ()
    as_of: str | None = None
    """When the hits were current (UTC), where the registry cannot be reached now."""


def search_all(
    query: Query,
    store: Store,
    *,
    registry: str | None = None,
    file: ManifestFile | None = None,
    base: Measured | None = None,
    offline: bool = False,
) -> list[Searched]:
    """Search one registry, or all that are configured.

    One that cannot be reached is searched by the index of the last search, if there is one.

    Args:
        query: What is searched.
        store: The cache.
        registry: The URL or the configured name of one.
        file: A manifest that may name registries.
        base: The base that adapters must fit.
        offline: Use no network.

    Raises:
        UsageError: No registry is named, and none is configured.
        SourceError: ``registry`` cannot be opened.
    """
    if registry is not None:
        name = local_name(registry)
        try:
            catalogue = open_named(registry, file, offline=offline)
        except OfflineError:
            url = registry if name is None else str(named(name, file).source)
            kept = _kept(name, scrub(url), query, store, base)
            if kept is None:
                raise
            return [kept]
        return [_searched(name, catalogue, query, store, base)]
    rows = configured(file)
    if not rows:
        raise UsageError(
            codes.BAD_REFERENCE.finding(
                "No registry is configured",
                expected="--registry URL, or a registry in the manifest or in config.toml",
                hint="Pass --registry URL, or name registries in config.toml under `registries`.",
            )
        )
    found: list[Searched] = []
    for one in reach(rows.values(), offline=offline):
        name, url = one.row.name, scrub(str(one.row.source))
        if one.catalogue is not None:
            found.append(_searched(name, one.catalogue, query, store, base))
            continue
        kept = _kept(name, url, query, store, base) if one.offline else None
        found.append(kept or Searched(name, url, problems=one.problems))
    return found


def _kept(
    name: str | None, url: str, query: Query, store: Store, base: Measured | None
) -> Searched | None:
    """What the index of the last search says of a registry that cannot be reached."""
    try:
        with kept_index(url, store) as kept:
            if kept is None:
                return None
            index, at = kept
            hits = _ask(index, query, base)
    except sqlite3.Error:
        return None
    as_of = datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds")
    return Searched(name, url, hits=hits, as_of=as_of)


def _searched(
    name: str | None, catalogue: Catalogue, query: Query, store: Store, base: Measured | None
) -> Searched:
    url = catalogue.storage.url
    try:
        hits = search(catalogue, query, store, base)
    except AdapterdockError as error:
        return Searched(name, url, catalogue.id, problems=error.findings)
    return Searched(name, url, catalogue.id, hits, hits.problems)


def search(catalogue: Catalogue, query: Query, store: Store, base: Measured | None = None) -> Hits:
    """The versions of a registry that match.

    Args:
        catalogue: The registry.
        query: What is searched.
        store: The cache, which keeps the registry's index.
        base: The base that they must fit.
    """
    try:
        return _search(catalogue, query, store, base, in_memory=False)
    except sqlite3.Error:  # the file is damaged
        forget_index(catalogue, store)
        return _search(catalogue, query, store, base, in_memory=True)


def _search(
    catalogue: Catalogue, query: Query, store: Store, base: Measured | None, *, in_memory: bool
) -> Hits:
    with current_index(catalogue, store, in_memory=in_memory) as (index, problems):
        hits = _ask(index, query, base)
    return replace(hits, problems=tuple(problems))


def _ask(index: SearchIndex, query: Query, base: Measured | None) -> Hits:
    if base is None:
        found = index.search(query)
        return Hits(found.rows, found.total, newer=index.unread)
    from .fits import fitting

    verdict = fitting(index.bases(), base)
    found = index.search(query, verdict.fits)
    unknown = index.search(replace(query, limit=0), verdict.unknown).total
    return Hits(found.rows, found.total, unknown, index.unread)
