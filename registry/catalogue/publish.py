"""Publishes an entry: contents first, the entry last, then the journal.

The entry is created exclusively, so of two publishers of one version one wins. Whoever is killed
before it has published nothing, and the next try finds the contents that are there already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import IntegrityError, UsageError
from ...manifests.findings.finding import Finding
from ..records.entry import LIMIT, Entry, InvalidEntryError, read_entry
from ..records.noted import noted
from ..records.series import canonical
from ..signatures.signer import Signer
from ..signatures.signing import Signable, add, add_later, entry_of
from ..storages.layout import ADAPTERS, blob_file, entry_file
from ..storages.storage import Storage, create_verified, write_once
from .catalogue import Catalogue, Listing, Resolved
from .hold import held
from .init import require_writable
from .names import one_edit_apart
from .take_snapshot import known_names, snapshot_when_due


@dataclass(frozen=True)
class Published:
    """What ``publish`` did. ``uploaded`` are digests of contents that were not there before;
    ``new`` is whether the entry was not. ``problems`` are warnings: what could not be done after
    the entry was published."""

    resolved: Resolved
    new: bool
    uploaded: tuple[str, ...] = ()
    problems: tuple[Finding, ...] = ()


def entry_bytes(entry: Entry) -> bytes:
    """The only spelling of an entry that is written."""
    return canonical(entry.model_dump(mode="json", exclude_none=True))


def check_publish(catalogue: Catalogue, entry: Entry, *, new_name: bool = False) -> Resolved | None:
    """The same version if it is published already with the same content, ``None`` if it can be
    published; writes nothing.

    Raises :class:`IntegrityError` where other content has its name and version, and
    :class:`UsageError` where its name is new and one edit from another one.
    """
    raw = entry_bytes(entry)
    if len(raw) > LIMIT:
        raise UsageError(
            codes.ENTRY_INVALID.finding(
                "The entry is too large",
                found=f"{len(raw)} bytes",
                expected=f"at most {LIMIT} bytes",
                hint="Shorten the description, the metrics or the provenance.",
            )
        )
    try:
        read_entry(raw, entry.name, entry.version)
    except InvalidEntryError as error:
        raise UsageError(codes.ENTRY_INVALID.finding("Invalid entry", found=error)) from error
    there = _same(catalogue, entry)
    if there is None and not new_name:
        _require_distinct(catalogue, entry.name)
    return there


def publish_entry(
    catalogue: Catalogue,
    entry: Entry,
    contents: Mapping[str, Path],
    *,
    new_name: bool = False,
    signer: Signer | None = None,
) -> Published:
    """Publish ``entry``, whose files are ``contents`` by digest. The same content again succeeds,
    and uploads nothing. ``signer`` signs the entry that is published then. Raises what
    :func:`check_publish` does, and :class:`UsageError` where the signer refuses."""
    require_writable(catalogue)
    before = check_publish(catalogue, entry, new_name=new_name)
    if before is not None:
        _upload(catalogue.storage, contents)
        late: list[Finding] = []
        add_later(catalogue.storage, entry.name, _signable(catalogue, before), signer, late.append)
        return Published(before, new=False, problems=tuple(late))
    storage = catalogue.storage
    raw = entry_bytes(entry)
    signable = _signable(catalogue, Resolved(entry, raw))
    with held(storage, contents) as hold:
        uploaded = _upload(storage, contents)
        signature = None if signer is None else add(storage, signable, signer)
        while hold.renew():
            uploaded = (*uploaded, *_upload(storage, contents))
        if not write_once(storage, entry_file(entry.name, entry.version), raw):
            if signature is not None:  # it signs an entry that was not written
                storage.remove(signature)
            there = _same(catalogue, entry) or catalogue.entry(entry.name, entry.version)
            late = []
            add_later(storage, entry.name, _signable(catalogue, there), signer, late.append)
            return Published(there, new=False, uploaded=uploaded, problems=tuple(late))
        # what somebody removed by hand: the entry is there now, and gc keeps what it names
        uploaded = (*uploaded, *_upload(storage, contents))
    published = Resolved(entry, raw)
    problems = _noted(catalogue, published, signature)
    return Published(published, True, tuple(dict.fromkeys(uploaded)), problems)


def _noted(catalogue: Catalogue, published: Resolved, signature: str | None) -> tuple[Finding, ...]:
    """Write the journal's line about an entry that is published. It stays published where that
    fails, so a failure is a warning."""
    entry = published.entry
    said = {
        "what": "publish",
        "name": entry.name,
        "version": entry.version,
        "entry": published.digest,
        "at": entry.created,
    }
    if signature is not None:
        said["signature"] = signature
    problems: list[Finding] = []
    done = f"{entry.name}@{entry.version} is published"
    line = noted(catalogue.storage, said, done, problems.append, verb="publish")
    if line is not None:
        snapshot_when_due(catalogue, line.number, line.data.get("snapshot", 0))
    return tuple(problems)


def _signable(catalogue: Catalogue, resolved: Resolved) -> Signable:
    entry = resolved.entry
    return entry_of(catalogue.id, entry.name, entry.version, resolved.digest)


def _same(catalogue: Catalogue, entry: Entry) -> Resolved | None:
    """The published entry of this name and version, if there is one. Only its time may be another
    one, and what the base's owner says of the base."""
    there = catalogue.find_entry(entry.name, entry.version)
    if there is None:
        return None
    told = {"licence": there.entry.base.licence, "gated": there.entry.base.gated}
    base = entry.base.model_copy(update=told)
    again = entry.model_copy(update={"created": there.entry.created, "base": base})
    if entry_bytes(again) == entry_bytes(there.entry):
        return there
    theirs, ours = there.entry.model_dump(), again.model_dump()
    fields = [key for key in (*ours, *theirs) if ours.get(key) != theirs.get(key)]
    raise IntegrityError(
        codes.EXISTS_ALREADY.finding(
            f"{entry.name}@{entry.version} is published with other content",
            catalogue.where,
            found=f"another {', '.join(dict.fromkeys(fields))}",
        )
    )


def _upload(storage: Storage, contents: Mapping[str, Path]) -> tuple[str, ...]:
    """Create the contents that are missing; their digests."""
    uploaded: list[str] = []
    for digest, path in contents.items():
        blob = blob_file(digest)
        try:
            storage.read(blob, 1)
        except FileNotFoundError:
            try:
                create_verified(storage, blob, path, digest)
            except FileExistsError:  # somebody else was faster; the name says what is in it
                continue
            uploaded.append(digest)
    return tuple(uploaded)


def _require_distinct(catalogue: Catalogue, name: str) -> None:
    """Raise :class:`UsageError` where ``name`` is new and nearly the name of something else."""
    if Listing(name, tuple(catalogue.storage.find(f"{ADAPTERS}/{name}/versions"))).versions:
        return
    names = known_names(catalogue)  # a listing of 100,000 names on S3 takes minutes
    others = catalogue.names() if names is None else sorted(names)
    near = next((other for other in others if one_edit_apart(name, other)), None)
    if near is not None:
        raise UsageError(
            codes.BAD_REFERENCE.finding(
                f"The new name {name!r} is nearly {near!r}, which exists",
                catalogue.where,
                found=name,
                expected=near,
                hint="Correct the name, or pass --new-name if it is meant.",
            )
        )
