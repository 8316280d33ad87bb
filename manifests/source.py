"""Where something comes from: one grammar for every source, which round-trips.

``./dir  ../dir  /dir  ~/dir  file:///dir``        a local folder
``hf://org/name[@revision][/folder]``              the Hub (the grammar of fsspec's ``hf://``)
``registry://registry/name[@constraint]``          a named version in a registry
``scheme://...``                                   anything else that fsspec opens

``Source.parse(str(source)) == source`` for every source.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

LOCAL = "file"
HUB = "hf"
REGISTRY = "registry"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)\Z", re.DOTALL)
_HUB_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_REFS = re.compile(r"(refs/(?:pr|convert)/[^/]+)(?:/(.*))?\Z", re.DOTALL)


class SourceSyntaxError(ValueError):
    """The text is no source; the message says why and what to write instead."""


@dataclass(frozen=True)
class Source:
    """A parsed source.

    ``location`` is the folder as written (local), ``org/name`` (Hub), ``registry/name``
    (registry) or all that follows ``://``. ``revision`` and ``path`` are the Hub's (and a
    registry's constraint is its ``revision``).
    """

    scheme: str
    location: str
    revision: str | None = None
    path: str = ""

    @property
    def is_local(self) -> bool:
        return self.scheme == LOCAL

    @property
    def is_hub(self) -> bool:
        return self.scheme == HUB

    @property
    def is_registry(self) -> bool:
        return self.scheme == REGISTRY

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a full commit hash, which never moves."""
        return self.revision is not None and _COMMIT.match(self.revision) is not None

    @classmethod
    def parse(cls, text: str) -> Source:
        """The source that ``text`` names, else :class:`SourceSyntaxError`."""
        if not text or text != text.strip():
            raise SourceSyntaxError("a source is not empty and has no space around it")
        if any(ord(c) < 32 or ord(c) == 127 for c in text):
            raise SourceSyntaxError("a source has no control characters")
        match = _SCHEME.match(text)
        if match is None:
            return _parse_local(text)
        scheme, rest = match.group(1).lower(), match.group(2)
        if scheme == LOCAL:
            if not rest.startswith("/"):
                raise SourceSyntaxError("write file:///absolute/path, or ./relative/path")
            return _parse_local(rest)
        if scheme == HUB:
            return _parse_hub(rest)
        if scheme == REGISTRY:
            return _parse_registry(rest)
        if not rest.strip("/"):
            raise SourceSyntaxError(f"nothing follows {scheme}://")
        return cls(scheme, rest.rstrip("/"))

    def __str__(self) -> str:
        if self.is_local:
            return self.location
        text = f"{self.scheme}://{self.location}"
        if self.revision is not None:
            revision = self.revision
            if self.is_hub and not _REFS.match(revision):
                revision = quote(revision, safe="")
            text += f"@{revision}"
        if self.path:
            text += f"/{self.path}"
        return text

    def at(self, revision: str) -> Source:
        """The same source pinned to ``revision`` (Hub and registry only)."""
        if not (self.is_hub or self.is_registry):
            raise ValueError(f"{self} has no revision")
        return replace(self, revision=revision)

    def local_path(self, directory: Path) -> Path:
        """The folder of a local source; a relative one counts from ``directory``."""
        if not self.is_local:
            raise ValueError(f"{self} is not a local source")
        return directory / Path(self.location).expanduser()

    def normalised(self, directory: Path | None = None) -> str:
        """One spelling for one place, for policy and for comparing: no ``.``/``..`` steps.

        A local source inside ``directory`` is written ``./inside``, any other absolute.
        """
        if self.is_local:
            if directory is None:
                return posixpath.normpath(self.location)
            root = directory.resolve()
            path = self.local_path(root).resolve()
            if path == root or path.is_relative_to(root):
                return "./" + path.relative_to(root).as_posix()
            return path.as_posix()
        if self.is_hub or self.is_registry:
            return str(self)
        head, slash, tail = self.location.partition("/")
        return f"{self.scheme}://{head}" + (posixpath.normpath(slash + tail) if slash else "")

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _validate, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {
            "type": "string",
            "minLength": 1,
            "description": "a source: ./folder, hf://org/name@revision/folder, "
            "s3://bucket/folder, registry://registry/name@constraint, or any fsspec URL",
        }


def _validate(value: Any) -> Source:
    if isinstance(value, Source):
        return value
    if not isinstance(value, str):
        raise ValueError("a source is text")
    return Source.parse(str(value))


def _parse_local(text: str) -> Source:
    if "\\" in text:
        raise SourceSyntaxError("write a path with forward slashes")
    if text.startswith(("./", "../", "/", "~/")) or text in (".", "..", "~"):
        trimmed = text.rstrip("/") or "/"
        return Source(LOCAL, trimmed)
    raise SourceSyntaxError(
        f"{text!r} could be a folder or a Hub repository: write ./{text} or hf://{text}"
    )


def _parse_hub(rest: str) -> Source:
    for kind in ("datasets/", "spaces/", "buckets/"):
        if rest.startswith(kind):
            raise SourceSyntaxError(f"hf://{kind}... is not a model repository")
    rest = rest.removeprefix("models/").rstrip("/")
    head, at, tail = rest.partition("@")
    if at:
        repo, revision, path = head, *_split_revision(tail)
        if not revision:
            raise SourceSyntaxError("a revision must follow '@'")
    else:
        parts = head.split("/")
        repo, revision, path = "/".join(parts[:2]), None, "/".join(parts[2:])
    names = repo.split("/")
    if len(names) > 2 or not all(_HUB_PART.match(n) and "--" not in n for n in names):
        raise SourceSyntaxError(f"{repo!r} is no Hub repository id (org/name)")
    _check_inside(path)
    return Source(HUB, repo, revision, path)


def _split_revision(tail: str) -> tuple[str, str]:
    refs = _REFS.match(tail)
    if refs is not None:
        return refs.group(1), refs.group(2) or ""
    revision, _, path = tail.partition("/")
    return unquote(revision), path


def _parse_registry(rest: str) -> Source:
    head, at, constraint = rest.partition("@")
    if at and not constraint:
        raise SourceSyntaxError("a version constraint must follow '@'")
    parts = head.split("/")
    if len(parts) != 2 or not all(parts):
        raise SourceSyntaxError("write registry://<registry>/<adapter>[@<constraint>]")
    return Source(REGISTRY, head, constraint or None)


def _check_inside(path: str) -> None:
    if any(part in ("", ".", "..") for part in path.split("/")) and path:
        raise SourceSyntaxError(f"{path!r} is no plain folder inside the source")
