"""The part of a registry that some of its versions need, to be read without the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import IntegrityError
from ..files.pool import each
from ..records.entry import LIMIT, InvalidEntryError, parse_object
from ..records.series import canonical, file_of
from ..storages.layout import (
    IDENTITY,
    JOURNAL,
    MIRROR,
    RULES,
    alias_folder,
    entry_file,
    marks_folder,
    value_signatures_folder,
)
from ..storages.storage import Storage
from .catalogue import FORMAT, Catalogue, Listing

MOST_LINES = 2000
"""Lines of a journal that go along."""
PART = "part"
"""In ``mirror.json``: this is not all of a registry."""
_WORKERS = 16
"""Files that are read at once."""


def part_of(
    catalogue: Catalogue, wanted: Mapping[str, Collection[str]], line: int = 0
) -> dict[str, bytes]:
    """By path, all files of these versions but their contents, byte for byte.

    Marks and signatures go along. An alias has its values up to the last one that selects a version
    which is here, so that it selects what it can. Rules go along where the registry can be listed.
    The part says that it is a mirror: nobody can publish to it.

    Args:
        catalogue: The registry.
        wanted: By name, versions.
        line: The number of the last journal line that a lock has seen. The lines before it go along
            too, unless there are more than :data:`MOST_LINES`.

    Raises:
        SourceError: Something cannot be read.
        IntegrityError: A history is broken.
    """
    storage = catalogue.storage
    first = 1 if line <= MOST_LINES else line
    lines = range(first, line + 1) if line else ()
    paths = [IDENTITY, *(f"{JOURNAL}/{file_of(number)}" for number in lines)]
    if storage.lists:
        paths += storage.find(RULES)
    found = {MIRROR: canonical({"format": FORMAT, "id": catalogue.id, PART: True})}
    for name, versions in wanted.items():
        listing = catalogue.listing(name)
        values = _values(catalogue, listing, versions)
        found |= values
        paths += _of_versions(listing, versions)
        for path in values:
            folder, _, file = path.rpartition("/")
            signatures = value_signatures_folder(name, folder, int(file.partition(".")[0]))
            paths += [one for one in listing.paths if one.startswith(f"{signatures}/")]
    paths = list(dict.fromkeys(paths))
    read = each(lambda path: _read(catalogue, path), paths, _WORKERS)
    return found | dict(zip(paths, read, strict=True))


def is_part(storage: Storage) -> bool:
    """Whether this is such a part, or a mirror of one: versions that an alias once selected are
    missing on purpose."""
    try:
        return parse_object(storage.read(MIRROR, LIMIT + 1)).get(PART) is True
    except (FileNotFoundError, InvalidEntryError):
        return False


def _read(catalogue: Catalogue, path: str) -> bytes:
    try:
        raw = catalogue.storage.read(path, LIMIT + 1)
    except FileNotFoundError:
        raise IntegrityError(
            codes.HISTORY_BROKEN.finding(f"{path} is missing", catalogue.where)
        ) from None
    if len(raw) > LIMIT:
        raise IntegrityError(
            codes.ENTRY_INVALID.finding(
                f"{path} is too large", catalogue.where, expected=f"at most {LIMIT} bytes"
            )
        )
    return raw


def _of_versions(listing: Listing, versions: Collection[str]) -> Iterator[str]:
    for version in versions:
        yield entry_file(listing.name, version)
        yield from listing.signatures(version)


def _values(catalogue: Catalogue, listing: Listing, versions: Collection[str]) -> dict[str, bytes]:
    """Values of aliases, and marks."""
    found: dict[str, bytes] = {}
    for alias in listing.aliases:
        folder = alias_folder(listing.name, alias)
        values = catalogue.alias_values(listing, alias)
        here = [value.number for value in values if value.data.get("version") in versions]
        for value in values[: max(here, default=0)]:
            found[f"{folder}/{file_of(value.number)}"] = value.raw
    for version in versions:
        folder = marks_folder(listing.name, version)
        for number in listing.mark_numbers(version):
            path = f"{folder}/{file_of(number)}"
            found[path] = _read(catalogue, path)
    return found
