"""Which registry a reference or an argument names, opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..manifests.findings import registry as codes
from ..manifests.findings.errors import AdapterdockError, OfflineError, UsageError
from ..manifests.findings.finding import Finding
from ..manifests.language.names import did_you_mean
from ..manifests.language.published_names import wrong_name
from ..manifests.manifest import ManifestFile
from .access.configured import Configured, configured
from .catalogue.catalogue import Catalogue, open_catalogue
from .catalogue.open_storage import open_storage
from .catalogue.reference import Reference
from .files.pool import each

_WORKERS = 8
"""Registries that are opened at once."""


@dataclass(frozen=True)
class Reached:
    """A registry that is configured: opened, or why it cannot be."""

    row: Configured
    catalogue: Catalogue | None = None
    problems: tuple[Finding, ...] = ()
    offline: bool = False
    """Whether it needs the network, which cannot be used."""


def open_registry(
    reference: Reference, url: str | None = None, file: ManifestFile | None = None
) -> Catalogue:
    """The registry that a reference names: at ``url``, or where the manifest or the user's
    ``config.toml`` says. Raises :class:`UsageError` where none of them does."""
    if url is not None:
        return open_catalogue(open_storage(url, directory=Path.cwd()))
    return open_configured(_known(reference.registry, configured(file)))


def open_named(text: str, file: ManifestFile | None = None, *, offline: bool = False) -> Catalogue:
    """The registry at a URL, or the one of this local name: a word without ``/`` and ``:``."""
    name = local_name(text)
    if name is not None:
        return open_configured(named(name, file), offline=offline)
    return open_catalogue(open_storage(text, directory=Path.cwd(), offline=offline))


def named(name: str, file: ManifestFile | None = None) -> Configured:
    """The configured registry of this local name. Raises :class:`UsageError`."""
    return _known(name, configured(file))


def open_only(file: ManifestFile | None = None) -> Catalogue:
    """The only registry that is configured. Raises :class:`UsageError` unless it is one."""
    known = configured(file)
    if len(known) == 1:
        return open_configured(next(iter(known.values())))
    raise UsageError(
        codes.BAD_REFERENCE.finding(
            f"{len(known)} registries are configured",
            found=", ".join(known) or "none",
            expected="one",
            hint="Pass --registry URL or its name.",
        )
    )


def local_name(text: str) -> str | None:
    """``text``, if it is a local name of a registry and no URL."""
    return text if wrong_name(text) is None and "/" not in text else None


def open_configured(row: Configured, *, offline: bool = False) -> Catalogue:
    """A registry that has a local name."""
    storage = open_storage(row.source, directory=row.directory, offline=offline, where=row.where)
    return open_catalogue(storage)


def reach(rows: Iterable[Configured], *, offline: bool = False) -> list[Reached]:
    """Open each of these registries; one that cannot be opened is not an error."""

    def one(row: Configured) -> Reached:
        try:
            return Reached(row, open_configured(row, offline=offline))
        except AdapterdockError as error:
            return Reached(row, None, error.findings, isinstance(error, OfflineError))

    return each(one, list(rows), _WORKERS)


def _known(name: str, known: Mapping[str, Configured]) -> Configured:
    if name in known:
        return known[name]
    near = did_you_mean(name, known)
    add = "Pass --registry URL, or name it in the manifest or in config.toml, under `registries`."
    raise UsageError(
        codes.BAD_REFERENCE.finding(
            f"Unknown registry {name!r}",
            found=name,
            expected=", ".join(known) or "a registry that is configured",
            hint=add if near is None else f"{near} {add}",
        )
    )
