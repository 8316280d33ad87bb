"""What all opened folders do in the same way: pins, ranges, counting, transfers that resume."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from ...manifests.bounds import FOLDER_DEPTH, FOLDER_FILES, LISTING_SECONDS
from ...manifests.findings import sources as codes
from ...manifests.findings.code import Code
from ...manifests.findings.errors import SourceError
from ...manifests.findings.finding import Finding
from ...manifests.language.names import did_you_mean
from ...manifests.language.source import Source
from ..files.digests import PREFIX, Hasher, path_problem
from ..files.facts import FileFact
from .failures import explain, scrub, source_error
from .folder import OnBytes
from .hints import hint_for
from .local_change import CHANGED
from .pace import Limits, Pace, SlowError
from .ranges import BadRangeError, only_range
from .relay import relayed, within
from .request import SourceRequest

_RETRIES = 3
_PROGRESS = 1 << 20  # bytes after which a transfer may break as often again
_WORTH_RETRYING = frozenset({codes.SERVER_ERROR.id, codes.TRUNCATED.id})
_ASKS_FOR_CREDENTIALS = frozenset(
    code.id
    for code in (
        codes.NOT_AUTHENTICATED,
        codes.ACCESS_DENIED,
        codes.HUB_GATED,
        codes.HUB_REPOSITORY_NOT_FOUND,
    )
)
_SHOWN = 10
_T = TypeVar("_T")


class OpenedFolder(ABC):
    """A ``Folder`` without what each kind of source adds.

    A kind lists its files (``_list``), streams one range of one file at the version that the
    listing named (``_stream``), and may look at one pinned file without listing (``_look``).
    Hidden files (a step starts with a dot) are in no folder, so that a folder has the same files
    in each place. With pins (from a lock), the folder has exactly the pinned files, and opening
    fails where one has changed. Usable from several threads.

    Each request to a server has an end: a listing after ``bounds.LISTING_SECONDS``, a transfer
    as ``Limits`` say. Then its thread is left behind, so ``_list``, ``_look`` and ``_stream`` run
    on other threads than the caller's.
    """

    _waits: ClassVar[bool] = True
    """Whether there is a server to wait for."""

    def __init__(self, request: SourceRequest) -> None:
        self._request = request
        self._source = request.source
        self._where = request.where
        self._files: Mapping[str, FileFact] | None = None
        self._expected: dict[str, FileFact] = {}
        self._bytes_read = 0
        self._written: dict[Path, str] = {}
        self._listing = threading.RLock()
        self._counting = threading.Lock()

    # What a kind adds.

    @abstractmethod
    def _list(self) -> Iterable[FileFact]:
        """Every file; lazily where possible, since listing stops where there are too many."""

    @abstractmethod
    def _stream(self, fact: FileFact, start: int, stop: int) -> Generator[bytes]:
        """The bytes ``start <= i < stop`` of one file in chunks. Counts what arrives through
        :meth:`_received`; raises if the file is no longer at ``fact.version``."""

    def _look(self, pin: FileFact) -> FileFact | None:
        """The pinned file as it is now (at its pinned version, where versions are kept), or
        ``None`` if it is gone."""
        return self._listed().get(pin.path)

    # What a folder does.

    @property
    def source(self) -> Source:
        return self._source

    @property
    def pinned(self) -> Source:
        return self._source

    @property
    def revision(self) -> str | None:
        return None

    @property
    def bytes_read(self) -> int:
        return self._bytes_read

    def files(self) -> Mapping[str, FileFact]:
        with self._listing:
            if self._files is None:
                pins = self._request.pins
                look = self._listed if pins is None else partial(self._held, pins)
                self._files = self._in_time(look) if self._waits else look()
            return self._files

    def expect(self, facts: Iterable[FileFact]) -> None:
        """Files that never change, because their names are their digests: they are read without
        looking at them first. One that is missing is noticed when it is read."""
        self._expected.update((fact.path, fact) for fact in facts)

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        if start < 0 or (length is not None and length < 0):
            raise ValueError("start and length count from 0")
        fact = self._fact(path)
        stop = fact.size if length is None else min(start + length, fact.size)
        buffer = bytearray()
        for chunk in self._transfer(fact, start, stop):
            buffer += chunk
        return bytes(buffer)

    def local(self, path: str) -> Path | None:
        self._fact(path)
        return None

    def download(self, path: str, into: Path, on_bytes: OnBytes | None = None) -> Path:
        hasher = hashlib.sha256()
        saved = self._save(self._fact(path), into, on_bytes, hasher)
        self._written[into] = PREFIX + hasher.hexdigest()
        return saved

    def written(self, into: Path) -> str | None:
        """See :class:`Hashing`."""
        return self._written.pop(into, None)

    # What the kinds share.

    def _save(
        self,
        fact: FileFact,
        into: Path,
        on_bytes: OnBytes | None,
        hasher: Hasher | None = None,
    ) -> Path:
        """Transfer one file into a new file, which is removed if that fails. ``hasher`` gets what
        is written."""
        try:
            into.parent.mkdir(parents=True, exist_ok=True)
            file = into.open("xb")
        except OSError as error:
            raise self._unwritable(fact.path, error) from error
        try:
            with file:
                for chunk in self._transfer(fact, 0, fact.size):
                    try:
                        file.write(chunk)
                        file.flush()  # so that a full disk is noticed here and not at the close
                    except OSError as error:
                        raise self._unwritable(fact.path, error) from error
                    if hasher is not None:
                        hasher.update(chunk)
                    if on_bytes is not None:
                        on_bytes(len(chunk))
        except BaseException:
            into.unlink(missing_ok=True)
            raise
        return into

    def _in_time(self, look: Callable[[], _T]) -> _T:
        try:
            return within(LISTING_SECONDS, look)
        except SlowError as error:
            raise self._error(
                codes.TIMED_OUT,
                f"{self._shown()}: {self._host()} did not list the folder in time",
                expected=f"within {LISTING_SECONDS:g} s",
            ) from error

    def _host(self) -> str:
        """The server's name, for messages."""
        return self._source.location.partition("/")[0]

    def _received(self, count: int) -> None:
        with self._counting:
            self._bytes_read += count

    def _fact(self, path: str) -> FileFact:
        fact = self._expected.get(path) or self.files().get(path)
        if fact is None:
            raise self._error(
                codes.FILE_MISSING,
                f"{self._shown(path)} does not exist",
                # never tokenizer_config.json for adapter_config.json
                hint=did_you_mean(path, [name for name in self.files() if name[:1] == path[:1]]),
            )
        return fact

    def _shown(self, path: str | None = None) -> str:
        text = scrub(str(self._source))
        return text if path is None else f"{text}: {path}"

    def _error(self, code: Code, message: str, **details: Any) -> SourceError:
        """:func:`source_error` at this folder's place; ``details`` are its options."""
        if details.get("hint") is None:
            details["hint"] = hint_for(code, self._source.scheme)
        return self._for_strangers(source_error(code, message, self._where, **details))

    def _explain(self, error: BaseException, path: str | None = None) -> SourceError:
        subject, scheme = self._subject(path), self._source.scheme
        failure = explain(error, subject, self._where, self._host(), scheme=scheme)
        return self._for_strangers(failure)

    def _subject(self, path: str | None) -> str:
        """What a library's error is about, in the message."""
        return self._shown(path)

    def _for_strangers(self, error: SourceError) -> SourceError:
        """Where credentials were withheld and the host asks for some, the error says so."""
        withheld = self._request.strange and error.code in _ASKS_FOR_CREDENTIALS
        return self._request.withheld() if withheld else error

    def _range(
        self,
        fact: FileFact,
        start: int,
        stop: int,
        status: int,
        headers: Mapping[str, str],
        chunks: Iterable[bytes],
    ) -> Iterator[bytes]:
        """The requested bytes from a server's answer to a range request."""
        try:
            yield from only_range(
                status,
                headers,
                chunks,
                start=start,
                stop=stop,
                size=fact.size,
                received=self._received,
            )
        except BadRangeError as error:
            raise self._error(
                codes.BAD_ANSWER,
                f"{self._shown(fact.path)}: the server sent other bytes than requested",
                found=error,
                expected=f"bytes {start}-{stop - 1} of {fact.size}",
            ) from error

    def _changed(self, path: str, found: object, expected: object) -> SourceError:
        return self._error(
            codes.SOURCE_CHANGED, f"{self._shown(path)} has changed", found=found, expected=expected
        )

    def _unwritable(self, path: str, error: OSError) -> SourceError:
        return self._error(
            codes.TARGET_UNWRITABLE,
            f"Cannot write {self._shown(path)} to this machine",
            found=error.strerror or type(error).__name__,
        )

    def _patiently(self, call: Callable[[], _T], path: str | None = None) -> _T:
        """``call()``, repeated once after a failure of the server; errors become ours."""
        for pause in (0.3, None):
            try:
                return call()
            except SourceError:
                raise
            except Exception as error:
                failure = self._explain(error, path)
                if pause is None or failure.code not in _WORTH_RETRYING:
                    raise failure from error
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _transfer(self, fact: FileFact, start: int, stop: int) -> Generator[bytes]:
        """The bytes as they come, and ``b""`` now and then while none come.

        A broken transfer resumes where it broke. A stalled one resumes once: a second stall
        without progress is an error.
        """
        pace = Pace(Limits.from_environment(self._where), stop - start)
        at, broken, stalled = start, 0, 0
        while at < stop:
            began = at
            failure: SourceError
            try:
                with closing(self._arriving(fact, at, stop, pace)) as arriving:
                    for chunk in arriving:
                        at += len(chunk)
                        yield chunk
                if at >= stop:
                    return
                failure = self._error(
                    codes.TRUNCATED,
                    f"{self._shown(fact.path)} ended early",
                    found=f"{at} bytes",
                    expected=f"{stop} bytes",
                )
            except SlowError as slow:
                failure = self._too_slow(fact, slow)
                failure.__cause__ = slow
                if slow.final:
                    raise failure from slow
            except Exception as error:
                failure = self._explain(error, fact.path)
                if failure is not error:
                    failure.__cause__ = error
            broken = 1 if at - began >= _PROGRESS else broken + 1
            if at - began > pace.limits.least:
                stalled = 0
            if failure.code == codes.TIMED_OUT.id:
                stalled += 1
                if stalled > 1 and pace.in_window[0] >= 1:
                    failure = self._too_slow(fact, pace.too_slow())
            elif failure.code not in _WORTH_RETRYING:
                raise failure
            if stalled > 1 or broken > _RETRIES or at >= stop:
                raise failure  # after the last byte, only the check of the version can fail
            time.sleep(0.1 * 2**broken)

    def _arriving(self, fact: FileFact, start: int, stop: int, pace: Pace) -> Generator[bytes]:
        if not self._waits:
            yield from self._stream(fact, start, stop)
            return

        def produce(put: Callable[[bytes], None]) -> None:
            with closing(self._stream(fact, start, stop)) as stream:
                for chunk in stream:
                    put(chunk)

        with closing(relayed(produce, len, pace)) as arriving:
            for chunk in arriving:
                yield chunk or b""

    def _too_slow(self, fact: FileFact, slow: SlowError) -> SourceError:
        return self._error(
            codes.TIMED_OUT,
            f"{self._shown(fact.path)}: {self._host()} sends too slowly",
            found=slow.found,
            expected=slow.expected,
            hint=slow.hint,
        )

    def _listed(self) -> Mapping[str, FileFact]:
        found: dict[str, FileFact] = {}
        outside: list[Finding] = []
        try:
            for fact in self._list():
                if _leads_out(fact.path):
                    outside.append(self._outside(fact.path))
                elif path_problem(fact.path) is None and not is_hidden(fact.path):
                    self._check_depth(fact.path)
                    found[fact.path] = fact
                if len(found) > FOLDER_FILES or len(outside) >= _SHOWN:
                    break
        except SourceError:
            raise
        except Exception as error:
            raise self._explain(error) from error
        if outside:
            raise SourceError(*outside)
        if len(found) > FOLDER_FILES:
            raise self._error(
                codes.TOO_MANY_FILES,
                f"{self._shown()} has more than {FOLDER_FILES} files",
                expected=f"at most {FOLDER_FILES}",
            )
        return MappingProxyType(dict(sorted(found.items())))

    def _check_depth(self, path: str) -> None:
        """Raise :class:`SourceError` for a path deeper than any adapter or base has."""
        if path.count("/") > FOLDER_DEPTH:
            raise self._error(
                codes.TOO_MANY_FILES,
                f"{self._shown()} has folders more than {FOLDER_DEPTH} levels deep",
                found=f"{path[:60]}...",
                expected=f"at most {FOLDER_DEPTH} levels",
            )

    def _held(self, pins: Mapping[str, FileFact]) -> Mapping[str, FileFact]:
        held: dict[str, FileFact] = {}
        findings: list[Finding] = []
        for path, pin in sorted(pins.items()):
            if path_problem(path) is not None or pin.path != path:
                findings.append(self._outside(path))
                continue
            try:
                now = self._look(pin)
            except SourceError:
                raise
            except Exception as error:
                raise self._explain(error, path) from error
            if now is None:
                findings.append(
                    codes.VERSION_GONE.finding(
                        f"{self._shown(path)} no longer exists",
                        self._where,
                        expected=_described(pin),
                    )
                )
            elif _differs(pin, now):
                problem, hint = self._why_changed(pin)
                findings.append(
                    codes.SOURCE_CHANGED.finding(
                        f"{self._shown(path)} {problem}",
                        self._where,
                        found=_described(now),
                        expected=_described(pin),
                        hint=hint,
                    )
                )
            else:
                held[path] = replace(now, sha256=pin.sha256 or now.sha256)
        if findings:
            raise SourceError(*findings)
        return MappingProxyType(held)

    def _why_changed(self, pin: FileFact) -> tuple[str, str | None]:
        """What is said of a file that is not the pinned one, and what to do (``None``: what the
        code says)."""
        return CHANGED, None

    def _outside(self, path: str) -> Finding:
        return codes.OUTSIDE_SOURCE.finding(
            f"{self._shown()} contains a name that leads out of the folder",
            self._where,
            found=repr(path),
        )


def _leads_out(path: str) -> bool:
    """Whether a step of ``path`` is empty, ``.`` or ``..`` on this or another system. Other odd
    names (``notes\\old.txt``) are not of an adapter or a base, and are skipped."""
    return any(step in ("", ".", "..") for step in re.split(r"[/\\]", path))


def is_hidden(path: str) -> bool:
    """Whether a step of ``path`` starts with a dot (``.git``, ``.gitattributes``)."""
    return any(step.startswith(".") for step in path.split("/"))


def _differs(pin: FileFact, now: FileFact) -> bool:
    pairs = ((pin.version, now.version), (pin.sha256, now.sha256))
    return pin.size != now.size or any(a and b and a != b for a, b in pairs)


def _described(fact: FileFact) -> str:
    parts = (f"{fact.size} bytes", fact.version, fact.sha256)
    return ", ".join(part for part in parts if part)
