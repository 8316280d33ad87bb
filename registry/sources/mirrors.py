"""Mirrors: where a source is fetched from instead. The source keeps its name.

A mirror rewrites a URL's prefix, matched on whole steps of the normalised URL; the longest match
wins. A Hub repository is laid out in a mirror as ``org/name/<revision>/<folder>``: the commit
where one is known (from ``@`` or a lock), else the branch or tag as written (a ``/`` in it is
``%2F``), else ``main``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...manifests.findings import sources as codes
from ...manifests.findings.errors import SourceError
from ...manifests.findings.finding import Where
from ...manifests.language.source import HUB, Source, SourceSyntaxError
from ..files.facts import FileFact
from .failures import scrub
from .folder import Folder, OnBytes

_Steps = tuple[str, ...]


def mirror_for(
    source: Source, mirrors: Mapping[str, str], *, revision: str | None = None, where: Where
) -> tuple[str, Source] | None:
    """The target of the row for ``source``, and the place that ``source`` is then fetched from.

    ``None`` where no row applies, as for every local source: those are not fetched. ``revision``
    is the Hub commit from a lock. Raises ``SourceError`` for an invalid row.
    """
    if source.is_local or not mirrors:
        return None
    steps = _steps_of(source, revision)
    best: tuple[_Steps, str] | None = None
    for prefix, target in mirrors.items():
        scheme, known = _prefix(prefix, where)
        if scheme != source.scheme or steps[: len(known)] != known:
            continue
        if best is None or len(known) > len(best[0]):
            best = (known, target)
    if best is None:
        return None
    return best[1], _joined(best[1], steps[len(best[0]) :], source, where)


def path_in_mirror(source: Source, revision: str | None) -> str:
    """The path of a Hub source in a mirror of ``hf://``."""
    return "/".join(_steps_of(source, revision))


def options_for(place: Source, source: Source, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The storage options for a mirror: its source's, where both are of the same kind."""
    return options if place.scheme == source.scheme else {}


class MirroredFolder:
    """A folder that is read from a mirror, under its declared name.

    The mirror's versions are not those of the declared source, so ``FileFact.version`` is
    ``None``: sizes and SHA-256 digests pin the files of a mirror.
    """

    def __init__(self, inner: Folder, source: Source, revision: str | None, mirror: str) -> None:
        """``mirror`` is the right side of the row, for messages."""
        if revision is None and source.is_commit:
            revision = source.revision
        self.source: Source = source
        self.revision: str | None = revision if source.is_hub else None
        self.pinned: Source = source if self.revision is None else source.at(self.revision)
        self._inner: Folder = inner
        self._mirror = mirror

    @property
    def bytes_read(self) -> int:
        return self._inner.bytes_read

    def files(self) -> Mapping[str, FileFact]:
        try:
            return unversioned(self._inner.files())
        except SourceError as error:
            raise not_in_mirror(error, self.source, self._mirror) from error

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        return self._inner.read(path, start, length)

    def local(self, path: str) -> Path | None:
        return self._inner.local(path)

    def download(self, path: str, into: Path, on_bytes: OnBytes | None = None) -> Path:
        return self._inner.download(path, into, on_bytes)


def not_in_mirror(error: SourceError, source: Source, mirror: str) -> SourceError:
    """The same error, which says of a place that does not exist that it is one in a mirror."""
    fill = (
        "`adapterdock mirror --hub MANIFEST DST`, where the Hub can be reached"
        if source.is_hub
        else f"a copy of {scrub(str(source))}"
    )
    findings = [
        replace(
            f,
            message=f"The mirror {scrub(mirror)} does not have {scrub(str(source))}",
            found=f.found or f.message,
            hint=f"Check the row in `mirrors`, or fill the mirror with {fill}.",
        )
        if f.code == codes.SOURCE_MISSING.id
        else f
        for f in error.findings
    ]
    return type(error)(*findings)


def unversioned(files: Mapping[str, FileFact]) -> dict[str, FileFact]:
    """The same files without their versions."""
    return {path: FileFact(path, fact.size, fact.sha256) for path, fact in files.items()}


def _steps_of(source: Source, revision: str | None) -> _Steps:
    if source.is_hub:
        known = quote(revision or source.revision or "main", safe="")
        return (*source.location.split("/"), known, *_split(source.path))
    return _split(source.normalised().partition("://")[2])


def _prefix(text: str, where: Where) -> tuple[str, _Steps]:
    scheme, colon, rest = text.partition("://")
    if not colon or not scheme:
        raise SourceError(
            codes.BAD_MIRROR.finding(
                "Invalid URL prefix on the left of a mirror", where, found=repr(scrub(text))
            )
        )
    return scheme.lower(), _split(rest.replace("@", "/", 1) if scheme.lower() == HUB else rest)


def _joined(target: str, rest: _Steps, source: Source, where: Where) -> Source:
    try:
        scheme, colon, head = target.partition("://")
        if colon and scheme.lower() == HUB:
            return _hub((*_split(head), *rest), source)
        return Source.parse("/".join((target.rstrip("/"), *rest)))
    except SourceSyntaxError as error:
        raise SourceError(
            codes.BAD_MIRROR.finding(
                f"Invalid source on the right of a mirror: {error}",
                where,
                found=repr(scrub(target)),
            )
        ) from error


def _hub(steps: _Steps, source: Source) -> Source:
    """A Hub repository that mirrors another: the revision is the third step of both."""
    if not source.is_hub or len(steps) < 3:
        raise SourceSyntaxError("only hf:// can be mirrored to hf://, repository by repository")
    location, revision, path = "/".join(steps[:2]), steps[2], "/".join(steps[3:])
    text = f"hf://{location}@{revision}" + (f"/{path}" if path else "")
    return Source.parse(text)


def _split(text: str) -> _Steps:
    return tuple(step for step in text.split("/") if step)
