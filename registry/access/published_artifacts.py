"""Published adapters, and the parts of registries that they are in, as OCI artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import IntegrityError
from ..catalogue.registry_part import part_of
from ..oci.archive_storage import pack_registry
from ..oci.artifact import Artifact, pack_adapter, pack_signatures, signatures_tag
from ..oci.setup_artifact import Content
from ..records.entry import InvalidEntryError
from ..signatures.envelope import Envelope
from ..signatures.signatures import read_signatures
from ..sources.fetch import Fetched
from ..storages.layout import signatures_folder
from .open_registries import OpenRegistry
from .published import PublishedFolder

REGISTRIES = "registries"
"""What the reference names of registries in an archive start with."""

Files = Mapping[str, Fetched]


def artifacts_of(published: Mapping[PublishedFolder, Files]) -> dict[str, Artifact]:
    """By reference name, the artifacts of these adapters, of their signatures, and of their
    registries, each with what these adapters need of it.

    Args:
        published: Each with all files of its entry.
    """
    found: dict[str, Artifact] = {}
    registries: dict[str, list[PublishedFolder]] = {}
    for folder, files in published.items():
        adapter = packed(folder.resolved.raw, {path: one.path for path, one in files.items()})
        found[f"{folder.source.location}:{folder.revision}"] = adapter
        if envelopes := envelopes_of(folder):
            digest = adapter.manifest.digest
            found[signatures_tag(digest)] = pack_signatures(adapter.manifest, envelopes)
        registries.setdefault(folder.source.location.partition("/")[0], []).append(folder)
    for name, folders in registries.items():
        contents = {
            one.fact.sha256 or "": Content(one.fact.sha256 or "", one.fact.size, one.path)
            for folder in folders
            for one in published[folder].values()
        }
        found[f"{REGISTRIES}/{name}"] = pack_registry(_part(folders), contents)
    return found


def packed(raw: bytes, files: Mapping[str, bytes | Path]) -> Artifact:
    """The artifact of an adapter with this entry. Raises :class:`IntegrityError`."""
    try:
        return pack_adapter(raw, files)
    except InvalidEntryError as error:
        raise IntegrityError(
            codes.ENTRY_INVALID.finding("Cannot pack an invalid entry", found=error)
        ) from error


def envelopes_of(folder: PublishedFolder) -> list[bytes]:
    """The signatures of an entry, whoever made them."""
    entry, registry = folder.resolved.entry, folder.registry
    paths = registry.listing(entry.name).signatures(entry.version)
    place = signatures_folder(entry.name, entry.version)
    found = read_signatures(registry.catalogue.storage, place, paths)
    return [one.raw for one in found.values() if isinstance(one, Envelope)]


def _part(folders: list[PublishedFolder]) -> dict[str, bytes]:
    """Of one registry."""
    wanted: dict[str, list[str]] = {}
    seen = [0]
    for folder in folders:
        entry, journal = folder.resolved.entry, folder.locked().journal
        wanted.setdefault(entry.name, []).append(entry.version)
        if journal is not None:
            seen.append(journal.serial)
    registry: OpenRegistry = folders[0].registry
    return part_of(registry.catalogue, wanted, max(seen))
