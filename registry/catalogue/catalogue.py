"""A registry, opened: its identity, and how a selector becomes an entry.

Requests to the storage: an exact version is one read; a range is one listing and a read, an alias
one listing and two reads. Marks of a version are read only if it has some and a range asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from semver import Version

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import IntegrityError, SourceError
from ...manifests.findings.finding import Where
from ...manifests.language.published_names import wrong_alias
from ...manifests.language.selector import Selector
from ...manifests.language.versions import parse_version
from ..files.digests import is_digest, sha256_bytes
from ..records.entry import LIMIT, Entry, InvalidEntryError, parse_object, read_entry
from ..records.journal import last_line
from ..records.marks import Mark, read_mark
from ..records.series import BrokenSeriesError, Value, check_chain, numbers_in, read_value
from ..records.unlisted import Lines, paths_of, probed
from ..storages.layout import (
    ADAPTERS,
    IDENTITY,
    JOURNAL,
    adapter_folder,
    alias_folder,
    entry_file,
    marks_folder,
    names_in,
    signatures_folder,
    versions_in,
)
from ..storages.storage import Storage
from .missing import no_registry, not_published, unknown_name

FORMAT = 1
"""Of ``registry.json``."""


@dataclass(frozen=True)
class Listing:
    """All files of one name, from one listing."""

    name: str
    paths: tuple[str, ...]

    @property
    def versions(self) -> list[Version]:
        """From the lowest to the highest."""
        found = (parse_version(text) for text in versions_in(self.name, self.paths))
        return sorted(version for version in found if version is not None)

    @property
    def aliases(self) -> list[str]:
        start = f"{adapter_folder(self.name)}/aliases/"
        names = {p.removeprefix(start).partition("/")[0] for p in self.paths if p.startswith(start)}
        return sorted(name for name in names if wrong_alias(name) is None)

    def alias_numbers(self, alias: str) -> list[int]:
        return _numbers(alias_folder(self.name, alias), self.paths)

    def mark_numbers(self, version: str) -> list[int]:
        return _numbers(marks_folder(self.name, version), self.paths)

    def signatures(self, version: str) -> list[str]:
        """Paths of the signatures of a version."""
        start = f"{signatures_folder(self.name, version)}/"
        return [path for path in self.paths if path.startswith(start)]


@dataclass(frozen=True)
class Seen:
    """A value of an alias (or a line of the journal) that was seen before: its serial, and the
    digest of its file."""

    serial: int
    digest: str


@dataclass(frozen=True)
class Resolved:
    """An entry, its bytes, and the value of the alias that led to it. ``keys`` are the ids of the
    trusted keys that signed it, where a policy demands signatures."""

    entry: Entry
    raw: bytes = field(repr=False)
    alias: Seen | None = None
    keys: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of the entry's bytes."""
        return sha256_bytes(self.raw)


@dataclass(frozen=True)
class Catalogue:
    """A registry. ``id`` is random and never changes."""

    storage: Storage
    id: str
    title: str | None = None
    _lines: Lines = field(default_factory=Lines, repr=False, compare=False)

    @property
    def where(self) -> Where:
        return Where(file=self.storage.url)

    def listing(self, name: str) -> Listing:
        """Everything of one name but the contents. Over a storage that lists nothing, what the
        journal says of it."""
        if self.storage.lists:
            return Listing(name, tuple(self.storage.find(adapter_folder(name))))
        try:
            lines = self._lines.read(self.storage)
        except (BrokenSeriesError, FileNotFoundError) as error:
            raise _broken(str(error), self.where) from error
        return Listing(name, tuple(dict.fromkeys(paths_of(name, lines))))

    def journal_line(self) -> Seen | None:
        """The last line of the journal."""
        try:
            last = last_line(self.storage)
        except BrokenSeriesError as error:
            raise _broken(str(error), self.where) from error
        return None if last is None else Seen(last.number, last.digest)

    def check_journal(self, seen: Seen) -> None:
        """Raise :class:`IntegrityError` where the journal no longer has this line."""
        self._still(JOURNAL, seen)

    def check_alias(self, name: str, alias: str, seen: Seen) -> None:
        """Raise :class:`IntegrityError` where an alias no longer has this value."""
        self._still(alias_folder(name, alias), seen)

    def entry(self, name: str, version: str, expected: str | None = None) -> Resolved:
        """The entry of one version, by one read. Raises :class:`SourceError` where there is none,
        and :class:`IntegrityError` where it cannot be used or does not have the ``expected``
        digest."""
        found = self.find_entry(name, version, expected)
        if found is None:
            raise self._not_published(name, version)
        return found

    def find_entry(self, name: str, version: str, expected: str | None = None) -> Resolved | None:
        """As :meth:`entry`; ``None`` where there is none."""
        path = entry_file(name, version)
        try:
            raw = self.storage.read(path, LIMIT + 1)
        except FileNotFoundError:
            return None
        if expected is not None and sha256_bytes(raw) != expected:
            raise IntegrityError(
                codes.ENTRY_INVALID.finding(
                    f"The entry of {name}@{version} has another digest",
                    self.where,
                    found=sha256_bytes(raw),
                    expected=expected,
                )
            )
        try:
            return Resolved(read_entry(raw, name, version), raw)
        except InvalidEntryError as error:
            raise IntegrityError(
                codes.ENTRY_INVALID.finding(
                    f"Cannot use the entry of {name}@{version}", self.where, found=error
                )
            ) from error

    def resolve(
        self,
        name: str,
        selector: Selector,
        seen: Seen | None = None,
    ) -> Resolved:
        """The entry that ``selector`` selects now.

        Args:
            name: Of the adapter.
            selector: A version, a range, an alias or a digest.
            seen: An earlier value of the alias, which the present one must come after.
        """
        if selector.version is not None:
            return self.entry(name, selector.text)
        if selector.alias is not None and not self.storage.lists:
            folder, known = alias_folder(name, selector.alias), 0 if seen is None else seen.serial
            values = probed(self.storage, folder, max(known - 1, 0))
            return self._by_alias(Listing(name, tuple(values)), selector.alias, seen)
        listing = self.listing(name)
        if selector.alias is not None:
            return self._by_alias(listing, selector.alias, seen)
        for version in self._candidates(listing, selector):
            found = self.entry(name, str(version))
            if selector.digest in (None, found.digest):
                return found
        raise self._not_published(name, selector.text, listing)

    def _candidates(self, listing: Listing, selector: Selector) -> Iterator[Version]:
        """Versions that may be selected, from the highest."""
        for version in reversed(listing.versions):
            if selector.range is None:
                yield version
            elif version in selector.range:
                mark = self.mark(listing, str(version))
                if mark is None or not mark.yanked:
                    yield version

    def mark(self, listing: Listing, version: str) -> Mark | None:
        """The last mark of a version."""
        value = self.mark_value(listing, version)
        return None if value is None else read_mark(marks_folder(listing.name, version), value)

    def mark_value(self, listing: Listing, version: str) -> Value | None:
        """The file of the last mark of a version."""
        numbers = listing.mark_numbers(version)
        return self._value(marks_folder(listing.name, version), numbers[-1]) if numbers else None

    def alias_value(self, name: str, alias: str, number: int) -> Value:
        """One value of an alias."""
        return self._value(alias_folder(name, alias), number)

    def alias_values(self, listing: Listing, alias: str) -> list[Value]:
        """All values of an alias, oldest first, which chain."""
        folder = alias_folder(listing.name, alias)
        return list(self._chain(folder, listing.alias_numbers(alias)))

    def alias_version(self, listing: Listing, alias: str) -> str | None:
        """The version that an alias selects now, by its last value alone."""
        numbers = listing.alias_numbers(alias)
        if not numbers:
            return None
        value = self._value(alias_folder(listing.name, alias), numbers[-1])
        version = value.data.get("version")
        return version if isinstance(version, str) else None

    def _by_alias(self, listing: Listing, alias: str, seen: Seen | None) -> Resolved:
        folder = alias_folder(listing.name, alias)
        numbers = listing.alias_numbers(alias)
        if not numbers:
            raise self._not_published(listing.name, alias, listing)
        if seen is not None:
            value = self._after(folder, numbers[-1], seen)
        else:
            value = self._value(folder, numbers[-1])
        version, digest = value.data.get("version"), value.data.get("entry")
        if version is None and digest is None:
            raise SourceError(
                codes.NOT_PUBLISHED.finding(
                    f"{listing.name}@{alias} selects nothing",
                    self.where,
                    found=f"value {value.number}: demoted",
                    hint="Promote a version to it, or use another alias or a version.",
                )
            )
        if not isinstance(version, str) or parse_version(version) is None:
            raise _broken(f"{folder}: value {value.number} names no version", self.where)
        if not isinstance(digest, str) or not is_digest(digest):
            raise _broken(f"{folder}: value {value.number} names no entry", self.where)
        found = self.entry(listing.name, version, digest)
        return Resolved(found.entry, found.raw, Seen(value.number, value.digest))

    def _after(self, folder: str, last: int, seen: Seen) -> Value:
        """The last value of a series, if what was ``seen`` is still a part of it."""
        if last < seen.serial:
            raise self._went_back(folder, seen, f"value {last}")
        values = list(self._chain(folder, range(seen.serial, last + 1)))
        self._require_same(folder, values[0], seen)
        return values[-1]

    def _still(self, folder: str, seen: Seen) -> None:
        try:
            value = read_value(self.storage, folder, seen.serial)
        except FileNotFoundError:
            raise self._went_back(folder, seen, f"no value {seen.serial}") from None
        except BrokenSeriesError as error:
            raise _broken(str(error), self.where) from error
        self._require_same(folder, value, seen)

    def _went_back(self, folder: str, seen: Seen, found: str) -> IntegrityError:
        return IntegrityError(
            codes.HISTORY_BROKEN.finding(
                f"{folder} went back",
                self.where,
                found=found,
                expected=f"value {seen.serial}, which was seen before, or a later one",
            )
        )

    def _require_same(self, folder: str, value: Value, seen: Seen) -> None:
        if value.digest != seen.digest:
            raise IntegrityError(
                codes.HISTORY_BROKEN.finding(
                    f"{folder} has another value {seen.serial} than the one that was seen before",
                    self.where,
                    found=value.digest,
                    expected=seen.digest,
                )
            )

    def _chain(self, folder: str, numbers: Iterable[int]) -> Iterator[Value]:
        before: Value | None = None
        for number in numbers:
            value = self._value(folder, number)
            if before is not None or number == 1:
                try:
                    check_chain(folder, before, value)
                except BrokenSeriesError as error:
                    raise _broken(str(error), self.where) from error
            before = value
            yield value

    def _value(self, folder: str, number: int) -> Value:
        try:
            return read_value(self.storage, folder, number)
        except (BrokenSeriesError, FileNotFoundError) as error:
            raise _broken(str(error), self.where) from error

    def names(self) -> list[str]:
        """The names that have versions, sorted. Of a storage that lists nothing, none."""
        if not self.storage.lists:
            return []
        return sorted(set(names_in(self.storage.find(ADAPTERS))))

    def _not_published(self, name: str, wanted: str, listing: Listing | None = None) -> SourceError:
        if listing is None or not self.storage.lists:  # of one alias, for all it knows
            try:
                listing = self.listing(name)
            except SourceError:  # a reader of entries may have no right to list
                listing = Listing(name, ())
        if not listing.versions:
            return SourceError(unknown_name(name, (), self.where))
        versions = list(map(str, listing.versions))
        return SourceError(not_published(name, wanted, versions, listing.aliases, self.where))


def open_catalogue(storage: Storage, expected: str | None = None) -> Catalogue:
    """The registry on ``storage``, by one read of its ``registry.json``.

    Raises :class:`SourceError` where there is none that this version can use, and
    :class:`IntegrityError` where it does not have the ``expected`` id.
    """
    where = Where(file=storage.url)
    try:
        data: Mapping[str, Any] = parse_object(storage.read(IDENTITY, LIMIT + 1))
    except FileNotFoundError:
        raise SourceError(no_registry(storage.url)) from None
    except InvalidEntryError as error:
        raise SourceError(
            codes.NOT_A_REGISTRY.finding(f"Cannot use {IDENTITY}", where, found=error)
        ) from error
    known, id_, title = data.get("format"), data.get("id"), data.get("title")
    if type(known) is not int or known != FORMAT:
        raise SourceError(
            codes.NOT_A_REGISTRY.finding(
                "Cannot read this registry's format",
                where,
                found=repr(known)[:40],
                expected=f"{FORMAT}",
                hint="Update adapterdock.",
            )
        )
    if not isinstance(id_, str) or not 16 <= len(id_) <= 64 or not id_.isalnum():
        raise SourceError(
            codes.NOT_A_REGISTRY.finding(
                "This registry has no valid id", where, found=repr(id_)[:80]
            )
        )
    if expected is not None and id_ != expected:
        raise IntegrityError(
            codes.NOT_A_REGISTRY.finding(
                "Another registry is at this URL now", where, found=id_, expected=expected
            )
        )
    return Catalogue(storage, id_, title if isinstance(title, str) else None)


def _numbers(folder: str, paths: Iterable[str]) -> list[int]:
    try:
        return numbers_in(folder, paths)
    except BrokenSeriesError as error:
        raise _broken(str(error), Where()) from error


def _broken(text: str, where: Where) -> IntegrityError:
    return IntegrityError(codes.HISTORY_BROKEN.finding(text, where))
