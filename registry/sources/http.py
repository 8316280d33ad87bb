"""A folder on a web server. A web server lists no folder, so each file that an adapter or a base
can have is requested by name (HEAD), and each shard by the name in its index."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ...manifests.bounds import FOLDER_FILES, LISTING_BYTES
from ...manifests.findings import policy as policy_codes
from ...manifests.findings import sources as codes
from ...manifests.findings.errors import SourceError
from ...manifests.language.source import Source
from ..files.digests import path_problem
from ..files.facts import FileFact
from ..files.names import (
    ADAPTER_CONFIG,
    ADAPTER_INDEX,
    ADAPTER_WEIGHTS,
    BASE_CONFIG,
    BASE_INDEX,
    BASE_WEIGHTS,
    BESIDE_A_BASE,
    TOKENIZER_FILES,
)
from .encodings import encoding_of
from .filesystems import open_filesystem
from .from_environment import netrc_login, proxy_for
from .ranges import range_header
from .remote import RemoteFolder
from .request import SourceRequest

_INDEXES = (BASE_INDEX, ADAPTER_INDEX)
KNOWN_FILES = (
    *(ADAPTER_CONFIG, ADAPTER_WEIGHTS, BASE_CONFIG, BASE_WEIGHTS, *_INDEXES, "README.md"),
    *TOKENIZER_FILES,
    *BESIDE_A_BASE,
    *("adapter_model.bin", "pytorch_adapter.bin", "pytorch_model.bin"),
    *("adapters.safetensors", "adapters.npz", "adapter.safetensors"),
    "pytorch_lora_weights.safetensors",
)
"""What PEFT, transformers and mlx-lm write, and what is recognised only to be refused."""

_AT_ONCE = 8
_REDIRECTIONS = 10
_REDIRECTING = frozenset({301, 302, 303, 307, 308})
_LOGINS = frozenset({"authorization", "cookie"})


@dataclass(frozen=True)
class _Answer:
    status: int
    size: int | None
    version: str | None
    kind: str


class HttpFolder(RemoteFolder):
    """``http(s)://host/folder``. ``FileFact.version`` is ``etag:...`` or ``modified:...`` (the
    Last-Modified date), ``None`` where the server sends neither.

    A name that cannot exist shows whether the server answers 200 to each name; a page of HTML is
    never taken for a file. Redirections are followed to other hosts too (with ``permits``, only to
    a URL that it allows), but nothing in the storage options goes there: no header, cookie or
    password. A host in ``~/.netrc`` gets its own login, unless the options hold one.
    """

    def __init__(self, request: SourceRequest) -> None:
        super().__init__(request)
        self._bare = self._fs  # without the options
        if request.options:
            self._bare, _ = open_filesystem(request.source, {}, request.where)

    def _list(self) -> Iterator[FileFact]:
        nonsense = f"adapterdock-{uuid.uuid4().hex}.json"
        answers = self._ask((*KNOWN_FILES, nonsense))
        catch_all = answers.pop(nonsense)
        facts = [self._checked(name, a, catch_all) for name, a in answers.items()]
        found = {fact.path: fact for fact in facts if fact is not None}
        if not found:
            refused = (item for item in answers.items() if item[1].status in (401, 403))
            raise next((self._refused(*item) for item in refused), self._missing())
        yield from found.values()
        for index in (found[name] for name in _INDEXES if name in found):
            shards = [name for name in self._shards(index) if name not in found]
            for name, answer in self._ask(shards).items():
                fact = self._checked(name, answer, catch_all)
                if fact is not None:
                    yield fact

    def _look(self, pin: FileFact) -> FileFact | None:
        answer = self._ask([pin.path])[pin.path]
        if answer.status in (404, 410):
            return None
        if answer.status not in (200, 206):
            raise self._refused(pin.path, answer)
        return self._checked(pin.path, answer, None)

    def _stream(self, fact: FileFact, start: int, stop: int) -> Generator[bytes]:
        response = self._await(self._send, "GET", fact.path, range_header(start, stop))
        try:
            response.raise_for_status()
            version = _version(response.headers)
            if fact.version is not None and version != fact.version:
                raise self._changed(fact.path, version, fact.version)
            chunks = self._chunks(response.content.read)
            yield from self._range(fact, start, stop, response.status, response.headers, chunks)
        finally:
            self._await(_close, response)

    def _url(self, path: str) -> str:
        parts = urlsplit(str(self._source))
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{path}"))

    def _ask(self, names: Iterable[str]) -> dict[str, _Answer]:
        return self._patiently(lambda: self._await(self._ask_all, list(names)))

    async def _ask_all(self, names: list[str]) -> dict[str, _Answer]:
        turns = asyncio.Semaphore(_AT_ONCE)

        async def ask(name: str) -> _Answer:
            async with turns:
                return await self._ask_one(name)

        answers = await asyncio.gather(*(ask(name) for name in names))
        return dict(zip(names, answers, strict=True))

    async def _ask_one(self, name: str) -> _Answer:
        for method, wanted in (("HEAD", None), ("GET", "bytes=0-0")):
            response = await self._send(method, name, wanted)
            answer = _answer_of(response.status, response.headers)
            response.close()
            if answer.status >= 500 and answer.status != 501:
                response.raise_for_status()
            if answer.status in (401, 404, 410, 429) or answer.size is not None:
                break
        return answer

    async def _send(self, method: str, path: str, wanted: str | None) -> Any:
        own = {"Accept-Encoding": "identity"} | ({} if wanted is None else {"Range": wanted})
        options = dict(self._fs.kwargs)
        follow = options.pop("allow_redirects", True)
        options["headers"] = {**options.get("headers", {}), **own}
        fs, url = self._fs, self._fs.encode_url(self._url(path))
        for _ in range(_REDIRECTIONS):
            session = await fs.set_session()
            response = await session.request(
                method,
                url,
                **self._completed(options, url, session),
                allow_redirects=False,
                auto_decompress=False,
            )
            target = response.headers.get("Location")
            if not follow or response.status not in _REDIRECTING or not target:
                return response
            response.close()
            url = response.url.join(type(response.url)(target))
            self._check_redirection(path, url)
            if url.origin() != response.url.origin():
                fs, options = self._bare, {"headers": own}
        raise self._error(codes.BAD_ANSWER, f"Too many redirections from {self._shown(path)}")

    def _host(self) -> str:
        return urlsplit(str(self._source)).netloc.rpartition("@")[2]

    def _completed(self, options: Mapping[str, Any], url: Any, session: Any) -> dict[str, Any]:
        """The options of a request, with the environment's proxy and the host's login in
        ``~/.netrc``, unless the options set them."""
        headers = options["headers"]
        named = {name.lower() for name in (*headers, *session.headers)}
        logs_in = named & _LOGINS or options.get("auth") or session.auth
        if not (logs_in or self._request.strange):
            login = netrc_login(urlsplit(str(url)).hostname)
            headers = headers if login is None else {**headers, "Authorization": login}
        return {"proxy": proxy_for(str(url)), **options, "headers": headers}

    def _check_redirection(self, path: str, url: Any) -> None:
        permits = self._request.permits
        if permits is None:
            return
        place = Source.parse(str(url.with_query(None).with_fragment(None).with_user(None)))
        if not permits(place.normalised()):
            raise self._error(
                policy_codes.REDIRECT_FORBIDDEN,
                f"{self._shown(path)} redirects to a URL that no policy allows",
                found=place.normalised(),
            )

    def _checked(self, name: str, answer: _Answer, catch_all: _Answer | None) -> FileFact | None:
        """The file behind an answer, or ``None`` for no file and for a page."""
        if answer.status not in (200, 206):
            if answer.status in (401, 403, 404, 410):
                return None
            raise self._refused(name, answer)
        if answer.kind in ("text/html", "application/xhtml+xml"):
            return None
        if (
            catch_all is not None
            and catch_all.status in (200, 206)
            and (catch_all.kind, catch_all.size) == (answer.kind, answer.size)
        ):
            return None
        if answer.size is None:
            raise self._error(
                codes.BAD_ANSWER,
                f"The server does not send the size of {self._shown(name)}",
                expected="Content-Length or Content-Range",
            )
        return FileFact(name, answer.size, version=answer.version)

    def _shards(self, index: FileFact) -> list[str]:
        if index.size > LISTING_BYTES:
            raise self._error(
                codes.BAD_ANSWER,
                f"{self._shown(index.path)} is too large",
                found=f"{index.size} bytes",
            )
        try:
            table = json.loads(b"".join(self._transfer(index, 0, index.size)))
            names = {str(name) for name in table["weight_map"].values()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return []  # reading the index reports what is wrong with it
        return sorted(name for name in names if path_problem(name) is None)[: FOLDER_FILES + 1]

    def _refused(self, name: str, answer: _Answer) -> SourceError:
        known = {
            401: codes.NOT_AUTHENTICATED,
            403: codes.ACCESS_DENIED,
            429: codes.RATE_LIMITED,
        }
        code = known.get(answer.status, codes.BAD_ANSWER)
        found = f"HTTP {answer.status}"
        return self._error(code, f"{self._host()} refused {self._shown(name)}", found=found)


async def _close(response: Any) -> None:
    response.close()


def _answer_of(status: int, headers: Mapping[str, str]) -> _Answer:
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    size = _size(status, headers) if status in (200, 206) else None
    return _Answer(status, size, _version(headers), kind)


def _size(status: int, headers: Mapping[str, str]) -> int | None:
    if encoding_of(headers) != "identity":
        return None
    if status == 206:
        total = headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = headers.get("Content-Length", "")
    return int(total) if total.isdigit() else None


def _version(headers: Mapping[str, str]) -> str | None:
    if headers.get("ETag"):
        return f"etag:{headers['ETag']}"
    if headers.get("Last-Modified"):
        return f"modified:{headers['Last-Modified']}"
    return None


open_folder = HttpFolder
