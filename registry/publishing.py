"""Publishing an adapter folder: validated against its base, looked at once, then published."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..manifests.findings import registry as codes
from ..manifests.findings.errors import AdapterdockError, FitError, StoreError, UsageError
from ..manifests.findings.finding import Where
from ..manifests.language.frozen import FrozenDict
from ..manifests.language.names import is_name
from ..manifests.language.schema import Fingerprint
from ..manifests.language.source import Source, SourceSyntaxError
from ..manifests.manifest import ManifestFile, read_manifest
from ..manifests.reading.nodes import Entry as Written
from ..manifests.reading.nodes import Map, Scalar, Spot
from .access.session import Session, session_for
from .catalogue.catalogue import Catalogue
from .catalogue.make_entry import Said, describe_base, make_entry, published_files
from .catalogue.publish import Published, check_publish, publish_entry
from .catalogue.reference import Reference, parse_reference, version_of
from .catalogue.said import said_of
from .catalogue.values import Looked, check_values, look
from .checks.recorded_base import recorded_name
from .files.disk import fault
from .files.facts import FileFact
from .files.pool import each
from .files.progress import Progress
from .licences import licence_beside
from .lock import require_fit
from .locks.project import ManifestSource, open_manifest
from .records.entry import Entry, EntryBase, Provenance
from .records.journal import now
from .registries import open_registry
from .resolution import Opened, Resolution
from .resolve import check_records, measure, resolve
from .signatures.keys import load_public_key
from .signatures.signer import Signer, open_signer
from .sources.fetch import Fetched, fetch
from .sources.folder import Gated
from .store.store import Store


@dataclass(frozen=True)
class Candidate:
    """An adapter that may be published: its entry, and its contents by digest."""

    entry: Entry
    contents: Mapping[str, Path]
    left_out: tuple[str, ...] = ()
    """Files of the folder that are not published."""


def publish(
    folder: str | os.PathLike[str],
    reference: str,
    *,
    registry: str | None = None,
    base: str | None = None,
    manifest: ManifestSource | None = None,
    licence: str | None = None,
    owner: str | None = None,
    description: str | None = None,
    tags: Iterable[str] = (),
    metrics: Mapping[str, float] | None = None,
    provenance: Provenance | Mapping[str, Any] | None = None,
    policy: str | os.PathLike[str] | None = None,
    new_name: bool = False,
    dry_run: bool = False,
    sign: str | os.PathLike[str] | Signer | None = None,
    passphrase: str | bytes | None = None,
    public_key: str | os.PathLike[str] | None = None,
    offline: bool = False,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Published | None:
    """Publish an adapter as one version, for good.

    It is validated against its base first, and its weights are read once. The same content again
    succeeds.

    Args:
        folder: The adapter's folder.
        reference: ``REGISTRY/NAME@VERSION``.
        registry: The URL that ``REGISTRY`` means; by default, what ``manifest`` says.
        base: The base's source; by default that of ``manifest``, else what the adapter's config
            records.
        manifest: A manifest with the base, and with ``registries``.
        licence: Of the adapter, an SPDX id where there is one: ``Apache-2.0``.
        owner: Who answers questions.
        description: For people.
        tags: Words for search.
        metrics: Finite numbers by name; promotions can require them.
        provenance: Where it comes from: ``data``, ``code`` (a commit), ``date``, ``parents``.
        policy: A policy file that must allow the sources too.
        new_name: Whether a new name may be nearly that of another adapter.
        dry_run: Checks everything, and writes nothing.
        sign: A private key that signs the entry before it is published: the path of a PEM file,
            or ``awskms:...``, ``gcpkms:...`` and so on.
        passphrase: Of the key's file.
        public_key: The public key that belongs to it, in PEM or as a path; needed for a key in a
            service.
        offline: Use no network.
        store: Where fetched files are kept; the user's cache by default.
        progress: Gets what is read.

    Returns:
        What is published now; ``None`` with ``dry_run`` where nothing is yet. Its ``problems`` say
        what could not be done after that: the journal may be damaged.

    Raises:
        UsageError: The reference, the key or something that is said is invalid, or the new name is
            nearly another one.
        FitError: The adapter does not fit its base, that could not be checked, or its weights
            are not finite or change nothing.
        IntegrityError: The version is published with other content.
        SourceError, PolicyError, StoreError: Something cannot be read or written.
    """
    said = said_of(
        licence=licence,
        owner=owner,
        description=description,
        tags=tags,
        metrics=metrics,
        provenance=provenance,
    )
    signer = signer_for(sign, passphrase, public_key)
    wanted = parse_reference(reference)
    version_of(wanted)
    given = None if manifest is None else open_manifest(manifest)
    catalogue = open_registry(wanted, registry, given)
    file = manifest_for(Path(folder), base, given)
    session = session_for(file, policy=policy, offline=offline, store=store, progress=progress)
    candidate = check_candidate(file, wanted, said, session)
    return publish_candidate(
        catalogue, candidate, new_name=new_name, dry_run=dry_run, signer=signer
    )


def signer_for(
    key: str | os.PathLike[str] | Signer | None,
    passphrase: str | bytes | None = None,
    public_key: str | os.PathLike[str] | None = None,
) -> Signer | None:
    """What signs with this key, if there is one. Raises :class:`UsageError`."""
    if key is None or isinstance(key, Signer):
        return key
    public = None if public_key is None else load_public_key(os.fspath(public_key), Path.cwd())
    secret = passphrase.encode() if isinstance(passphrase, str) else passphrase
    return open_signer(os.fspath(key), secret, public)


def publish_candidate(
    catalogue: Catalogue,
    candidate: Candidate,
    *,
    new_name: bool = False,
    dry_run: bool = False,
    signer: Signer | None = None,
) -> Published | None:
    """Publish what was checked; with ``dry_run``, ``None`` where it is not published yet."""
    if dry_run:
        there = check_publish(catalogue, candidate.entry, new_name=new_name)
        return None if there is None else Published(there, new=False)
    return publish_entry(
        catalogue, candidate.entry, candidate.contents, new_name=new_name, signer=signer
    )


def check_candidate(
    file: ManifestFile, reference: Reference, said: Said, session: Session
) -> Candidate:
    """The only adapter of ``file``, if it may be published: it fits, everything about that could
    be checked, and its values are finite and change something."""
    resolution = resolve(file, session.access)
    require_fit(resolution, ())
    measured = measure(resolution)
    more = check_records(resolution, measured)
    require_fit(replace(resolution, findings=(*resolution.findings, *more)), ())
    (opened,) = resolution.adapters.values()
    assert opened.folder is not None and opened.facts is not None and opened.plan is not None
    assert resolution.base is not None
    where = file.where(("adapters", *resolution.adapters, "source"))
    available = opened.folder.files()
    chosen = published_files(opened.facts, available)
    fetched, looked = _read(opened, chosen, session, where)
    wrong = check_values(opened.facts, opened.plan, looked, where)
    if wrong:
        raise FitError(*wrong)
    facts = [one.fact for one in fetched.values()]
    entry = make_entry(
        reference.name,
        version_of(reference),
        now(),
        opened.facts,
        opened.plan,
        facts,
        _describe_base(resolution, measured.fingerprint),
        said,
    )
    contents = {one.fact.sha256 or "": one.path for one in fetched.values()}
    left_out = tuple(sorted(available.keys() - fetched.keys()))
    return Candidate(entry, contents, left_out)


def _read(
    opened: Opened, chosen: Sequence[FileFact], session: Session, where: Where
) -> tuple[dict[str, Fetched], Looked]:
    """The files and what their tensors hold. Files of a local folder are hashed and looked at
    at once."""
    assert opened.folder is not None and opened.facts is not None
    folder, headers = opened.folder, opened.facts.headers
    fetched: dict[str, Fetched] = {}
    looked: list[Looked] = []
    at_hand = headers if folder.source.is_local else ()
    local = {file: place for file in at_hand if (place := folder.local(file)) is not None}

    def get() -> None:
        got = fetch(folder, chosen, session.store, progress=session.progress, where=where)
        fetched.update(got)

    def see() -> None:
        looked.append(look(headers, lambda file: local[file]))

    try:
        if len(local) == len(headers):
            each(lambda step: step(), (get, see), 2)
        else:
            get()
            looked.append(look(headers, lambda file: fetched[file].path))
    except OSError as error:
        raise StoreError(fault(error, Path(str(folder.source)), where)) from error
    return fetched, looked[0]


def _describe_base(resolution: Resolution, fingerprint: Fingerprint) -> EntryBase:
    """A licence that cannot be read is unknown: it decides nothing here."""
    folder, licence = resolution.base_folder, None
    assert resolution.base is not None
    if folder is not None:
        with suppress(AdapterdockError):
            licence = licence_beside(folder)
    gated = folder.gated if isinstance(folder, Gated) else None
    return describe_base(
        resolution.base, fingerprint, _names(resolution), licence=licence, gated=gated
    )


def _names(resolution: Resolution) -> list[str]:
    """Other names of the base: the manifest's aliases, and what the adapter's config records."""
    (opened,) = resolution.adapters.values()
    recorded = None if opened.facts is None else recorded_name(opened.facts.config)
    names = [*resolution.file.manifest.base.aliases]
    return names if recorded is None else [*names, recorded]


def manifest_for(
    folder: Path, base: str | None, given: ManifestFile | None, name: str | None = None
) -> ManifestFile:
    """A manifest with the base and this adapter alone. Findings about the adapter name ``folder``,
    or the manifest's adapter of this ``name``."""
    place = folder.absolute()
    adapters = {name or (place.name if is_name(place.name) else "adapter"): {"source": str(place)}}
    if given is None:
        model = base or _recorded(folder)
        made = read_manifest({"version": 1, "base": {"model": model}, "adapters": adapters})
        return made if name is not None else _at(folder, made)
    only = read_manifest({"version": 1, "adapters": adapters})
    declared = given.manifest.base
    if base is not None:
        declared = declared.model_copy(update={"model": _source(base), "fingerprint": None})
    manifest = given.manifest.model_copy(
        update={
            "base": declared,
            "adapters": only.manifest.adapters,
            "compositions": FrozenDict(),
            "active": None,
        }
    )
    made = replace(given, manifest=manifest)
    return made if name is not None else _at(folder, made)


def _at(folder: Path, made: ManifestFile) -> ManifestFile:
    """The same, with adapters that are written in ``folder``."""
    spot = Spot(str(folder))
    entry = Written(Scalar("adapters", plain=True, spot=spot), Map({}, spot), spot)
    return replace(made, root=replace(made.root, entries={**made.root.entries, "adapters": entry}))


def _recorded(folder: Path) -> str:
    """The base that the adapter's config names."""
    from .files.names import ADAPTER_CONFIG
    from .methods.config_file import parse_adapter_config

    where = Where(file=str(folder / ADAPTER_CONFIG))
    try:
        raw = (folder / ADAPTER_CONFIG).read_bytes()
    except OSError:
        name = None
    else:
        name = recorded_name(parse_adapter_config(raw, where))
    if name is None:
        raise UsageError(
            codes.BAD_REFERENCE.finding(
                "Cannot tell which base this adapter is for",
                where,
                expected="a base",
                hint="Pass --base SOURCE, or --manifest FILE.",
            )
        )
    return name if Path(name).is_absolute() or "://" in name else f"hf://{name}"


def _source(text: str) -> Source:
    try:
        source = Source.parse(text)
        return Source.parse(str(source.local_path(Path.cwd()))) if source.is_local else source
    except SourceSyntaxError as error:
        raise UsageError(
            codes.BAD_REFERENCE.finding("Invalid --base", found=text, expected=error)
        ) from error
