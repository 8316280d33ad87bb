"""Opening a source of any kind. Nothing heavy is imported before the kind is known."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...manifests.findings import sources as codes
from ...manifests.findings.finding import Where
from ...manifests.language.source import Source
from ..files.facts import FileFact
from .failures import scrub, source_error
from .folder import Folder
from .mirrors import MirroredFolder, mirrored, unversioned
from .ways import GOOGLE, HTTP, S3, Vouches, strange_ways
from .withheld import WithheldFolder, withheld

Permits = Callable[[str], bool]
"""Whether a URL (normalised, without query) may be fetched from."""

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def _the_caller(_: str) -> bool:
    """The program that opens a source chose its options itself."""
    return True


_NO_MIRRORS: Mapping[str, str] = MappingProxyType({})
_OFFLINE_VARIABLES = ("ADAPTERDOCK_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})  # as the Hub's client reads its variables
_HUB_OPTIONS = frozenset({"endpoint", "token"})


def is_offline() -> bool:
    """Whether the environment switches the network off, for the Hub's client or for all."""
    return any(os.environ.get(name, "").upper() in _TRUE for name in _OFFLINE_VARIABLES)


def open_source(
    source: Source,
    *,
    directory: Path,
    storage_options: Mapping[str, Any] = _NO_OPTIONS,
    mirrors: Mapping[str, str] = _NO_MIRRORS,
    offline: bool = False,
    revision: str | None = None,
    files: Mapping[str, FileFact] | None = None,
    permits: Permits | None = None,
    vouches: Vouches = _the_caller,
    where: Where = Where(),  # noqa: B008 - frozen
) -> Folder:
    """The folder that ``source`` names.

    A relative local path counts from ``directory``. ``storage_options`` go to the fsspec
    filesystem of the source's own scheme (to a mirror only where it has the same scheme; the Hub
    takes ``endpoint`` and ``token``). ``mirrors`` maps URL prefixes to where they are fetched
    from; the folder keeps the declared source as its name. ``offline``, or a true
    ADAPTERDOCK_OFFLINE or HF_HUB_OFFLINE, keeps everything off the network: local folders and the
    Hub's cache still open.

    ``revision`` (a Hub commit) and ``files`` (path to size, version, sha256) come from a lock: the
    folder then has exactly those files, and ``files()`` fails where one of them has changed or
    gone.

    ``permits`` is asked before a web server's redirection is followed, a mirror's included.
    ``vouches`` tells of a place that ``storage_options`` name whether the user chose it: to any
    other, none of the user's credentials is sent (all are, where a program calls this itself).

    The network is first used by the folder's methods, not here. Raises
    ``SourceError`` (``OfflineError``), placed at ``where``.
    """
    if source.is_registry:
        raise source_error(
            codes.REGISTRY_NOT_YET, f"{source}: registries cannot be opened yet", where
        )
    place = mirrored(source, mirrors, revision=revision, where=where)
    if place is None:
        return _open_safely(
            source, directory, storage_options, offline, revision, files, permits, vouches, where
        )
    inner = _open_safely(
        place,
        directory,
        options_for(place, source, storage_options),
        offline,
        None,
        None if files is None else unversioned(files),
        permits,
        vouches,
        where,
    )
    return MirroredFolder(inner, source, revision)


def options_for(place: Source, source: Source, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """A mirror takes its source's options where it is of the same kind."""
    return options if place.scheme == source.scheme else _NO_OPTIONS


def _open_safely(
    source: Source,
    directory: Path,
    options: Mapping[str, Any],
    offline: bool,
    revision: str | None,
    pins: Mapping[str, FileFact] | None,
    permits: Permits | None,
    vouches: Vouches,
    where: Where,
) -> Folder:
    """The folder; without the user's credentials, where an option leads to a strange host."""
    strange = () if source.is_local else strange_ways(source, options, vouches)
    if not strange:
        return _open(source, directory, options, offline, revision, pins, permits, True, where)
    if source.scheme in S3:
        options = {**options, "anon": True}
    elif source.scheme in GOOGLE:
        options = {**options, "token": "anon"}
    elif not source.is_hub and source.scheme not in HTTP:
        raise withheld(source, strange, where)
    folder = _open(source, directory, options, offline, revision, pins, permits, False, where)
    return WithheldFolder(folder, strange, where)


def _open(
    source: Source,
    directory: Path,
    options: Mapping[str, Any],
    offline: bool,
    revision: str | None,
    pins: Mapping[str, FileFact] | None,
    permits: Permits | None,
    trusted: bool,
    where: Where,
) -> Folder:
    if source.is_local:
        from .local import LocalFolder

        _only(options, frozenset(), source, where)
        return LocalFolder(source, source.local_path(directory), where=where, pins=pins)
    offline = offline or is_offline()
    if source.is_hub:
        from .hub import HubFolder
        from .hub_settings import HubSettings

        _only(options, _HUB_OPTIONS, source, where)
        settings = HubSettings.from_environment(options.get("endpoint"), options.get("token"))
        if not trusted:
            settings = settings.strange()
        return HubFolder(
            source, settings, where=where, pins=pins, revision=revision, offline=offline
        )
    if offline:
        raise source_error(codes.OFFLINE, f"{source} is not on this machine", where)
    from .filesystems import open_filesystem

    fs, root = open_filesystem(source, options, where)
    if source.scheme in HTTP:
        from .http import HttpFolder

        bare = open_filesystem(source, _NO_OPTIONS, where)[0] if options else fs
        return HttpFolder(
            source, fs, root, where=where, pins=pins, permits=permits, bare=bare, login=trusted
        )
    if source.scheme in S3:
        from .s3 import S3Folder as Kind
    else:
        from .remote import RemoteFolder as Kind
    return Kind(source, fs, root, where=where, pins=pins)


def _only(options: Mapping[str, Any], known: frozenset[str], source: Source, where: Where) -> None:
    unknown = sorted(set(options) - known)
    if unknown:
        raise source_error(
            codes.BAD_STORAGE_OPTIONS,
            f"{scrub(str(source))} does not take these storage options",
            where,
            found=", ".join(unknown),
            expected=", ".join(sorted(known)) or "none",
        )
