"""Opening a source of any kind. Nothing heavy is imported before the kind is known."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...manifests.codes import sources as codes
from ...manifests.findings import Where
from ...manifests.source import Source
from ..facts import FileFact
from .failures import scrub, source_error
from .folder import Folder
from .mirrors import MirroredFolder, mirrored, unversioned

Permits = Callable[[str], bool]
"""Whether a URL (normalised, without query) may be fetched from."""

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
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

    ``permits`` is asked before a web server's redirection is followed (not a mirror's, which is
    the platform's own).

    The network is first used by the folder's methods, not here. Raises
    :class:`~adapterdock.manifests.errors.SourceError` (``OfflineError``), placed at ``where``.
    """
    if source.is_registry:
        raise source_error(
            codes.REGISTRY_NOT_YET, f"{source}: registries cannot be opened yet", where
        )
    place = mirrored(source, mirrors, revision=revision, where=where)
    if place is None:
        return _open(source, directory, storage_options, offline, revision, files, permits, where)
    inner = _open(
        place,
        directory,
        storage_options if place.scheme == source.scheme else _NO_OPTIONS,
        offline,
        None,
        None if files is None else unversioned(files),
        None,
        where,
    )
    return MirroredFolder(inner, source, revision)


def _open(
    source: Source,
    directory: Path,
    options: Mapping[str, Any],
    offline: bool,
    revision: str | None,
    pins: Mapping[str, FileFact] | None,
    permits: Permits | None,
    where: Where,
) -> Folder:
    if source.is_local:
        from .local import LocalFolder

        _only(options, frozenset(), source, where)
        return LocalFolder(source, source.local_path(directory), where=where, pins=pins)
    offline = offline or is_offline()
    if source.is_hub:
        from .hub import HubFolder, HubSettings

        _only(options, _HUB_OPTIONS, source, where)
        settings = HubSettings.from_environment(options.get("endpoint"), options.get("token"))
        return HubFolder(
            source, settings, where=where, pins=pins, revision=revision, offline=offline
        )
    if offline:
        raise source_error(codes.OFFLINE, f"{source} is not on this machine", where)
    from .filesystems import HTTP, S3, open_filesystem

    fs, root = open_filesystem(source, options, where)
    if source.scheme in HTTP:
        from .http import HttpFolder

        return HttpFolder(source, fs, root, where=where, pins=pins, permits=permits)
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
