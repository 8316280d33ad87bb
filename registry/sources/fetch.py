"""Bringing files onto this machine: in parallel, verified, all or nothing.

Three rounds, each of which reports all its failures at once: files that are here already are
verified; the others are compared with the listing of their source and with the free disk space;
then they are transferred. In that round, the first failure stops the rest.
"""

from __future__ import annotations

import logging
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
from ..files.digests import PREFIX, check_paths, git_blob_sha1, is_digest, sha256_file
from ..files.disk import fault, guarded, out_of_space, remove
from ..files.facts import FileFact
from ..files.pool import Stop, Stopped, run_all
from ..files.progress import OneAtATime, Progress, Silent
from ..files.scratch import scratch_folder
from ..store.store import Store
from .failures import scrub
from .folder import Folder, Hashing, damaged_hint
from .hub_cache import COMMIT

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """Files wanted of one folder. A fact's ``size`` (bytes) is binding, and so is its ``sha256``
    or, without one, its ``version``. ``check`` finds what is wrong with the files together; where
    it finds something, none of them is published."""

    folder: Folder
    wanted: tuple[FileFact, ...]
    where: Where = Where()  # noqa: RUF009 - frozen
    check: Callable[[Iterable[FileFact]], list[Finding]] | None = None


@dataclass(frozen=True)
class Fetched:
    """A verified file on this machine. ``fact`` has its ``sha256`` filled in."""

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
    """All wanted files, verified and on this machine: one dict by path for each request.

    Files that have a place of their own (a local folder, the Hub's cache) are used there. Others
    come from the store; where they are missing, they are downloaded into it. A file that several
    requests want (the same ``sha256``) is downloaded once. If a file fails, nothing of it is
    kept; files that were complete stay in the store. Ctrl-C leaves within a second.

    Args:
        requests: The folders, and the files wanted of each.
        store: Where downloads are put.
        jobs: Threads at most.
        progress: Gets the bytes of each file as they come.

    Raises:
        IntegrityError: The content, size or version of a file is not the wanted one.
        SourceError: A source failed (``OfflineError`` where it cannot be reached).
        StoreError: The disk refuses. Each error has the findings of all files that failed.
    """
    files = _files(requests)
    work = _Work(store, max(1, jobs), OneAtATime(progress or Silent()))
    got = {
        file: fetched
        for file, fetched in zip(files, work.each(work.here, files), strict=True)
        if fetched is not None
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
            downloaded = work.each(
                lambda file: work.download(file, scratch), first, until_error=True
            )
            for group, fetched in zip(groups.values(), downloaded, strict=True):
                got.update((file, fetched) for file in group)
            _check_together(requests, got)
            for group in groups.values():
                if got[group[0]].path.is_relative_to(scratch):
                    published = work.publish(group[0], got[group[0]].path)
                    got.update((file, published) for file in group)
    results: dict[int, dict[str, Fetched]] = {id(request): {} for request in requests}
    for file in files:
        fetched = got[file]
        filled = replace(file.fact, sha256=fetched.fact.sha256)
        results[id(file.request)][filled.path] = Fetched(filled, fetched.path)
    return tuple(results[id(request)] for request in requests)


@dataclass(frozen=True, eq=False)
class _File:
    """One wanted file of one request."""

    number: int
    request: Request
    fact: FileFact

    @property
    def folder(self) -> Folder:
        return self.request.folder

    @property
    def where(self) -> Where:
        return self.request.where

    @property
    def label(self) -> str:
        return f"{scrub(str(self.folder.source))}/{self.fact.path}"

    @property
    def content(self) -> tuple[object, ...]:
        """The same for files that must have the same content. Without a digest, an address does
        not say that: it has another content at another endpoint."""
        if self.fact.sha256 is not None:
            return (self.fact.sha256,)
        return (id(self.folder), self.fact)

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
        """``act`` on each file, in parallel; raises one error with the findings of all."""
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
            # Before the folder, which may have to ask its server.
            with self._shown(file) as on_bytes:
                path = self.store.find(known, file.fact.size, on_bytes)
            if path is not None:
                _log.debug("%s is in the cache", file.label)
                return Fetched(file.fact, path)
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
        into, size = scratch / str(file.number), file.fact.size
        arrived = 0
        stopped = too_long = False
        with self._shown(file, at_once=True) as on_bytes:

            def on_transfer(count: int) -> None:
                nonlocal arrived, stopped, too_long
                arrived += count
                stopped = self.stop.asked
                # A transfer that starts over counts bytes twice; the file does not.
                if arrived > size and into.is_file():
                    too_long = into.stat().st_size > size
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
                found, expected = f"more than {size} bytes", f"{size} bytes"
                raise IntegrityError(
                    file.refuse(WRONG_SIZE, "is longer than expected", found, expected)
                ) from None
        _log.info("Fetched %s (%d bytes)", file.label, size)
        # A complete file is verified, even if others failed.
        if path != into:
            return self._in_place(file, path)
        if file.request.check is not None:  # not published before all are checked together
            with guarded(into, file.where):
                return Fetched(replace(file.fact, sha256=sha256_file(into)), into)
        folder = file.folder
        return self.publish(
            file, into, folder.written(into) if isinstance(folder, Hashing) else None
        )

    def publish(self, file: _File, into: Path, known: str | None = None) -> Fetched:
        """Verify a downloaded file and give it its place in the store. ``known`` is the digest of
        what was written, where that was hashed."""
        published = self.store.publish(
            *(into, file.fact.sha256, file.fact.size),
            origin=file.label,
            where=file.where,
            known=known,
            hint=damaged_hint(file.folder.source),
        )
        return Fetched(replace(file.fact, sha256=PREFIX + published.name), published)

    def _in_place(self, file: _File, path: Path) -> Fetched:
        """Verify a file that stays where its source keeps it."""
        fact = file.fact
        hub = _is_hubs(file, path)
        code = DAMAGED_HUB_FILE if hub else LOCAL_FILE_CHANGED
        problem, hint = "has changed since it was locked", None
        if hub:
            problem = f"is damaged in the Hub's cache: {path.resolve()}"
            hint = f"Delete {path.resolve()} and pull again."

        def differs(found: str, expected: str) -> IntegrityError:
            return IntegrityError(file.refuse(code, problem, found, expected, hint))

        with guarded(path, file.where):
            size = path.stat().st_size
            if size != fact.size:
                raise differs(f"{size} bytes", f"{fact.size} bytes")
            with self._shown(file) as on_bytes:
                digest = self.store.verified.digest(path, expected=fact.sha256, on_bytes=on_bytes)
            if fact.sha256 is not None and fact.sha256 != digest:
                raise differs(digest, fact.sha256)
            if hub and fact.sha256 is None and fact.version and COMMIT.match(fact.version):
                blob = git_blob_sha1(path)
                if blob != fact.version:
                    raise differs(f"git blob {blob}", f"git blob {fact.version}")
        _log.debug("%s is verified in place: %s", file.label, path)
        return Fetched(replace(fact, sha256=digest), path)

    @contextmanager
    def _shown(self, file: _File, *, at_once: bool = False) -> Generator[Callable[[int], None]]:
        """Progress of one file; unless ``at_once`` it starts with the first bytes, so that only
        real work is shown. A stop is noticed here too."""
        label, started = file.label, False

        def start() -> None:
            nonlocal started
            if not started:
                started = True
                self.progress.start(label, file.fact.size)

        def on_bytes(count: int) -> None:
            self.stop.check()
            start()
            self.progress.advance(label, count)

        if at_once:
            start()
        try:
            yield on_bytes
        finally:
            if started:
                self.progress.done(label)


def _is_hubs(file: _File, place: Path) -> bool:
    """Whether a file is in the Hub's own cache, and not in a local mirror of the Hub."""
    return file.folder.source.is_hub and "snapshots" in place.parts


def _files(requests: Sequence[Request]) -> list[_File]:
    findings: list[Finding] = []
    files: list[_File] = []
    for request in requests:
        found = check_paths(fact.path for fact in request.wanted)
        for fact in request.wanted:
            files.append(_File(len(files), request, fact))
            if fact.sha256 is not None and not is_digest(fact.sha256):
                found.append(
                    BAD_DIGEST.finding(f"Invalid digest of {fact.path!r}", found=fact.sha256)
                )
        findings.extend(replace(finding, where=request.where) for finding in found)
    if findings:
        raise IntegrityError(*findings)
    return files


def _check_together(requests: Sequence[Request], got: Mapping[_File, Fetched]) -> None:
    findings: list[Finding] = []
    for request in requests:
        if request.check is not None:
            findings += request.check(
                [fetched.fact for file, fetched in got.items() if file.request is request]
            )
    if findings:
        raise IntegrityError(*findings)


def _compare(missing: Sequence[_File], work: _Work) -> None:
    """Compare with each source's own listing, before anything is transferred."""
    folders = {id(file.folder): file for file in missing}
    listed = work.each(lambda file: file.folder.files(), list(folders.values()))
    listings = dict(zip(folders, listed, strict=True))
    findings: list[Finding] = []
    for file in missing:
        wanted, now = file.fact, listings[id(file.folder)].get(file.fact.path)
        if now is None:
            findings.append(file.refuse(NOT_AS_LOCKED, "no longer exists", None, None))
            continue
        compared: list[tuple[str, object, object]] = [
            ("size", now.size, wanted.size),
            ("digest", now.sha256, wanted.sha256),
        ]
        if wanted.sha256 is None:  # else the content decides, and versions may differ
            compared.append(("version", now.version, wanted.version))
        findings.extend(
            file.refuse(NOT_AS_LOCKED, f"has another {what} than the lock", found, expected)
            for what, found, expected in compared
            if found is not None and expected is not None and found != expected
        )
    if findings:
        raise IntegrityError(*findings)


def _check_room(store: Store, files: Sequence[_File]) -> None:
    """Refuse what cannot fit. Files from the Hub go to the Hub's own cache."""
    needed = sum(file.fact.size for file in files if not file.folder.source.is_hub)
    try:
        place = next(p for p in (store.root, *store.root.parents) if p.is_dir())
        usage = shutil.disk_usage(place)
    except (OSError, StopIteration):
        return  # then the transfer fails, if it must
    if usage.total > 0 and usage.free < needed:  # some network mounts report 0 for all
        raise StoreError(
            NO_SPACE.finding(
                f"Not enough disk space at {store.root} for the files to fetch",
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
    """One error with all findings. Its class is that of the most serious error, its cause the
    first error."""
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
            return error  # a bug, which must look like one
    kind = kinds[0] if len(set(kinds)) == 1 else SourceError
    for grave in (StoreError, IntegrityError):
        if any(issubclass(k, grave) for k in kinds):
            kind = grave
    gathered = kind(*dict.fromkeys(findings))
    gathered.__cause__ = failed[0][1]
    return gathered
