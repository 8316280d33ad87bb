"""Where something comes from: one grammar for all sources.

``./dir  ../dir  /dir  ~/dir  file:///dir``        a local folder
``hf://org/name[@revision][/folder]``              the Hub (the grammar of fsspec's ``hf://``)
``registry://registry/name@version``               published in a registry (or a range, an alias)
``oci://host/repository:tag``                      published as an OCI artifact
``oci-archive:FILE[:reference]``                   the same, in a tar file
``scheme://...``                                   anything else that fsspec opens

``Source.parse(str(source)) == source`` for every source. No source contains a password,
a query, or a step (``.``, ``..``) that leads to another place.
"""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from .published_sources import (
    archive_parts,
    check_digest,
    check_selector,
    oci_parts,
    registry_parts,
)
from .source_syntax import SourceSyntaxError, check_inside, check_seen, decode
from .web_pages import HUB_HOSTS, page_meant

__all__ = ["ARCHIVE", "HUB", "LOCAL", "OCI", "REGISTRY", "Source", "SourceSyntaxError"]

LOCAL = "file"
HUB = "hf"
REGISTRY = "registry"
OCI = "oci"
ARCHIVE = "oci-archive"

_ARCHIVE = re.compile(rf"{ARCHIVE}:(.*)\Z", re.DOTALL | re.IGNORECASE)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)\Z", re.DOTALL)
# s3:bucket, s3:/bucket: the meaning is clear, and it is not a drive letter.
_HALF_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/?([^/:].*)\Z", re.DOTALL)
_WINDOWS = re.compile(r"[A-Za-z]:(?:[\\/]|\Z)|\\\\")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_HUB_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?\Z")
_HUB_KINDS = ("datasets", "spaces", "kernels", "buckets")
_REFS = re.compile(r"(refs/(?:pr/[0-9]+|convert/[A-Za-z0-9_.-]+))(?:/(.*))?\Z", re.DOTALL)
# What git forbids in a ref's name; the Hub's client also uses it as a path in its cache.
_NO_REF = re.compile(r"[\s~^:?*\[\\]|\.\.|@\{|//|/\.|\A[-./]|[./]\Z|\.lock\Z|\A@\Z")
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.]+\](?::[0-9]+)?\Z")
_WEB = frozenset({"http", "https"})
_HOSTED = _WEB | {
    *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "r2", "b2"),
    *("ftp", "ftps", "sftp", "ssh", "scp", "smb", "webdav", "webdavs", "webhdfs"),
}
_DEFAULT_PORT = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Source:
    """A parsed source.

    ``location`` is the folder as written (local), ``org/name`` (Hub), ``registry/name``
    (registry), ``host/repository:tag`` (OCI), the file as written (archive) or everything after
    ``://``. ``revision`` and ``path`` are the Hub's. A registry's ``revision`` is what selects a
    version, that of an OCI artifact or an archive is a digest, and an archive's ``path`` is the
    reference of an image in it.
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
    def is_oci(self) -> bool:
        return self.scheme == OCI

    @property
    def is_archive(self) -> bool:
        return self.scheme == ARCHIVE

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a full commit hash, which never moves."""
        return self.revision is not None and _COMMIT.match(self.revision) is not None

    @classmethod
    def parse(cls, text: str) -> Source:
        """The source that ``text`` names, else :class:`SourceSyntaxError`."""
        trimmed = text.rstrip("/") or text
        if not text or text != text.strip() or trimmed != trimmed.strip():
            raise SourceSyntaxError("it is empty, or has spaces around it")
        check_seen(text)
        if (archive := _ARCHIVE.match(text)) is not None:
            return Source(ARCHIVE, *archive_parts(archive.group(1)))
        match = _SCHEME.match(text)
        if match is None or len(match.group(1)) == 1:
            return _parse_local(text)
        scheme, rest = match.group(1).lower(), match.group(2)
        if scheme == LOCAL:
            return _parse_file_url(rest)
        if scheme == HUB:
            return _parse_hub(rest)
        if scheme == REGISTRY:
            return Source(REGISTRY, *registry_parts(rest))
        if scheme == OCI:
            return Source(OCI, *oci_parts(rest))
        return _parse_url(scheme, rest)

    def __str__(self) -> str:
        if self.is_local:
            return self.location
        if self.is_archive:
            text = f"{ARCHIVE}:{self.location}" + (f":{self.path}" if self.path else "")
            return text if self.revision is None else f"{text}@{self.revision}"
        text = f"{self.scheme}://{self.location}"
        if self.revision is not None:
            revision = self.revision
            if self.is_hub and not _is_special_ref(revision):
                revision = quote(revision, safe="")
            text += f"@{revision}"
        if self.path:
            text += f"/{self.path}"
        return text

    def at(self, revision: str) -> Source:
        """The same source pinned to ``revision`` (Hub, registry, OCI and archive only)."""
        if self.is_hub:
            _check_ref(revision)
        elif self.is_registry:
            check_selector(revision)
        elif self.is_oci or self.is_archive:
            check_digest(revision)
        else:
            raise ValueError(f"{self} has no revision")
        return replace(self, revision=revision)

    def local_path(self, directory: Path) -> Path:
        """The folder of a local source, or an archive's file; a relative one counts from
        ``directory``."""
        if not (self.is_local or self.is_archive):
            raise ValueError(f"{self} is not a local source")
        try:
            # pathlib drops the "./" of "./~", which names a folder and not a home
            path = Path(self.location)
            return directory / (path.expanduser() if self.location.startswith("~") else path)
        except RuntimeError as error:
            raise SourceSyntaxError("'~' cannot be used: the home folder is not known") from error

    def normalised(self, directory: Path | None = None) -> str:
        """One spelling for each place, for policies and comparisons: no ``.``/``..`` steps.

        A local source inside ``directory`` is written ``./inside``, any other absolute. The host
        of a web address is in lower case and without its default port.
        """
        if self.is_local:
            return self._normal_path(directory)
        if self.is_archive:
            return str(replace(self, location=self._normal_path(directory)))
        if self.scheme in _WEB:
            host, slash, path = self.location.partition("/")
            port = f":{_DEFAULT_PORT[self.scheme]}"
            return f"{self.scheme}://{host.lower().removesuffix(port)}{slash}{path}"
        return str(self)

    def _normal_path(self, directory: Path | None) -> str:
        if directory is None:
            if self.location.startswith("~"):
                return posixpath.normpath(self.local_path(Path("/")).as_posix())
            path = posixpath.normpath(self.location)
            return path if path.startswith(("/", "../")) or path == ".." else f"./{path}"
        root = directory.resolve()
        place = Path(os.path.realpath(self.local_path(root)))
        if place == root or place.is_relative_to(root):
            return "./" + place.relative_to(root).as_posix()
        return place.as_posix()

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
            "s3://bucket/folder, registry://registry/name@version, oci://host/repository:tag, "
            "oci-archive:FILE, or any fsspec URL",
        }


def _validate(value: Any) -> Source:
    if isinstance(value, Source):
        return value
    if not isinstance(value, str):
        raise ValueError("it is not text")
    return Source.parse(str(value))


def _parse_local(text: str) -> Source:
    if _WINDOWS.match(text):
        raise SourceSyntaxError(
            "a Windows drive or share exists on one machine only: "
            "write a path relative to the manifest, with forward slashes (./folder)"
        )
    if "\\" in text:
        raise SourceSyntaxError("use forward slashes")
    if text.startswith("//"):
        raise SourceSyntaxError("a path starts with a single slash")
    if text.startswith(("./", "../", "/", "~/")) or text in (".", "..", "~"):
        return Source(LOCAL, text.rstrip("/") or "/")
    if text.lower().startswith("file:"):
        raise SourceSyntaxError("write file:///absolute/path, or ./relative/path")
    if "://" in text:
        raise SourceSyntaxError(
            "a scheme has only letters, digits, '+', '.' and '-', and '::' is not supported"
        )
    if text.startswith("~"):
        raise SourceSyntaxError("'~user' is not supported: write the full path")
    if slip := _HALF_SCHEME.match(text):
        scheme, rest = slip.groups()
        raise SourceSyntaxError(f"did you mean {scheme}://{rest}?", f"{scheme}://{rest}")
    _refuse_page(text)
    raise SourceSyntaxError(
        f"{text!r} could be a folder or a Hub repository: write ./{text} or hf://{text}"
    )


def _parse_file_url(rest: str) -> Source:
    if not rest.startswith("/"):
        raise SourceSyntaxError(
            "file:// does not take a host: write file:///absolute/path, or ./relative/path"
        )
    path = decode(rest).rstrip("/") or "/"
    if path != path.rstrip():
        raise SourceSyntaxError("it has spaces around it")
    check_seen(path)
    return _parse_local(path)


def _parse_url(scheme: str, rest: str) -> Source:
    rest = rest.rstrip("/") if rest.strip("/") else ""
    authority, _, path = rest.partition("/")
    if not rest or (not authority and scheme in _HOSTED):
        raise SourceSyntaxError(f"the bucket or host is missing after {scheme}://")
    if scheme == "local":
        raise SourceSyntaxError("write a local folder as ./relative/path or /absolute/path")
    if "\\" in rest:
        raise SourceSyntaxError("use forward slashes")
    if scheme in _WEB:
        _refuse_page(rest)
    user, at, host = authority.rpartition("@")
    if at and (":" in user or scheme in _WEB):
        raise SourceSyntaxError(
            "it contains a user or password: credentials come from the environment or a profile"
        )
    if _IPV6.match(host):
        plain = path
    elif scheme in _WEB and ("[" in host or _bad_port(scheme, host)):
        raise SourceSyntaxError("invalid host or port")
    else:
        plain = rest
    if "?" in plain or (scheme in _WEB and "#" in plain):
        raise SourceSyntaxError(
            "a query or fragment ('?', '#') is not allowed: "
            "a source is a folder, and the lock pins the versions of its files"
        )
    if re.search(r"[*\[\]]|::", plain):
        raise SourceSyntaxError("'*', '[', ']' and '::' are not allowed: a source is one folder")
    if scheme in _WEB and re.search(r"\s", plain):
        raise SourceSyntaxError("write a space in a web address as %20")
    if path:
        check_inside(path)
        check_inside(decode(path) if scheme in _WEB else unquote(path))
    return Source(scheme, rest)


def _refuse_page(address: str) -> None:
    """Raise :class:`SourceSyntaxError` for the address of a page in a browser."""
    meant = page_meant(address)
    if meant is None:
        return
    what, instead = meant
    try:
        instead = str(Source.parse(instead))
    except SourceSyntaxError:
        instead = "hf://org/name"
    raise SourceSyntaxError(f"this is {what}: write {instead}", instead)


def _bad_port(scheme: str, host: str) -> bool:
    try:
        parts = urlsplit(f"{scheme}://{host}")
        return not parts.hostname or (parts.port is None and host.endswith(":"))
    except ValueError:
        return True


def _parse_hub(rest: str) -> Source:
    rest = rest.removeprefix("models/").rstrip("/")
    address = re.sub(r"\Ahttps?://?", "", rest)
    if address.partition("/")[0].lower() in HUB_HOSTS:
        _refuse_page(address)
    kind = rest.partition("/")[0]
    if kind in _HUB_KINDS and "/" in rest:
        raise SourceSyntaxError(f"hf://{kind}/... is not a model repository")
    head, at, tail = rest.partition("@")
    revision: str | None = None
    if at and head.count("/") <= 1:
        repo, (revision, path) = head, _split_revision(tail)
        _check_ref(revision)
    else:  # an '@' further on is part of a folder's name
        parts = rest.split("/")
        repo, path = "/".join(parts[:2]), "/".join(parts[2:])
    names = repo.split("/")
    if not all(map(_is_hub_part, names)) or repo.endswith(".git") or names[0] == "models":
        raise SourceSyntaxError(
            f"invalid Hub repository id {repo!r}: org/name, each up to 96 of A-Z a-z 0-9 . _ -, "
            "no '--' or '..', no '-' or '.' at an end, no '.git'"
        )
    if path:
        check_inside(path)
        if re.search(r"[*?\[\]\\]", path):
            raise SourceSyntaxError(
                "'*', '?', '[', ']' and '\\' are not allowed: a source is one folder"
            )
    return Source(HUB, repo, revision, path)


def _is_hub_part(name: str) -> bool:
    return _HUB_PART.match(name) is not None and "--" not in name and ".." not in name


def _split_revision(tail: str) -> tuple[str, str]:
    refs = _REFS.match(tail)
    if refs is not None:
        return refs.group(1), refs.group(2) or ""
    revision, _, path = tail.partition("/")
    return decode(revision), path


def _is_special_ref(revision: str) -> bool:
    refs = _REFS.match(revision)
    return refs is not None and refs.group(2) is None


def _check_ref(revision: str) -> None:
    if not revision:
        raise SourceSyntaxError("the revision after '@' is missing")
    check_seen(revision)
    if _NO_REF.search(revision):
        raise SourceSyntaxError(f"invalid branch, tag or commit {revision!r}")
