"""``registry://`` sources: the entry that a selector (or the lock) selects, as a folder."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...manifests.findings import language as language_codes
from ...manifests.findings import registry as codes
from ...manifests.findings import sources as source_codes
from ...manifests.findings.errors import (
    AdapterdockError,
    IntegrityError,
    OfflineError,
    PolicyError,
    SourceError,
    UsageError,
)
from ...manifests.findings.finding import Finding, Severity, Where
from ...manifests.language.names import did_you_mean, listed
from ...manifests.language.selector import Selector, parse_selector
from ...manifests.language.source import Source, SourceSyntaxError
from ...manifests.lockfile import LockedAdapter, LockedEntry, LockedValue
from ..catalogue.catalogue import Catalogue, Listing, Resolved, Seen, open_catalogue
from ..catalogue.open_storage import open_storage
from ..catalogue.trusted import verify_mark
from ..files.digests import PREFIX
from ..files.disk import guarded
from ..files.facts import FileFact
from ..sources.failures import scrub
from ..sources.folder import Hashing, OnBytes
from ..sources.open import is_offline, open_contents
from ..sources.opened import OpenedFolder
from ..sources.request import SourceRequest
from ..storages.layout import BLOBS
from . import policy as policy_checks
from .configured import Configured, configured
from .demands import demands_of, is_proved, require_files_of, require_trusted
from .open_registries import OpenRegistries, OpenRegistry
from .opening import Opening

_CHUNK = 1 << 20
_GONE = frozenset(
    code.id
    for code in (
        *(source_codes.FILE_MISSING, source_codes.SOURCE_CHANGED, source_codes.SOURCE_MISSING),
        source_codes.VERSION_GONE,
    )
)

if TYPE_CHECKING:
    from ..store.store import Store


@dataclass(frozen=True)
class ListedOnce(Catalogue):
    """A registry in one command: what is published of a name is listed once."""

    registries: OpenRegistries = field(default_factory=OpenRegistries, repr=False, compare=False)

    def listing(self, name: str) -> Listing:
        key = ("listing", self.id, self.storage.url, name)
        return self.registries.once(key, lambda: Catalogue.listing(self, name))


class PublishedFolder:
    """A published adapter. Its files are those of the entry, each with its digest; their bytes
    are contents of the registry, which are read by range and verified when they are fetched."""

    def __init__(
        self,
        source: Source,
        registry: OpenRegistry,
        resolved: Resolved,
        pin: LockedEntry | None,
        where: Where,
    ) -> None:
        self.source: Source = source
        self.resolved: Resolved = resolved
        self.registry: OpenRegistry = registry
        self.pin: LockedEntry | None = pin
        self.revision: str = resolved.entry.version
        self.pinned: Source = source.at(self.revision)
        self._where: Where = where
        self._files: Mapping[str, FileFact] = {
            file.path: FileFact(file.path, file.size, file.sha256)
            for file in sorted(resolved.entry.files, key=lambda file: file.path)
        }
        self._contents: OpenedFolder | None = None
        self._read: int = 0
        self._counting: threading.Lock = threading.Lock()

    @property
    def bytes_read(self) -> int:
        return self._read

    def files(self) -> Mapping[str, FileFact]:
        return self._files

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        with self._content(path) as (contents, name):
            raw = contents.read(name, start, length)
        self._received(len(raw))
        return raw

    def local(self, path: str) -> Path | None:
        self._fact(path)
        return None  # a copy in the store outlives the registry's folder

    def download(self, path: str, into: Path, on_bytes: OnBytes | None = None) -> Path:
        with self._content(path) as (contents, name):
            place = contents.local(name)
            if place is None:
                contents.download(name, into, on_bytes)
            else:
                _copy(place, into, on_bytes)
        self._received(self._fact(path).size)
        return into

    def written(self, into: Path) -> str | None:
        contents = self._contents
        return contents.written(into) if isinstance(contents, Hashing) else None

    def locked(self) -> LockedEntry:
        """What a lock pins. That of the lock that was followed stays as it was."""
        keys = self.resolved.keys
        if self.pin is not None:
            return self.pin if self.pin.keys else self.pin.model_copy(update={"keys": keys})
        line, alias = self.registry.journal_line(), self.resolved.alias
        return LockedEntry(
            id=self.registry.catalogue.id,
            version=self.resolved.entry.version,
            entry=self.resolved.digest,
            alias=None if alias is None else LockedValue(serial=alias.serial, sha256=alias.digest),
            journal=None if line is None else LockedValue(serial=line.serial, sha256=line.digest),
            keys=keys,
        )

    def _received(self, count: int) -> None:
        with self._counting:
            self._read += count

    def _fact(self, path: str) -> FileFact:
        fact = self._files.get(path)
        if fact is None:
            raise SourceError(
                source_codes.FILE_MISSING.finding(
                    f"{self.source}: {path} does not exist",
                    self._where,
                    hint=did_you_mean(path, [name for name in self._files if name[:1] == path[:1]]),
                )
            )
        return fact

    @contextmanager
    def _content(self, path: str) -> Generator[tuple[OpenedFolder, str]]:
        """The contents of the registry, and the name of this file's among them."""
        fact = self._fact(path)
        name = (fact.sha256 or "").removeprefix(PREFIX)
        try:
            contents = self._contents
            if contents is None:
                contents = self.registry.contents()
            contents.expect([FileFact(name, fact.size)])
            self._contents = contents
            yield contents, name
        except SourceError as error:
            found = error.findings[0].found
            if error.code not in _GONE and found != os.strerror(errno.ENOENT):
                raise
            raise SourceError(
                codes.CONTENT_MISSING.finding(
                    f"The registry lacks {path} of {self.source}",
                    self._where,
                    found=found or error.findings[0].message,
                    expected=f"{BLOBS}/{name}",
                )
            ) from error


def open_folder(opening: Opening) -> PublishedFolder:
    """The folder of a ``registry://`` source. See :func:`open_published`."""
    try:
        registry = open_registry_of(opening)
        resolved, pin = open_published(registry, opening)
    except AdapterdockError as error:
        if opening.where.line is None:
            raise
        raise _at_line(error, opening.where) from error
    return PublishedFolder(opening.source, registry, resolved, pin, opening.where)


_OF_A_LINE = frozenset(code.id for code in (codes.NOT_A_REGISTRY, codes.NOT_PUBLISHED))
"""What is probably a mistake in the manifest, and not an incident of the registry."""


def _at_line(error: AdapterdockError, where: Where) -> AdapterdockError:
    """The same error at the manifest's line, with the registry's place in the message."""
    return type(error)(
        *(
            replace(one, where=where, message=f"{one.message} ({one.where.file})")
            if one.code in _OF_A_LINE and one.where.line is None
            else one
            for one in error.findings
        )
    )


def open_published(registry: OpenRegistry, opening: Opening) -> tuple[Resolved, LockedEntry | None]:
    """The entry of a source in its registry, and the pin that it was read by.

    This is the one place where an entry is chosen for use. With a pin, it is the pinned entry;
    else the one that the source selects now. Whatever the lock saw before must still be there.

    Raises:
        SourceError: There is no such version.
        IntegrityError: It is another registry, its history is not the one that the lock saw, or
            the entry has other bytes.
        PolicyError: A policy does not allow the registry, or demands signatures that are missing.
    """
    source, catalogue = opening.source, registry.catalogue
    name, selector = name_in_registry(source), selector_of(source)
    pin = getattr(opening.pin, "registry", None)
    seen: LockedEntry | None = pin or (None if opening.seen is None else opening.seen.registry)
    if seen is not None:
        _require_same_registry(registry, seen, opening)
        if seen.journal is not None:
            registry.check_journal(_seen(seen.journal))
    if pin is not None:
        value = None if pin.alias is None else _seen(pin.alias)
        if value is not None and selector.alias is not None:
            catalogue.check_alias(name, selector.alias, value)
        pinned = replace(catalogue.entry(name, pin.version, pin.entry), alias=value)
        return _trusted(registry, pinned, opening), pin
    before = None if seen is None or seen.alias is None else _seen(seen.alias)
    if selector.alias is None:
        before = None
    found = catalogue.resolve(name, selector, before)
    if seen is not None and seen.version == found.entry.version and seen.entry != found.digest:
        raise IntegrityError(
            codes.ENTRY_INVALID.finding(
                f"{name}@{seen.version} has other bytes than when it was locked",
                catalogue.where,
                found=found.digest,
                expected=seen.entry,
                hint="A version never changes. Ask the owner of the registry what happened.",
            )
        )
    return _trusted(registry, found, opening), None


def _trusted(registry: OpenRegistry, resolved: Resolved, opening: Opening) -> Resolved:
    """What was resolved, signed as the policies in force demand."""
    pin, source = opening.pin, opening.source
    if isinstance(pin, LockedAdapter):
        require_files_of(resolved.entry, pin, opening.where)
    keys = require_trusted(
        registry.catalogue,
        registry.place,
        resolved,
        opening.policies,
        Path.cwd(),
        opening.where,
        selector_of(source),
        pinned=isinstance(pin, LockedAdapter) and pin.registry is not None,
        store=opening.store,
    )
    return replace(resolved, keys=keys)


def is_trusted(opening: Opening, store: Store) -> bool:
    """Whether a pinned adapter may be used from the store without its registry. Raises what
    :func:`is_proved` does."""
    source, policies = opening.source, opening.policies
    if not any(one.require_signature or one.registries is not None for one in policies):
        return True
    if not isinstance(opening.pin, LockedAdapter):
        return False
    return is_proved(
        registry_place(opening),
        opening.pin,
        name_in_registry(source),
        policies,
        Path.cwd(),
        opening.where,
        selector_of(source),
        store,
    )


def registry_place(opening: Opening) -> Source:
    """Where the registry of a source is: a URL, or an absolute path. Raises :class:`UsageError`
    where its name is unknown."""
    row = row_of(opening)
    place = row.source
    if place.is_local or place.is_archive:
        place = replace(place, location=str(place.local_path(row.directory).absolute()))
    return place


def place_if_known(opening: Opening) -> Source | None:
    """The same, or ``None`` for another kind of source, and for an unknown name."""
    if not opening.source.is_registry:
        return None
    try:
        return registry_place(opening)
    except UsageError:
        return None


def open_registry_of(opening: Opening) -> OpenRegistry:
    """The registry of a source, opened once for each command. Raises :class:`UsageError` where its
    name is unknown, and :class:`SourceError` where it cannot be opened."""
    row = row_of(opening)
    registries = opening.registries or OpenRegistries()
    policies, file = opening.policies, opening.file
    lists = policy_checks.lists_for(policies, base=False)
    permits = partial(policy_checks.permits, lists) if lists else None
    from_user = frozenset[str]() if file is None else file.from_user
    by_caller = file is None or opening.vouched
    vouches = None if by_caller else policy_checks.vouches_for(policies, from_user)
    place = registry_place(opening)
    how = (place, repr(sorted(opening.options.items())), opening.offline)

    def open_it() -> OpenRegistry:
        storage = open_storage(
            place,
            directory=row.directory,
            storage_options=opening.options,
            offline=opening.offline,
            permits=permits,
            vouches=vouches,
            where=row.where,
        )
        opened = open_catalogue(storage)
        listed_once = ListedOnce(storage, opened.id, opened.title, registries=registries)
        return OpenRegistry(listed_once, place, registries, contents)

    def contents() -> OpenedFolder:
        return registries.once(("contents", *how), open_them)

    def open_them() -> OpenedFolder:
        if place.is_archive:
            from ..oci.archive_storage import ArchiveContents

            file = place.local_path(row.directory)
            return ArchiveContents(SourceRequest(place, row.directory, where=row.where), file)
        request = SourceRequest(
            replace(place, location=f"{place.location.rstrip('/')}/{BLOBS}"),
            row.directory,
            opening.options,
            opening.offline or is_offline(),
            permits=permits,
            where=row.where,
        )
        return open_contents(request, vouches)

    return registries.once(("registry", *how), open_it)


def row_of(opening: Opening) -> Configured:
    """The registry that a source names: the manifest's, else the user's. Raises
    :class:`UsageError` where there is none."""
    name = opening.source.location.partition("/")[0]
    if opening.registry is not None:
        return _given(name, opening.registry, opening.where)
    known = configured(opening.file)
    if name in known:
        return known[name]
    raise UsageError(
        language_codes.UNKNOWN_REGISTRY.finding(
            f"Unknown registry {name!r}",
            opening.where,
            found=str(opening.source),
            expected=listed(known) or "a registry that is configured",
            hint=did_you_mean(name, known),
        )
    )


def _given(name: str, url: str, where: Where) -> Configured:
    try:
        return Configured(name, Source.parse(url), Path.cwd(), where)
    except SourceSyntaxError as error:
        raise UsageError(
            codes.BAD_REGISTRY_URL.finding(f"Invalid URL {scrub(url)!r}: {error}", where)
        ) from error


def name_in_registry(source: Source) -> str:
    """The name of the adapter, without the registry's."""
    return source.location.partition("/")[2]


def selector_of(source: Source) -> Selector:
    """What a source selects."""
    selector = parse_selector(source.revision or "")
    assert selector is not None  # the grammar of sources
    return selector


def warnings_of(opening: Opening, version: str) -> list[Finding]:
    """What a user of this version must know: it is yanked or deprecated, or that cannot be
    told."""
    name = name_in_registry(opening.source)
    try:
        registry = open_registry_of(opening)
        listing = registry.listing(name)
        mark = registry.catalogue.mark(listing, version)
        demands = demands_of(
            opening.policies, registry.place, registry.catalogue.id, Path.cwd(), opening.where
        )
        found = verify_mark(registry.catalogue, listing, version, demands).findings
        if wrong := [one for one in found if one.severity is Severity.ERROR]:
            raise PolicyError(*wrong)
    except OfflineError:
        return []
    except AdapterdockError as error:
        return [
            codes.MARKS_UNKNOWN.finding(
                f"Cannot tell whether {opening.source.at(version)} is yanked or deprecated",
                opening.where,
                found=error.findings[0].message,
            )
        ]
    warning = None if mark is None else mark.warning(name, version, opening.where)
    return [] if warning is None else [warning]


def _require_same_registry(registry: OpenRegistry, seen: LockedEntry, opening: Opening) -> None:
    if registry.catalogue.id != seen.id:
        raise IntegrityError(
            codes.ANOTHER_REGISTRY.finding(
                f"Another registry is at {registry.catalogue.storage.url} than when "
                f"{opening.source} was locked",
                opening.where,
                found=registry.catalogue.id,
                expected=seen.id,
            )
        )


def _seen(value: LockedValue) -> Seen:
    return Seen(value.serial, value.sha256)


def _copy(place: Path, into: Path, on_bytes: OnBytes | None) -> None:
    try:
        with guarded(into):
            into.parent.mkdir(parents=True, exist_ok=True)
            with place.open("rb") as content, into.open("xb") as file:
                while chunk := content.read(_CHUNK):
                    file.write(chunk)
                    if on_bytes is not None:
                        on_bytes(len(chunk))
    except BaseException:
        into.unlink(missing_ok=True)
        raise
