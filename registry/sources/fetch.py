"""Bringing files onto this machine: in parallel, verified, all or nothing.

Three rounds, each of which reports all its failures at once: what is here already is verified;
what is not is compared with the listing of its source and with the room on the disk; then it is
transferred. Only the last round moves bytes, and there the first failure stops the rest.
"""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from ...manifests.findings.code import Code
from ...manifests.findings.errors import AdapterdockError, IntegrityError, SourceError, StoreError
from ...manifests.findings.finding import Finding, Where
from ...manifests.findings.store import (
    BAD_DIGEST,
    DAMAGED_HUB_FILE,
    LOCAL_FILE_CHANGED,
    NO_SPACE,
    NOT_AS_LOCKED,
    WRONG_SIZE,
)
from ...manifests.language.source import Source
from ..files.digests import PREFIX, check_paths, git_blob_sha1, is_digest, sha256_file
from ..files.disk import fault, guarded, out_of_space, remove
from ..files.facts import FileFact
from ..files.pool import Stop, Stopped, run_all
from ..files.progress import OneAtATime, Progress, Silent
from ..files.scratch import scratch_folder
from ..store.store import Store
from .folder import Folder

T = TypeVar("T")

_BLOB = re.compile(r"[0-9a-f]{40}\Z")


@dataclass(frozen=True)
class Request:
    """Files wanted of one folder. A fact's ``sha256`` is binding where it is given, and so is
    its ``size`` (bytes; below 0: not known); ``version`` is, where there is no ``sha256``.
    ``check`` finds what is wrong with the files together; then none of them is published."""

    folder: Folder
    wanted: tuple[FileFact, ...]
    where: Where = Where()  # noqa: RUF009 - frozen
    check: Callable[[Iterable[FileFact]], list[Finding]] | None = None


@dataclass(frozen=True)
class Fetched:
    """A verified file on this machine. ``fact`` has its ``sha256`` and ``size`` filled in."""

    fact: FileFact
    path: Path


def fetch(
    folder: Folder,
    wanted: Sequence[FileFact],
    store: Store,
    *,
    jobs: int = 8,
    progress: Progress | None = None,
    where: Where = Where(),  # noqa: B008 - frozen
) -> dict[str, Fetched]:
    """:func:`fetch_all` for one folder; the result is by path."""
    requests = [Request(folder, tuple(wanted), where)]
    return fetch_all(requests, store, jobs=jobs, progress=progress)[0]


def fetch_all(
    requests: Sequence[Request],
    store: Store,
    *,
    jobs: int = 8,
    progress: Progress | None = None,
) -> tuple[dict[str, Fetched], ...]:
    """Every wanted file, verified and on this machine: one dict by path for each request.

    Files that have a place of their own (a local folder, the Hub's cache) are used where they
    are; others come from the store, and where it lacks them are downloaded into it, by at most
    ``jobs`` threads. A file that several requests want (one ``sha256``) is downloaded once.

    Raises :class:`IntegrityError` where content, size or version is not what was wanted,
    :class:`SourceError` (or ``OfflineError``) where a source fails, :class:`StoreError` where the
    disk refuses; the error has the findings of all files that failed. Nothing of a failed file is
    kept; files that were complete stay in the store. Ctrl-C leaves within a second.
    """
    files = _files(requests)
    work = _Work(store, max(1, jobs), OneAtATime(progress or Silent()))
    got = {
        file: found
        for file, found in zip(files, work.each(work.here, files), strict=True)
        if found is not None
    }
    missing = [file for file in files if file not in got]
    if missing:
        _compare(missing, work)
        groups: defaultdict[tuple[object, ...], list[_File]] = defaultdict(list)
        for file in missing:
            groups[file.content].append(file)
        first = [group[0] for group in groups.values()]
        _check_room(store, first)
        held = {file.fact.sha256 for file in files if file.fact.sha256 is not None}
        with store.hold(held), _scratch(store, first) as scratch:
            fetched = work.each(lambda file: work.download(file, scratch), first, until_error=True)
            for group, one in zip(groups.values(), fetched, strict=True):
                got.update((file, one) for file in group)
            _check_together(requests, got)
            for group in groups.values():
                if got[group[0]].path.is_relative_to(scratch):
                    one = work.publish(group[0], got[group[0]].path)
                    got.update((file, one) for file in group)
    results: tuple[dict[str, Fetched], ...] = tuple({} for _ in requests)
    for file in files:
        one = got[file]
        filled = replace(file.fact, sha256=one.fact.sha256, size=one.fact.size)
        results[file.request][filled.path] = Fetched(filled, one.path)
    return results


@dataclass(frozen=True, eq=False)
class _File:
    """One wanted file of one request."""

    number: int
    request: int
    folder: Folder
    fact: FileFact
    where: Where
    withheld: bool = False
    """Not to be published before all files of its request were looked at together."""

    @property
    def label(self) -> str:
        return f"{shown(self.folder.source)}/{self.fact.path}"

    @property
    def content(self) -> tuple[object, ...]:
        """The same for files that must have the same content. Without a digest an address is
        not enough: it means another thing at another endpoint."""
        if self.fact.sha256 is not None:
            return (self.fact.sha256,)
        return (id(self.folder), self.fact)

    @property
    def size(self) -> int | None:
        return self.fact.size if self.fact.size >= 0 else None

    def refuse(
        self, code: Code, problem: str, found: object, expected: object, hint: str | None = None
    ) -> Finding:
        return code.finding(
            f"{self.label} {problem}", self.where, found=found, expected=expected, hint=hint
        )


class _Work:
    """What is done with one file, on a thread of the pool."""

    def __init__(self, store: Store, jobs: int, progress: OneAtATime) -> None:
        self.store: Store = store
        self.jobs: int = jobs
        self.progress: OneAtATime = progress
        self.stop: Stop = Stop()

    def each(
        self, act: Callable[[_File], T], files: Sequence[_File], *, until_error: bool = False
    ) -> list[T]:
        """``act`` on every file, in parallel; raises one error with the findings of all."""
        tasks = [partial(act, file) for file in files]
        outcomes = run_all(tasks, self.jobs, self.stop, until_error=until_error)
        failed = [
            (file, outcome.error)
            for file, outcome in zip(files, outcomes, strict=True)
            if outcome.error is not None
        ]
        if failed:
            raise _gathered(failed, self.store)
        return [cast(T, outcome.value) for outcome in outcomes]

    def here(self, file: _File) -> Fetched | None:
        """The file where it already is on this machine, verified."""
        known, folder = file.fact.sha256, file.folder
        if known is not None and not folder.source.is_local:
            # Before the folder is asked, which may have to ask its server.
            with self._shown(file) as on_bytes:
                path = self.store.find(known, file.size, on_bytes)
            if path is not None:
                return _fetched(file, path, known)
        local = folder.local(file.fact.path)
        if local is None:
            return None
        try:
            return self._in_place(file, local)
        except IntegrityError:
            if not _is_hubs(file, local):
                raise
            return None  # damaged in the Hub's cache, where its folder replaces it

    def download(self, file: _File, scratch: Path) -> Fetched:
        """Transfer the file, verify it, and publish it (or leave it in its source's own cache)."""
        into = scratch / str(file.number)
        arrived = 0
        stopped = too_long = False
        with self._shown(file, at_once=True) as on_bytes:

            def on_transfer(count: int) -> None:
                nonlocal arrived, stopped, too_long
                arrived += count
                stopped = self.stop.asked
                # What a transfer that starts over counts twice, the file does not.
                if file.size is not None and arrived > file.size and into.is_file():
                    too_long = into.stat().st_size > file.size
                if stopped or too_long:
                    raise Stopped
                on_bytes(count)

            try:
                path = file.folder.download(file.fact.path, into, on_transfer)
            except (Exception, Stopped):
                if stopped:  # whatever the source made of it
                    raise Stopped from None
                if not too_long:
                    raise
                found, expected = f"more than {file.size} bytes", f"{file.size} bytes"
                raise IntegrityError(
                    file.refuse(WRONG_SIZE, "is longer than it should be", found, expected)
                ) from None
        # It is complete: it is verified, whatever became of others.
        if path != into:
            return self._in_place(file, path)
        if file.withheld:
            with guarded(into, file.where):
                return _fetched(file, into, sha256_file(into))
        return self.publish(file, into)

    def publish(self, file: _File, into: Path) -> Fetched:
        """Verify a downloaded file and give it its place in the store."""
        published = self.store.publish(
            into, file.fact.sha256, file.size, origin=file.label, where=file.where
        )
        return _fetched(file, published, PREFIX + published.name)

    def _in_place(self, file: _File, path: Path) -> Fetched:
        """Verify a file that stays where its source keeps it."""
        fact = file.fact
        hub = _is_hubs(file, path)
        code = DAMAGED_HUB_FILE if hub else LOCAL_FILE_CHANGED
        problem, hint = "is not the file that was locked", None
        if hub:
            problem = f"is damaged in the Hub's cache: {path.resolve()}"
            hint = f"Delete {path.resolve()} and pull again."

        def differs(found: str, expected: str) -> IntegrityError:
            return IntegrityError(file.refuse(code, problem, found, expected, hint))

        with guarded(path, file.where):
            size = path.stat().st_size
            if file.size not in (None, size):
                raise differs(f"{size} bytes", f"{file.size} bytes")
            with self._shown(file) as on_bytes:
                digest = self.store.verified.digest(path, expected=fact.sha256, on_bytes=on_bytes)
            if fact.sha256 is not None and fact.sha256 != digest:
                raise differs(digest, fact.sha256)
            if hub and fact.sha256 is None and fact.version and _BLOB.match(fact.version):
                blob = git_blob_sha1(path)
                if blob != fact.version:
                    raise differs(f"git blob {blob}", f"git blob {fact.version}")
        return _fetched(file, path, digest)

    @contextmanager
    def _shown(self, file: _File, *, at_once: bool = False) -> Generator[Callable[[int], None]]:
        """Progress of one file; unless ``at_once`` it begins with the first bytes, so that what
        costs nothing is not shown. Also the place where a stop is noticed."""
        begun = at_once
        if at_once:
            self.progress.start(file.label, file.size)

        def on_bytes(count: int) -> None:
            nonlocal begun
            self.stop.check()
            if not begun:
                begun = True
                self.progress.start(file.label, file.size)
            self.progress.advance(file.label, count)

        try:
            yield on_bytes
        finally:
            if begun:
                self.progress.done(file.label)


def _is_hubs(file: _File, place: Path) -> bool:
    """Whether a file lies in the Hub's own cache, and not in a local mirror of the Hub."""
    return file.folder.source.is_hub and "snapshots" in place.parts


def _files(requests: Sequence[Request]) -> list[_File]:
    findings: list[Finding] = []
    files: list[_File] = []
    for index, request in enumerate(requests):
        found = check_paths(fact.path for fact in request.wanted)
        for fact in request.wanted:
            withheld = request.check is not None
            files.append(_File(len(files), index, request.folder, fact, request.where, withheld))
            if fact.sha256 is not None and not is_digest(fact.sha256):
                found.append(
                    BAD_DIGEST.finding(f"the digest of {fact.path!r} is none", found=fact.sha256)
                )
        findings.extend(replace(finding, where=request.where) for finding in found)
    if findings:
        raise IntegrityError(*findings)
    return files


def _check_together(requests: Sequence[Request], got: Mapping[_File, Fetched]) -> None:
    findings: list[Finding] = []
    for index, request in enumerate(requests):
        if request.check is not None:
            facts = [one.fact for file, one in got.items() if file.request == index]
            findings += request.check(facts)
    if findings:
        raise IntegrityError(*findings)


def _compare(missing: Sequence[_File], work: _Work) -> None:
    """Compare with each source's own listing, before anything is transferred."""
    one_each = list({id(file.folder): file for file in missing}.values())
    listings = dict(
        zip(
            (id(file.folder) for file in one_each),
            work.each(lambda file: file.folder.files(), one_each),
            strict=True,
        )
    )
    findings: list[Finding] = []
    for file in missing:
        wanted, listed = file.fact, listings[id(file.folder)].get(file.fact.path)
        if listed is None:
            findings.append(file.refuse(NOT_AS_LOCKED, "is no longer there", None, None))
            continue
        compared: list[tuple[str, object, object]] = [
            ("size", listed.size if listed.size >= 0 else None, file.size),
            ("digest", listed.sha256, wanted.sha256),
        ]
        if wanted.sha256 is None:  # else the content decides, whatever its version is called
            compared.append(("version", listed.version, wanted.version))
        findings.extend(
            file.refuse(NOT_AS_LOCKED, f"has another {what} than was locked", found, expected)
            for what, found, expected in compared
            if found is not None and expected is not None and found != expected
        )
    if findings:
        raise IntegrityError(*findings)


def _check_room(store: Store, files: Sequence[_File]) -> None:
    """Refuse what cannot fit. Files from the Hub go to the Hub's own cache."""
    needed = sum(file.size or 0 for file in files if not file.folder.source.is_hub)
    try:
        place = next(p for p in (store.root, *store.root.parents) if p.is_dir())
        usage = shutil.disk_usage(place)
    except (OSError, StopIteration):
        return  # then the transfer will tell
    if usage.total > 0 and usage.free < needed:  # some network mounts say 0 of everything
        raise StoreError(
            NO_SPACE.finding(
                f"{store.root}: there is no room for what must be fetched",
                found=f"{usage.free:,} bytes free",
                expected=f"{needed:,} bytes",
            )
        )


@contextmanager
def _scratch(store: Store, files: Sequence[_File]) -> Generator[Path]:
    """A folder for what is being transferred, on the store's file system."""
    with ExitStack() as stack:
        try:
            place = stack.enter_context(store.temporary())
            with guarded(place):
                place.mkdir()
        except StoreError:
            if not all(file.folder.source.is_hub for file in files):
                raise
            # The Hub's client keeps files in its own cache; ours may be read-only.
            place = scratch_folder()
            stack.callback(remove, place)
        yield place


def _gathered(failed: Sequence[tuple[_File, BaseException]], store: Store) -> BaseException:
    """One error with the findings of all; its class is that of the gravest, its cause the
    first."""
    findings: list[Finding] = []
    kinds: list[type[AdapterdockError]] = []
    for file, error in failed:
        full = out_of_space(error)
        if isinstance(error, OSError) or full is not None:
            system = full or cast(OSError, error)
            findings.append(fault(system, store.root, file.where))
            kinds.append(StoreError)
        elif isinstance(error, AdapterdockError):
            findings.extend(
                replace(finding, where=file.where) if finding.where == Where() else finding
                for finding in error.findings
            )
            kinds.append(type(error))
        else:
            return error  # not a fault of the world but of the program: do not dress it up
    kind = kinds[0] if len(set(kinds)) == 1 else SourceError
    for grave in (StoreError, IntegrityError):
        if any(issubclass(k, grave) for k in kinds):
            kind = grave
    gathered = kind(*dict.fromkeys(findings))
    gathered.__cause__ = failed[0][1]
    return gathered


def shown(source: Source) -> str:
    """A source as it may be shown and written down: without user, password and query, where an
    address can carry a secret."""
    text = str(source)
    if source.is_local or source.is_hub or source.is_registry:
        return text
    return re.sub(r"(?<=://)[^/@]*@", "", text).partition("?")[0]


def _fetched(file: _File, path: Path, digest: str) -> Fetched:
    with guarded(path, file.where):
        return Fetched(replace(file.fact, sha256=digest, size=path.stat().st_size), path)
