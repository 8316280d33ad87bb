"""Verifies a whole registry against its digests, and completes its journal."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import AdapterdockError, IntegrityError
from ...manifests.findings.finding import Finding
from ...manifests.language.versions import parse_version
from ..files.digests import PREFIX, sha256_bytes
from ..files.pool import each
from ..files.progress import OneAtATime, Progress, Silent
from ..records.entry import LIMIT, Entry, InvalidEntryError, read_entry
from ..records.inventory import (
    JOURNAL_SERIES,
    RULES_SERIES,
    Inventory,
    Part,
    Series,
    take_inventory,
)
from ..records.journal_lines import (
    PATIENCE,
    Line,
    add_missing,
    file_of_line,
    line_of_entry,
    line_of_signature,
    lines_of,
    missing,
    signature_of_line,
)
from ..records.series import BrokenSeriesError, Value, check_chain, read_value
from ..signatures.envelope import LIMIT as ENVELOPE_LIMIT
from ..signatures.envelope import InvalidEnvelopeError, read_envelope
from ..storages.layout import MIRROR, blob_file, entry_file
from ..storages.storage import Storage
from .catalogue import Catalogue
from .init import require_creating
from .registry_part import is_part
from .rules_series import rules_in_force

WORKERS = 8
_SHOWN = 5
"""Entries that a message names."""


@dataclass(frozen=True)
class Verified:
    """What a registry consists of, and what is wrong.

    Attributes:
        counts: How many files of each kind were verified.
        size: Bytes of all contents.
        findings: Errors, and warnings.
        added: Lines of the journal that were missing and were added.
    """

    counts: Mapping[str, int]
    size: int
    findings: tuple[Finding, ...]
    added: tuple[Line, ...] = ()


@dataclass
class _Found:
    """What was read so far."""

    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    digests: dict[tuple[str, str], str] = field(default_factory=dict)
    values: dict[Series, list[Value]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def verify_registry(
    catalogue: Catalogue,
    *,
    complete: bool = True,
    workers: int = WORKERS,
    progress: Progress | None = None,
    patience: float = PATIENCE,
) -> Verified:
    """Read everything once and compare it with its digests. Nothing is deleted or overwritten.

    Args:
        catalogue: The registry.
        complete: Adds the lines of the journal that a killed command left out, where the storage
            can be written and is not a mirror. Else they are findings.
        workers: Files that are read at the same time.
        progress: Gets the bytes that are read.
        patience: Seconds to wait before a line is added, for one who is just writing it.

    Raises :class:`SourceError` where files cannot be listed or read.
    """
    storage, shown = catalogue.storage, OneAtATime(progress or Silent())
    inventory = take_inventory(storage.find(""))
    mirror = MIRROR in inventory.sizes
    found = _Found()
    _entries(catalogue, inventory, found, workers)
    _blobs(catalogue, inventory, found, workers, shown)
    _signatures(catalogue, inventory, found, workers)
    for series in sorted(inventory.series):
        _series(catalogue, inventory, series, found, workers)
    _rules(catalogue, inventory, found)
    if not mirror:
        _journal_claims(catalogue, inventory, found)
    lines = missing(
        _expected(inventory, found), (v.data for v in found.values.get(JOURNAL_SERIES, ()))
    )
    added: list[Line] = []
    whole = not any(f.code == codes.HISTORY_BROKEN.id for f in found.findings)
    if lines and complete and whole and not mirror and _writable(storage):
        journal = found.values.get(JOURNAL_SERIES)
        with _broken(catalogue, found):
            added = add_missing(storage, lines, journal[-1] if journal else None, patience=patience)
    elif JOURNAL_SERIES in inventory.series and JOURNAL_SERIES not in found.values:
        pass  # it is broken, which is a finding: nothing can be said of its lines
    elif lines and not is_part(storage):  # of which the journal ends where a lock saw it
        found.findings.extend(_unsaid(catalogue, line) for line in lines)
    counts = {
        "entries": len(inventory.entries),
        "contents": len(inventory.blobs),
        "signatures": len(inventory.signatures),
        **{
            part.value: sum(len(p) for s, p in inventory.series.items() if s.part is part)
            for part in Part
        },
    }
    return Verified(counts, sum(inventory.blobs.values()), tuple(found.findings), tuple(added))


def _writable(storage: Storage) -> bool:
    try:
        require_creating(storage)
    except AdapterdockError:
        return False
    return True


def _entries(catalogue: Catalogue, inventory: Inventory, found: _Found, workers: int) -> None:
    def read(item: tuple[str, tuple[str, str]]) -> bytes | None:
        with suppress(FileNotFoundError):
            return catalogue.storage.read(item[0], LIMIT + 1)
        return None

    items = list(inventory.entries.items())
    for (path, key), raw in zip(items, each(read, items, workers), strict=True):
        if raw is None:
            found.findings.append(_damaged(catalogue, f"{path} was removed while it was read"))
            continue
        found.digests[key] = sha256_bytes(raw)
        try:
            found.entries[key] = read_entry(raw, *key)
        except InvalidEntryError as error:
            found.findings.append(
                codes.ENTRY_INVALID.finding(
                    f"Cannot use the entry of {key[0]}@{key[1]}", catalogue.where, found=error
                )
            )


def _blobs(
    catalogue: Catalogue,
    inventory: Inventory,
    found: _Found,
    workers: int,
    progress: Progress,
) -> None:
    users: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for (name, version), entry in sorted(found.entries.items()):
        for file in entry.files:
            users.setdefault(file.sha256, []).append(f"{name}@{version}")
            sizes.setdefault(file.sha256, file.size)

    def check(digest: str) -> Finding | None:
        path, size = blob_file(digest), inventory.blobs.get(digest)
        needed = _needed(users.get(digest, []))
        if size is not None:
            actual = digest_of(catalogue.storage, path, size, progress)
            if actual is None and digest not in users:
                return None  # a gc removed it
            if actual is not None and actual != digest:
                return _damaged(catalogue, f"{path} has other bytes{needed}", actual, digest)
            if actual is not None and digest in sizes and size != sizes[digest]:
                return codes.ENTRY_INVALID.finding(
                    f"{path} has another size than its entry says{needed}",
                    catalogue.where,
                    found=f"{sizes[digest]} bytes",
                    expected=f"{size} bytes",
                )
            if actual is not None:
                return None
        return _damaged(catalogue, f"{path} is missing{needed}")

    digests = sorted({*inventory.blobs, *users})
    found.findings.extend(f for f in each(check, digests, workers) if f is not None)


def digest_of(storage: Storage, path: str, size: int, progress: Progress) -> str | None:
    """The ``sha256:HEX`` of a file; ``None`` where there is none."""
    digest = hashlib.sha256()
    progress.start(path, size)
    try:
        for chunk in storage.chunks(path):
            digest.update(chunk)
            progress.advance(path, len(chunk))
    except FileNotFoundError:
        return None
    finally:
        progress.done(path)
    return PREFIX + digest.hexdigest()


def _signatures(catalogue: Catalogue, inventory: Inventory, found: _Found, workers: int) -> None:
    def check(path: str) -> Finding | None:
        try:
            raw = catalogue.storage.read(path, ENVELOPE_LIMIT + 1)
        except FileNotFoundError:
            return None  # of an entry that somebody else published first
        name = path.rpartition("/")[2].removesuffix(".json")
        if len(raw) <= ENVELOPE_LIMIT and sha256_bytes(raw) != PREFIX + name:
            return _damaged(
                catalogue, f"{path} has other bytes than its name says", sha256_bytes(raw)
            )
        try:
            read_envelope(raw)
        except InvalidEnvelopeError as error:
            return codes.SIGNATURE_INVALID.finding(
                f"The signature {path} does not count: {error}", catalogue.where
            )
        return None

    checked = each(check, inventory.signatures, workers)
    found.findings.extend(finding for finding in checked if finding is not None)


def _series(
    catalogue: Catalogue, inventory: Inventory, series: Series, found: _Found, workers: int
) -> None:
    gap = inventory.gaps(series)
    if gap is not None:
        found.findings.append(codes.HISTORY_BROKEN.finding(gap, catalogue.where))
        return
    numbers = range(1, len(inventory.series[series]) + 1)

    def read(number: int) -> Value | BrokenSeriesError:
        try:
            return read_value(catalogue.storage, series.folder, number)
        except BrokenSeriesError as error:
            return error
        except FileNotFoundError as error:
            return BrokenSeriesError(str(error))

    values: list[Value] = []
    with _broken(catalogue, found):
        for value in each(read, numbers, workers):
            if isinstance(value, BrokenSeriesError):
                raise value
            check_chain(series.folder, values[-1] if values else None, value)
            values.append(value)
        found.values[series] = values
    if series.part is Part.ALIAS:
        # what a part of a registry cannot have are versions that were selected before
        for value in values[-1:] if is_part(catalogue.storage) else values:
            finding = _alias_value(catalogue, series, value, found)
            if finding is not None:
                found.findings.append(finding)


def _alias_value(
    catalogue: Catalogue, series: Series, value: Value, found: _Found
) -> Finding | None:
    version, digest = value.data.get("version"), value.data.get("entry")
    what = f"{series.folder}: value {value.number}"
    if version is None and digest is None:
        return None
    if not isinstance(version, str) or parse_version(version) is None:
        return codes.HISTORY_BROKEN.finding(f"{what} names no version", catalogue.where)
    there = found.digests.get((series.name, version))
    if there is None:
        path = entry_file(series.name, version)
        return _damaged(catalogue, f"{path} is missing, which {what} selects")
    if there != digest:
        return codes.ENTRY_INVALID.finding(
            f"{what} names another entry of {series.name}@{version}",
            catalogue.where,
            found=there,
            expected=str(digest)[:80],
        )
    return None


def _rules(catalogue: Catalogue, inventory: Inventory, found: _Found) -> None:
    """Whether each of the rules can be used and is signed as those before it demand."""
    if RULES_SERIES in inventory.series and RULES_SERIES in found.values:
        try:
            rules_in_force(catalogue)
        except AdapterdockError as error:
            found.findings.extend(error.findings)


def _journal_claims(catalogue: Catalogue, inventory: Inventory, found: _Found) -> None:
    """What the journal says, and is not there."""
    values = {value.digest for s in found.values.values() for value in s}
    for line in found.values.get(JOURNAL_SERIES, ()):
        finding = _claim(catalogue, line.number, line.data, found, values)
        if finding is not None:
            found.findings.append(finding)
        path = signature_of_line(line.data)
        if path is not None and path not in inventory.sizes and not _is_there(catalogue, path):
            text = f"{path} is missing, which line {line.number} of the journal names"
            found.findings.append(_damaged(catalogue, text))


def _is_there(catalogue: Catalogue, path: str) -> bool:
    """Whether a file was written after the listing."""
    try:
        catalogue.storage.read(path, 1)
    except FileNotFoundError:
        return False
    return True


def _claim(
    catalogue: Catalogue, number: int, line: Line, found: _Found, values: set[str]
) -> Finding | None:
    path = file_of_line(line)
    is_entry = line.get("what") == "publish"
    expected = line.get("entry" if is_entry else "value")
    if path is None or not isinstance(expected, str):
        return None
    known = found.digests.get((str(line.get("name")), str(line.get("version"))))
    if known == expected if is_entry else expected in values:
        return None
    try:  # it may have been written after the listing
        actual = sha256_bytes(catalogue.storage.read(path, LIMIT + 1))
    except FileNotFoundError:
        actual = None
    if actual == expected:
        return None
    return _damaged(
        catalogue,
        f"{path} is {'missing' if actual is None else 'another file'}: line {number} of the "
        "journal names it",
        actual,
        expected[:80],
    )


def _expected(inventory: Inventory, found: _Found) -> Iterable[Line]:
    yield from filter(None, map(line_of_signature, inventory.signatures))
    for (name, version), entry in found.entries.items():
        yield line_of_entry(name, version, found.digests[name, version], entry.created)
    for series, values in found.values.items():
        if series.part is not Part.JOURNAL:
            with suppress(IntegrityError):
                yield from lines_of(series, values, found.digests.get((series.name, series.what)))


@contextmanager
def _broken(catalogue: Catalogue, found: _Found) -> Generator[None]:
    """Notes a broken series as a finding."""
    try:
        yield
    except BrokenSeriesError as error:
        found.findings.append(codes.HISTORY_BROKEN.finding(str(error), catalogue.where))


def _unsaid(catalogue: Catalogue, line: Line) -> Finding:
    what = f"{line.get('name', 'the rules')}@{line.get('alias') or line.get('version') or ''}"
    serial = f" (file {line['serial']})" if "serial" in line else ""
    return codes.JOURNAL_INCOMPLETE.finding(
        f"The journal lacks the line about {line['what']} of {what.rstrip('@')}{serial}",
        catalogue.where,
    )


def _needed(users: Sequence[str]) -> str:
    if not users:
        return ""
    more = f" and {len(users) - _SHOWN} more" if len(users) > _SHOWN else ""
    verb = "needs" if len(users) == 1 else "need"
    return f", which {', '.join(users[:_SHOWN])}{more} {verb}"


def _damaged(
    catalogue: Catalogue, text: str, found: str | None = None, expected: str | None = None
) -> Finding:
    return codes.REGISTRY_DAMAGED.finding(text, catalogue.where, found=found, expected=expected)
