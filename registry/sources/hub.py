"""A folder of a model repository on the Hugging Face Hub.

The client's settings count as they are when a folder is opened: HF_ENDPOINT, HF_HUB_CACHE and
HF_HOME are read from the environment then (the client itself reads them at import); tokens come
from HF_TOKEN or `hf auth login`. Downloads are put into the Hub's own cache, as the client would
put them there. The client itself fetches only over Xet: over HTTP it has no limit on the bytes or
the time.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Generator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from ...manifests.bounds import LISTING_BYTES, VERIFIED_ON_READ
from ...manifests.findings import sources as codes
from ...manifests.findings.errors import IntegrityError, SourceError
from ...manifests.findings.store import DAMAGED_HUB_FILE, WRONG_DIGEST
from ...manifests.language.source import Source
from ..files.digests import git_blob_sha1
from ..files.facts import FileFact
from ..store.verified import Stamp
from . import hub_xet
from .failures import status_of
from .folder import OnBytes
from .hub_cache import COMMIT, Content, HubCache, cached_fact
from .hub_http import UNSENDABLE, BadAnswerError, answer, cannot_send, document, sent_token
from .hub_settings import HubSettings
from .opened import OpenedFolder
from .pace import Limits, Pace
from .ranges import range_header
from .request import SourceRequest

_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class HubFolder(OpenedFolder):
    """``hf://org/name[@revision][/folder]`` at one commit.

    A branch or tag is resolved to its commit once, by the request that also lists the files with
    their sizes, blob ids and LFS digests. ``FileFact.version`` is the blob's name in the Hub's
    cache: the git SHA-1 of a plain file, the SHA-256 of an LFS file. ``offline`` resolves and
    lists from the cache only. Reads follow the redirection to the LFS store, whose host never gets
    the token. A copy in the cache that differs from the commit's file is fetched again.
    """

    def __init__(self, request: SourceRequest) -> None:
        request.only_options("endpoint", "token")
        super().__init__(request)
        self._settings = HubSettings.of(request)
        self._wanted = request.revision or self._source.revision
        self._commit = self._wanted if COMMIT.match(self._wanted or "") else None
        self._inside = f"{request.source.path}/" if request.source.path else ""
        self._all: Mapping[str, FileFact] | None = None
        self._cache = HubCache(self._settings.cache, self._source.location)
        self._sound: dict[str, Stamp] = {}
        self.gated: bool | None = None

    @property
    def pinned(self) -> Source:
        return self._source.at(self.revision)

    @property
    def revision(self) -> str:
        if self._commit is None:
            self.files()
        assert self._commit is not None
        return self._commit

    def local(self, path: str) -> Path | None:
        return self._cached(self._fact(path))

    def download(self, path: str, into: Path, on_bytes: OnBytes | None = None) -> Path:
        fact = self._fact(path)
        try:
            found = self._verified(fact)
            if found is not None:
                return found
            self._needs_network(fact)
            if not self._settings.fills_cache:
                return super().download(path, into, on_bytes)
            place = self._into_cache(fact, hub_xet.CountedOnce(on_bytes))
        except (OSError, SourceError) as error:
            cause = error.__cause__ if isinstance(error, SourceError) else error
            closed = isinstance(cause, OSError) and cause.errno in _NOT_OURS
            if closed and self._cache.find(self.revision, self._inside + path) is not None:
                return super().download(path, into, on_bytes)  # past the damaged copy there
            if isinstance(error, SourceError):
                raise
            raise self._explain(error, path) from error
        self._cache.remember_branch(self._wanted or "main", self.revision)
        return place

    def _into_cache(self, fact: FileFact, on_bytes: hub_xet.CountedOnce) -> Path:
        content, path = Content.of(fact), self._inside + fact.path
        name = content.name or hashlib.sha256(path.encode()).hexdigest()
        limits = Limits.from_environment(self._where)
        turn = partial(
            self._cache.turn,
            name,
            ready=lambda: self._cached(fact) is not None,
            patience=limits.stall,
            tick=lambda: on_bytes(0),
        )
        with turn():  # the client waits for this lock without an end, so wait here first
            found = self._verified(fact)
        if found is not None:
            return found
        absent = self._cache.find(self.revision, path) is None
        if absent and not self._cache.blob(name).exists():
            place = self._over_xet(fact, content, Pace(limits, fact.size), on_bytes)
            if place is not None:
                return place
            on_bytes.restart()
        with turn():
            found = self._verified(fact)
            if found is not None:
                return found
            blob = self._cache.blob(name)
            if content.name is not None and blob.is_file() and content.is_in(blob):
                return self._cache.link(blob, self.revision, path)
            arrived, hasher = self._cache.unfinished(name), content.hasher()
            self._save(fact, arrived, on_bytes, hasher)
            try:
                self._check(fact, content, hasher.hexdigest())
                name = content.name or git_blob_sha1(arrived)
                return self._cache.publish(arrived, name, self.revision, path)
            finally:
                arrived.unlink(missing_ok=True)

    def _over_xet(
        self, fact: FileFact, content: Content, pace: Pace, on_bytes: OnBytes
    ) -> Path | None:
        settings = self._settings
        if content.blob is not None or not hub_xet.is_offered(
            self._url(fact), settings.endpoint, settings.token, fact.size, pace.limits.silence
        ):
            return None
        arguments: dict[str, Any] = {
            "repo_id": self._source.location,
            "filename": self._inside + fact.path,
            "revision": self.revision,
            "endpoint": settings.endpoint,
            "cache_dir": settings.cache,
            "token": settings.token,
        }
        place = hub_xet.download(arguments, pace, fact.size, on_bytes)
        if place is None:
            return None
        self._received(fact.size)
        return place if content.is_in(place) else None

    def _check(self, fact: FileFact, content: Content, hexdigest: str) -> None:
        found = content.mismatch(hexdigest)
        if found is not None:
            raise IntegrityError(
                WRONG_DIGEST.finding(
                    f"{self._shown(fact.path)} has other bytes than the Hub lists",
                    self._where,
                    found=found,
                    expected=content.expected,
                )
            )

    def _list(self) -> Iterator[FileFact]:
        if self._request.offline:
            yield from self._list_cache()
            return
        info = self._patiently(self._ask)
        if self._commit not in (None, info.sha) or not COMMIT.match(info.sha or ""):
            raise self._error(
                codes.BAD_ANSWER,
                f"The Hub answered with another commit of {self._shown()}",
                found=info.sha,
                expected=self._commit or "a commit hash",
            )
        self._commit = info.sha
        self.gated = None if info.gated is None else bool(info.gated)
        found = False
        for sibling in info.siblings or ():
            name = sibling.rfilename
            if not name.startswith(self._inside):
                continue
            found = True
            if sibling.size is None:
                raise self._error(
                    codes.BAD_ANSWER, f"The Hub does not send the size of {self._shown(name)}"
                )
            sha256 = sibling.lfs.sha256 if sibling.lfs is not None else None
            yield FileFact(
                name[len(self._inside) :],
                sibling.size,
                f"sha256:{sha256}" if sha256 else None,
                sha256 or sibling.blob_id,
            )
        if self._inside and not found:
            raise self._error(
                codes.SOURCE_MISSING, f"{self._shown()}: the repository lacks this folder"
            )

    def _look(self, pin: FileFact) -> FileFact | None:
        if self._commit is not None and (self._request.offline or self._cached(pin) is not None):
            return pin  # a commit never changes, so the pin is what the commit has
        return super()._look(pin)

    def _listed(self) -> Mapping[str, FileFact]:
        if self._all is None:
            self._all = super()._listed()
        return self._all

    def _stream(self, fact: FileFact, start: int, stop: int) -> Generator[bytes]:
        small = fact.size <= VERIFIED_ON_READ
        cached = self._verified(fact) if small else self._cached(fact)
        if cached is not None:
            yield from _slices(cached, start, stop)
            return
        self._needs_network(fact)
        settings = self._settings
        headers = {"Range": range_header(start, stop)}
        silence = Limits.from_environment(self._where).silence
        with answer(self._url(fact), settings.token, headers, silence) as answers:
            for received in answers:
                commit = received.headers.get("X-Repo-Commit")
                if commit not in (None, self.revision):
                    raise self._changed(fact.path, f"commit {commit}", f"commit {self.revision}")
            last = answers[-1]
            yield from self._range(
                fact, start, stop, last.status_code, last.headers, last.iter_raw()
            )

    def _url(self, fact: FileFact) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(
            self._source.location,
            self._inside + fact.path,
            revision=self.revision,
            endpoint=self._settings.endpoint,
        )

    def _ask(self) -> Any:
        """The revision and its files at the Hub (``GET /api/models/...?blobs=true``)."""
        from huggingface_hub.hf_api import ModelInfo

        settings, revision = self._settings, self._wanted
        url = f"{settings.endpoint}/api/models/{self._source.location}"
        if revision is not None:
            url += f"/revision/{quote(revision, safe='')}"
        silence = Limits.from_environment(self._where).silence
        info = document(f"{url}?blobs=true", settings.token, silence, LISTING_BYTES)
        try:
            return ModelInfo(**info)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise BadAnswerError("not a model's listing") from error

    def _host(self) -> str:
        return urlsplit(self._settings.endpoint).netloc.rpartition("@")[2]

    def _explain(self, error: BaseException, path: str | None = None) -> SourceError:
        if isinstance(error, PermissionError) and error.filename:
            return self._error(
                codes.TARGET_UNWRITABLE,
                f"Cannot write {self._shown(path)} to the Hub's cache",
                found=f"{error.strerror}: {error.filename}",
            )
        if isinstance(error, BadAnswerError):
            return self._error(
                codes.BAD_ANSWER, f"Invalid answer of the Hub for {self._shown(path)}", found=error
            )
        if cannot_send(error) or (status_of(error) == 401 and sent_token(error)):
            message = f"{self._host()} rejected the token (HTTP 401)"
            if cannot_send(error):
                message = UNSENDABLE[0].upper() + UNSENDABLE[1:]
            return self._error(
                codes.NOT_AUTHENTICATED,
                message if self._where.path else f"Cannot read {self._shown(path)}: {message}",
                found=self._settings.token_place,
                hint="Replace the token by a valid one; public repositories need none.",
            )
        return super()._explain(error, path)

    def _subject(self, path: str | None) -> str:
        return f"{self._shown(path)} (from {self._settings.endpoint})"

    # The Hub's cache.

    def _cached(self, fact: FileFact) -> Path | None:
        """The file in the cache; a copy of another size is damaged and counts as missing."""
        place = self._cache.find(self.revision, self._inside + fact.path)
        return place if place is not None and place.stat().st_size == fact.size else None

    def _verified(self, fact: FileFact) -> Path | None:
        """The file in the cache, if it is the commit's. It is read once, until it changes."""
        place = self._cached(fact)
        if place is None:
            return None
        stamp = Stamp.of(place.stat())
        if self._sound.get(fact.path) != stamp:
            if not Content.of(fact).is_in(place):
                return None
            self._sound[fact.path] = stamp
        return place

    def _list_cache(self) -> Iterator[FileFact]:
        if self._commit is None:
            branch = self._cache.branch(self._wanted or "main")
            commit = branch.read_text().strip() if branch and branch.is_file() else ""
            if not COMMIT.match(commit):
                raise self._offline_error(f"{self._wanted or 'main'} is not cached")
            self._commit = commit
        folder = self._cache.snapshot(self._commit) / self._inside
        if not folder.is_dir():
            raise self._offline_error(f"commit {self._commit} is not cached")
        seen: set[str] = set()
        for place in sorted(folder.rglob("*")):
            if place.is_file():
                seen.add(place.relative_to(folder).as_posix())
                yield cached_fact(place, place.relative_to(folder).as_posix())
        for path, size in self._cached_tree():
            if path.startswith(self._inside) and path[len(self._inside) :] not in seen:
                yield FileFact(path[len(self._inside) :], size)

    def _cached_tree(self) -> list[tuple[str, int]]:
        """The commit's complete listing, where the client keeps one (since its version 2)."""
        try:
            from huggingface_hub import get_cached_repo_tree
            from huggingface_hub.errors import CachedRepoTreeNotFoundError
        except ImportError:
            return []
        try:
            tree = get_cached_repo_tree(
                self._source.location, revision=self._commit, cache_dir=self._settings.cache
            )
        except CachedRepoTreeNotFoundError:
            return []
        return [(file.path, file.size) for file in tree]

    def _needs_network(self, fact: FileFact) -> None:
        if not self._request.offline:
            return
        damaged = self._cache.find(self.revision, self._inside + fact.path)
        if damaged is None:
            raise self._offline_error(f"{fact.path} is not in the Hub's cache")
        raise self._error(
            DAMAGED_HUB_FILE,
            f"{self._shown(fact.path)} is damaged in the Hub's cache: {damaged.resolve()}",
            expected=Content.of(fact).expected or f"{fact.size} bytes",
            hint="Pull once without --offline, to fetch it again.",
        )

    def _offline_error(self, reason: str) -> SourceError:
        return self._error(
            codes.OFFLINE, f"{self._shown()}: {reason}", found=f"cache {self._settings.cache}"
        )


def _slices(place: Path, start: int, stop: int) -> Iterator[bytes]:
    with place.open("rb") as file:
        file.seek(start)
        while start < stop:
            chunk = file.read(min(1 << 20, stop - start))
            if not chunk:
                return
            start += len(chunk)
            yield chunk


open_folder = HubFolder
