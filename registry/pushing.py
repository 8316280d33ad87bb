"""Pushing an adapter to an OCI registry: its entry and its files, then its signatures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..manifests.findings import registry as codes
from ..manifests.findings import sources as source_codes
from ..manifests.findings.errors import IntegrityError, SourceError, UsageError
from ..manifests.language.oci_reference import OciReference
from ..manifests.language.published_names import wrong_name
from ..manifests.language.selector import parse_selector
from ..manifests.language.source import REGISTRY, Source
from ..manifests.language.versions import parse_version
from .access.opening import Opening
from .access.published import PublishedFolder, open_folder
from .access.published_artifacts import envelopes_of, packed
from .access.session import session_for
from .catalogue.make_entry import Said
from .catalogue.publish import entry_bytes
from .catalogue.reference import Reference, parse_reference
from .files.progress import Progress, transfer_shown
from .locks.project import ManifestSource, open_manifest, policies_in_force
from .oci.artifact import (
    MOST_SIGNATURES,
    adapter_manifest,
    pack_signatures,
    read_adapter,
    read_signatures,
    signatures_tag,
)
from .oci.client import OciClient, reference_of
from .oci.login import login_for
from .oci.manifest import InvalidManifestError, Manifest
from .publishing import Candidate, check_candidate, manifest_for
from .records.entry import InvalidEntryError, parse_object
from .sources.fetch import fetch
from .sources.open import is_offline
from .store.store import Store

_NAME_SEGMENTS = 3


@dataclass(frozen=True)
class Pushed:
    """``pinned`` is the source that a manifest can name: the repository and the digest of the
    artifact. ``signatures`` are those that went along, and ``new`` is whether the tag did not have
    the artifact before."""

    pinned: str
    digest: str
    signatures: int
    new: bool


@dataclass(frozen=True)
class Parcel:
    """What is pushed: the bytes of an entry, its files by path (which may have to be fetched), and
    envelopes that sign it. The entry of a ``published`` version is never another one."""

    raw: bytes
    files: Callable[[], Mapping[str, bytes | Path]]
    envelopes: tuple[bytes, ...] = ()
    published: bool = False


def push(
    subject: str | os.PathLike[str],
    target: str,
    *,
    registry: str | None = None,
    base: str | None = None,
    manifest: ManifestSource | None = None,
    policy: str | os.PathLike[str] | None = None,
    offline: bool = False,
    dry_run: bool = False,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """Push an adapter to an OCI registry, with docker's login for its host.

    Contents that are there are not sent again, and the manifest is sent last. So whoever was
    stopped pushes again, and nobody sees a part. A tag that is a version is never moved.

    Args:
        subject: ``REGISTRY/NAME@VERSION`` of a registry, or an adapter's folder (a path). A folder
            is validated against its base as ``publish`` does; its name and version are those of
            ``target``.
        target: ``oci://HOST/REPOSITORY:TAG``. Without a tag, only the digest leads to it.
        registry: The URL that ``REGISTRY`` means; by default, what ``manifest`` says.
        base: Of a folder: the base's source; by default that of ``manifest``, else what the
            adapter's config records.
        manifest: A manifest with ``registries``, and with the base.
        policy: A policy file that must allow the sources too.
        offline: Use no network but a registry on this machine.
        dry_run: Check everything, and send nothing.
        store: Where fetched files are kept; the user's cache by default.
        progress: Gets what is read and sent.

    Raises:
        UsageError: ``subject`` or ``target`` is invalid.
        FitError: The adapter of a folder does not fit its base, or that could not be checked.
        IntegrityError: A content is not what its entry says, or the tag is a version and has
            another content.
        SourceError: The registry or the host refuses, is too slow or answers wrongly.
    """
    place = target_of(target)
    file = None if manifest is None else open_manifest(manifest)
    offline = offline or is_offline()
    client = OciClient(place, login_for(place.host), push=True, offline=offline)
    if is_folder(subject):
        given = manifest_for(Path(subject), base, file)
        session = session_for(given, policy=policy, offline=offline, store=store, progress=progress)
        found = check_candidate(given, _reference_for(place), Said(), session)
        parcel = Parcel(entry_bytes(found.entry), lambda: _by_path(found))
    else:
        policies = () if file is None else policies_in_force(file, policy)
        source = _source_of(os.fspath(subject))
        opening = Opening(source, file, policies=policies, offline=offline, registry=registry)
        parcel = _published(open_folder(opening), store or Store.default(), progress)
    there = _there(client, place)
    parcel = replace(parcel, raw=_settled(parcel, there, client, place))
    made = _manifest(parcel.raw)
    new = there is None or there.digest != made.digest
    pinned = str(OciReference(place.host, place.repository, digest=made.digest))
    done = Pushed(pinned, made.digest, len(parcel.envelopes), new)
    if dry_run:
        return done
    artifact = packed(parcel.raw, parcel.files())
    total = sum(one.size for one in made.contents)
    with transfer_shown(progress, str(place), total) as on_bytes:
        client.push(artifact, place.tag, on_bytes)
    if parcel.envelopes:
        signed = pack_signatures(made, _with_those_there(client, made.digest, parcel.envelopes))
        client.push(signed, signatures_tag(made.digest))
    return done


def is_folder(subject: str | os.PathLike[str]) -> bool:
    """Whether this is a path, and not a reference."""
    return not isinstance(subject, str) or subject.startswith((".", "/", "~"))


def target_of(text: str) -> OciReference:
    """The place to push to. Raises :class:`SourceError` for one that no artifact can be pushed
    to."""
    place = reference_of(text)
    if place.digest is not None:
        raise SourceError(
            codes.OCI_REFERENCE_INVALID.finding(
                f"Cannot push to {text[:200]!r}: the digest is that of what is pushed",
                expected="oci://HOST/REPOSITORY:TAG",
            )
        )
    return place


def _published(folder: PublishedFolder, store: Store, progress: Progress | None) -> Parcel:
    def files() -> dict[str, bytes | Path]:
        wanted = list(folder.files().values())
        fetched = fetch(folder, wanted, store, progress=progress)
        return {path: one.path for path, one in fetched.items()}

    return Parcel(folder.resolved.raw, files, tuple(envelopes_of(folder)), published=True)


def _by_path(found: Candidate) -> dict[str, bytes | Path]:
    return {file.path: found.contents[file.sha256] for file in found.entry.files}


def _there(client: OciClient, place: OciReference) -> Manifest | None:
    """What the tag has now."""
    if place.tag is None:
        return None
    try:
        return client.manifest(place.tag)
    except SourceError as error:
        if error.code != source_codes.SOURCE_MISSING.id:
            raise
        return None


def _settled(
    parcel: Parcel, there: Manifest | None, client: OciClient, place: OciReference
) -> bytes:
    """The bytes of the entry to push: those that the tag has, where only the time of a folder's
    entry is another one. Raises :class:`IntegrityError` where a version would change."""
    if there is None or there.digest == _manifest(parcel.raw).digest:
        return parcel.raw
    theirs = None if parcel.published else _entry_of(there, client)
    if theirs is not None and _without_time(theirs) == _without_time(parcel.raw):
        return theirs
    if place.tag is not None and parse_version(place.tag) is not None:
        raise IntegrityError(
            codes.EXISTS_ALREADY.finding(
                f"{place} has another content, and the tag of a version never moves",
                found=there.digest,
                expected=_manifest(parcel.raw).digest,
                hint="Push under another tag.",
            )
        )
    return parcel.raw


def _entry_of(manifest: Manifest, client: OciClient) -> bytes | None:
    try:
        return read_adapter(manifest, client)[1]
    except InvalidManifestError:
        return None


def _without_time(raw: bytes) -> dict[str, Any]:
    return {key: value for key, value in parse_object(raw).items() if key != "created"}


def _manifest(raw: bytes) -> Manifest:
    try:
        return adapter_manifest(raw)
    except InvalidEntryError as error:
        raise IntegrityError(
            codes.ENTRY_INVALID.finding("Cannot push an invalid entry", found=error)
        ) from error


def _source_of(text: str) -> Source:
    """The source of a reference in a registry. Raises :class:`UsageError`."""
    reference = parse_reference(text)
    if reference.selector is None:
        raise UsageError(
            codes.BAD_REFERENCE.finding(
                f"Invalid reference {text[:120]!r}: it names no version",
                found=text[:120],
                expected="REGISTRY/NAME@VERSION, or a folder: ./adapter",
            )
        )
    return Source(REGISTRY, f"{reference.registry}/{reference.name}", reference.selector.text)


def _reference_for(place: OciReference) -> Reference:
    """The name and the version that a folder is pushed as. Raises :class:`UsageError`."""
    name = "/".join(place.repository.split("/")[-_NAME_SEGMENTS:])
    problem = wrong_name(name)
    selector = None if place.tag is None else parse_selector(place.tag)
    if problem is None and (selector is None or selector.version is None):
        problem = "the tag is not a version"
    if problem is not None:
        raise UsageError(
            codes.BAD_REFERENCE.finding(
                f"Cannot tell the name and the version of the adapter from {place}: {problem}",
                expected="oci://HOST/REPOSITORY:VERSION, for example oci://host/team/refunds:2.1.0",
            )
        )
    return Reference(place.host, name, selector)


def _with_those_there(client: OciClient, digest: str, envelopes: Iterable[bytes]) -> list[bytes]:
    """These envelopes, and those that others have pushed."""
    found = list(envelopes)
    there = client.signatures(digest)
    if there is not None:
        with suppress(InvalidManifestError):  # what is there are no signatures
            found += read_signatures(there, digest, client)
    return list(dict.fromkeys(found))[:MOST_SIGNATURES]
