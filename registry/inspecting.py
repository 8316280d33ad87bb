"""Everything that a registry says of one version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..manifests.findings import registry as codes
from ..manifests.findings.errors import UsageError
from ..manifests.language.source import Source, SourceSyntaxError
from ..manifests.manifest import ManifestFile
from .access.open_registries import OpenRegistries
from .access.opening import Opening
from .access.published import PublishedFolder, open_folder
from .access.session import session_for
from .catalogue.catalogue import Resolved
from .catalogue.promote import selected
from .catalogue.reference import Reference
from .files.progress import Progress
from .records.marks import Mark
from .signatures.envelope import Envelope
from .signatures.signatures import read_signatures
from .storages.layout import signatures_folder
from .store.store import Store

if TYPE_CHECKING:
    from .measured import Measured


@dataclass(frozen=True)
class Signature:
    """An envelope beside an entry: the ids of the keys that it names, unverified; none for a file
    that is not a signature."""

    path: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Card:
    """A published version: its entry, what was done to it since, and who signed it.

    ``aliases`` select it now. ``signatures`` are ``None`` where they cannot be listed.
    """

    reference: str
    registry: str
    registry_id: str
    resolved: Resolved
    mark: Mark | None
    aliases: tuple[str, ...]
    signatures: tuple[Signature, ...] | None


def open_reference(
    reference: Reference,
    *,
    registry: str | None = None,
    file: ManifestFile | None = None,
    offline: bool = False,
) -> PublishedFolder:
    """The published adapter that a reference selects.

    Raises:
        UsageError: It selects nothing, or its registry is unknown.
        SourceError: It is not published.
    """
    if reference.selector is None:
        raise UsageError(
            codes.BAD_REFERENCE.finding(
                f"{reference} does not say which version",
                found=reference,
                expected=f"{reference}@VERSION",
                hint=f"List the versions with `adapterdock versions {reference}`.",
            )
        )
    try:
        source = Source.parse(f"registry://{reference}")
    except SourceSyntaxError as error:
        raise UsageError(codes.BAD_REFERENCE.finding(str(error), found=reference)) from error
    policies = () if file is None else session_for(file).access.policies
    return open_folder(
        Opening(
            source,
            file,
            policies=policies,
            offline=offline,
            registries=OpenRegistries(),
            registry=registry,
        )
    )


def card_of(folder: PublishedFolder) -> Card:
    """What the registry says of the version in ``folder``."""
    open_ = folder.registry
    catalogue, entry = open_.catalogue, folder.resolved.entry
    listing = open_.listing(entry.name)
    aliases = selected(catalogue, listing)
    signatures: tuple[Signature, ...] | None = None
    if catalogue.storage.lists:
        place = signatures_folder(entry.name, entry.version)
        found = read_signatures(catalogue.storage, place, listing.paths)
        signatures = tuple(
            Signature(
                path,
                tuple(one.key_id for one in envelope.signatures)
                if isinstance(envelope, Envelope)
                else (),
            )
            for path, envelope in found.items()
        )
    return Card(
        f"{folder.source.location.partition('/')[0]}/{entry.name}@{entry.version}",
        catalogue.storage.url,
        catalogue.id,
        folder.resolved,
        catalogue.mark(listing, entry.version),
        tuple(alias for alias, version in aliases.items() if version == entry.version),
        signatures,
    )


def measure_published(
    folder: PublishedFolder,
    store: Store,
    *,
    base: Source | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Measured:
    """The sizes of a published adapter's changes, beside the weights of ``base``, or of the base in
    its entry where that is on this machine."""
    from .measured import deltas_of, measure_deltas, open_base

    entry = folder.resolved.entry
    known = base if base is not None else _source(entry.base.source)
    revision = None if base is not None else entry.base.revision
    opened, why = open_base(known, revision, asked=base is not None, offline=offline)
    layout = None if opened is None else opened.facts.layout
    return measure_deltas(deltas_of(entry.name, folder, store, layout, progress), opened, why)


def _source(text: str | None) -> Source | None:
    try:
        source = None if text is None else Source.parse(text)
    except SourceSyntaxError:
        return None
    return None if source is None or source.is_local else source
