"""A folder of a model repository on the Hugging Face Hub, through the Hub's own client.

The client's settings are honoured as they are when a folder is opened: HF_ENDPOINT, HF_HUB_CACHE
and HF_HOME are read from the environment then (the client itself reads them at import), tokens
come from HF_TOKEN or `hf auth login`. What is downloaded lies in the Hub's own cache.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...manifests.codes import sources as codes
from ...manifests.errors import SourceError
from ...manifests.findings import Where
from ...manifests.source import Source
from ..facts import FileFact
from .failures import explain
from .folder import OnBytes
from .opened import OpenedFolder, is_inside
from .ranges import BadRangeError, only_range, range_header

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

TIMEOUT = 10.0
"""Seconds to wait for a connection, and for the next bytes."""

_CLIENT: dict[str, Any] = {"library_name": "adapterdock", "library_version": __version__}
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_NO_FOLDER = "the repository has no such folder at this revision"


@dataclass(frozen=True)
class HubSettings:
    """Where the Hub is, where its cache lies, and with which token (``None``: the client's own,
    ``False``: none). Without ``fills_cache`` nothing is written to that cache, where every program
    takes what it finds for the Hub's."""

    endpoint: str
    cache: Path
    token: str | bool | None = None
    fills_cache: bool = True

    def strange(self) -> HubSettings:
        """The same for an endpoint that the user did not choose: no token, no cache filled."""
        return replace(self, token=False, fills_cache=False)

    @classmethod
    def from_environment(cls, endpoint: str | None = None, token: str | None = None) -> HubSettings:
        """As the client would read them if it were imported now."""
        from huggingface_hub import constants

        env = os.environ
        cache = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")
        if not cache:
            home = env.get("HF_HOME")
            cache = str(Path(home) / "hub") if home else constants.HF_HUB_CACHE
        where = endpoint or env.get("HF_ENDPOINT") or constants.ENDPOINT
        folder = Path(os.path.expandvars(cache)).expanduser()
        return cls(where.rstrip("/"), folder, token)


class HubFolder(OpenedFolder):
    """``hf://org/name[@revision][/folder]`` at one commit.

    A branch or tag is resolved to its commit once, by the request that also lists the files with
    their sizes, blob ids and LFS digests. ``FileFact.version`` is the blob's name in the Hub's
    cache: the git SHA-1 of a plain file, the SHA-256 of an LFS file. ``offline`` resolves and
    lists from the cache alone. Ranged reads follow the redirect to the LFS store, whose host is
    never sent the token.
    """

    def __init__(
        self,
        source: Source,
        settings: HubSettings,
        *,
        where: Where,
        pins: Mapping[str, FileFact] | None = None,
        revision: str | None = None,
        offline: bool = False,
    ) -> None:
        super().__init__(source, where=where, pins=pins)
        self._settings = settings
        self._offline = offline
        self._wanted = revision or source.revision
        self._commit = self._wanted if _COMMIT.match(self._wanted or "") else None
        self._inside = f"{source.path}/" if source.path else ""
        self._all: Mapping[str, FileFact] | None = None

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
        from huggingface_hub import hf_hub_download

        fact = self._fact(path)
        cached = self._cached(fact)
        if cached is not None:
            return cached
        if not self._settings.fills_cache:
            return super().download(path, into, on_bytes)
        self._needs_network(path)
        traffic = _Traffic(on_bytes)
        options: dict[str, Any] = {}
        if "tqdm_class" in inspect.signature(hf_hub_download).parameters:
            options["tqdm_class"] = traffic.progress_class()
        try:
            place = hf_hub_download(
                self._source.location,
                self._inside + path,
                revision=self.revision,
                endpoint=self._settings.endpoint,
                cache_dir=self._settings.cache,
                token=self._settings.token,
                force_download=self._in_cache(path) is not None,
                **_CLIENT,
                **options,
            )
        except Exception as error:
            raise self._explain(error, path) from error
        finally:
            self._received(traffic.transferred or traffic.written)
        if not options:  # a client too old to tell
            self._received(fact.size)
        self._remember_branch()
        return Path(place)

    def _list(self) -> Iterator[FileFact]:
        if self._offline:
            yield from self._list_cache()
            return
        info = self._patiently(self._ask)
        if self._commit not in (None, info.sha) or not _COMMIT.match(info.sha or ""):
            raise self._error(
                codes.BAD_ANSWER,
                f"{self._shown()}: the Hub answered with another commit",
                found=info.sha,
                expected=self._commit or "a commit hash",
            )
        self._commit = info.sha
        found = False
        for sibling in info.siblings or ():
            name = sibling.rfilename
            if not name.startswith(self._inside):
                continue
            found = True
            if sibling.size is None:
                raise self._error(
                    codes.BAD_ANSWER, f"{self._shown(name)}: the Hub does not tell its size"
                )
            sha256 = sibling.lfs.sha256 if sibling.lfs is not None else None
            yield FileFact(
                name[len(self._inside) :],
                sibling.size,
                f"sha256:{sha256}" if sha256 else None,
                sha256 or sibling.blob_id,
            )
        if self._inside and not found:
            raise self._error(codes.SOURCE_MISSING, f"{self._shown()}: {_NO_FOLDER}")

    def _look(self, pin: FileFact) -> FileFact | None:
        if self._commit is not None and (self._offline or self._cached(pin) is not None):
            return pin  # a commit never changes, so the pin is what the commit has
        return super()._look(pin)

    def _listed(self) -> Mapping[str, FileFact]:
        if self._all is None:
            self._all = super()._listed()
        return self._all

    def _stream(self, fact: FileFact, start: int, stop: int) -> Iterator[bytes]:
        cached = self._cached(fact)
        if cached is not None:
            yield from _slices(cached, start, stop)
            return
        self._needs_network(fact.path)
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

        url = hf_hub_url(
            self._source.location,
            self._inside + fact.path,
            revision=self.revision,
            endpoint=self._settings.endpoint,
        )
        headers = build_hf_headers(token=self._settings.token, **_CLIENT)
        headers |= {"Range": range_header(start, stop), "Accept-Encoding": "identity"}
        request = get_session().stream(
            "GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True
        )
        with request as response:
            hf_raise_for_status(response)
            for answer in (*response.history, response):
                commit = answer.headers.get("X-Repo-Commit")
                if commit not in (None, self.revision):
                    raise self._changed(fact.path, f"commit {commit}", f"commit {self.revision}")
            try:
                yield from only_range(
                    response.status_code,
                    response.headers,
                    response.iter_bytes(),
                    start=start,
                    stop=stop,
                    size=fact.size,
                    received=self._received,
                )
            except BadRangeError as error:
                raise self._other_bytes(fact, start, stop, error) from error

    def _ask(self) -> ModelInfo:
        from huggingface_hub import HfApi

        api = HfApi(self._settings.endpoint, self._settings.token, **_CLIENT)
        return api.model_info(
            self._source.location, revision=self._wanted, files_metadata=True, timeout=TIMEOUT
        )

    def _explain(self, error: BaseException, path: str | None = None) -> SourceError:
        if isinstance(error, PermissionError) and error.filename:
            return self._error(
                codes.TARGET_UNWRITABLE,
                f"{self._shown(path)}: the Hub's cache cannot be used",
                found=f"{error.strerror}: {error.filename}",
            )
        subject = f"{self._shown(path)} (from {self._settings.endpoint})"
        return explain(error, subject, self._where)

    # The Hub's cache: models--org--name/{blobs, refs/<branch>, snapshots/<commit>/<path>}.

    @property
    def _storage(self) -> Path:
        return self._settings.cache / ("models--" + self._source.location.replace("/", "--"))

    def _in_cache(self, path: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        place = try_to_load_from_cache(
            self._source.location,
            self._inside + path,
            cache_dir=self._settings.cache,
            revision=self.revision,
        )
        return Path(place) if isinstance(place, str) else None

    def _cached(self, fact: FileFact) -> Path | None:
        """The file in the cache; a copy of another size is damaged and counts as absent."""
        place = self._in_cache(fact.path)
        return place if place is not None and place.stat().st_size == fact.size else None

    def _list_cache(self) -> Iterator[FileFact]:
        if self._commit is None:
            branch = self._branch_file()
            commit = branch.read_text().strip() if branch and branch.is_file() else ""
            if not _COMMIT.match(commit):
                raise self._offline_error(
                    f"which commit {self._wanted or 'main'} is, is not cached"
                )
            self._commit = commit
        snapshot = self._storage / "snapshots" / self._commit
        folder = snapshot / self._inside
        if not folder.is_dir():
            raise self._offline_error(f"nothing of commit {self._commit} is cached")
        seen: set[str] = set()
        for place in sorted(folder.rglob("*")):
            if place.is_file():
                seen.add(place.relative_to(folder).as_posix())
                yield _cached_fact(place, place.relative_to(folder).as_posix())
        for path, size in self._cached_tree():
            if path.startswith(self._inside) and path[len(self._inside) :] not in seen:
                yield FileFact(path[len(self._inside) :], size)

    def _cached_tree(self) -> list[tuple[str, int]]:
        """The commit's whole listing, where the client keeps one (since its version 2)."""
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

    def _remember_branch(self) -> None:
        """Write down what the branch was, as the client does, so that it resolves offline."""
        place = self._branch_file()
        if place is None or self._commit in (None, self._wanted):
            return
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(str(self._commit))
        except OSError:
            return  # a read-only cache still serves

    def _branch_file(self) -> Path | None:
        branch = self._wanted or "main"
        return self._storage / "refs" / branch if is_inside(branch) else None

    def _needs_network(self, path: str) -> None:
        if self._offline:
            raise self._offline_error(f"{path} is not in the Hub's cache")

    def _offline_error(self, reason: str) -> SourceError:
        return self._error(
            codes.OFFLINE, f"{self._shown()}: {reason}", found=f"cache {self._settings.cache}"
        )


def _cached_fact(place: Path, path: str) -> FileFact:
    """What the cache knows of a file: its size, and the blob's name that its link points to."""
    blob = place.readlink().name if place.is_symlink() else ""
    sha256 = f"sha256:{blob}" if _SHA256.match(blob) else None
    known = blob if sha256 or _COMMIT.match(blob) else None
    return FileFact(path, place.stat().st_size, sha256, known)


def _slices(place: Path, start: int, stop: int) -> Iterator[bytes]:
    with place.open("rb") as file:
        file.seek(start)
        while start < stop:
            chunk = file.read(min(1 << 20, stop - start))
            if not chunk:
                return
            start += len(chunk)
            yield chunk


class _Traffic:
    """Listens where the client draws its progress bar. ``written`` is content that arrived;
    ``transferred`` is traffic, which the client tells since its version 2."""

    def __init__(self, on_bytes: OnBytes | None) -> None:
        self.written = 0
        self.transferred = 0
        self._on_bytes = on_bytes

    def wrote(self, count: float) -> None:
        if count > 0:  # a restart takes back what it counted
            self.written += int(count)
            if self._on_bytes is not None:
                self._on_bytes(int(count))

    def progress_class(self) -> type[Any]:
        """A progress bar that draws nothing and tells this object."""
        from tqdm.std import tqdm

        traffic = self

        class Progress(tqdm):  # type: ignore[type-arg]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                kwargs.pop("name", None)
                super().__init__(*args, **{**kwargs, "disable": True})

            def update(self, n: float | None = 1) -> bool | None:
                traffic.wrote(n or 0)

            def update_transfer(self, n: float) -> None:
                traffic.transferred += max(int(n), 0)

        return Progress
