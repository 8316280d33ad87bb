"""Opening a source of any kind. Nothing heavy is imported before the kind is known."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...manifests.findings import sources as codes
from ...manifests.findings.finding import Where
from ...manifests.language.source import Source
from ..files.facts import FileFact
from .failures import source_error
from .folder import Folder
from .mirrors import MirroredFolder, mirrored, unversioned
from .request import Permits, SourceRequest
from .ways import GOOGLE, HTTP, S3, Vouches, strange_ways
from .withheld import WithheldFolder, withheld

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def _the_caller(_: str) -> bool:
    """The program that opens a source chose its options itself."""
    return True


_NO_MIRRORS: Mapping[str, str] = MappingProxyType({})
_OFFLINE_VARIABLES = ("ADAPTERDOCK_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})  # as the Hub's client reads its variables


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
    offline = offline or is_offline()
    asked = SourceRequest(
        source, directory, storage_options, offline, revision, files, permits, True, where
    )
    place = mirrored(source, mirrors, revision=revision, where=where)
    if place is None:
        return _open_safely(asked, vouches)
    elsewhere = replace(
        asked,
        source=place,
        options=options_for(place, source, storage_options),
        revision=None,
        pins=None if files is None else unversioned(files),
    )
    return MirroredFolder(_open_safely(elsewhere, vouches), source, revision)


def options_for(place: Source, source: Source, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """A mirror takes its source's options where it is of the same kind."""
    return options if place.scheme == source.scheme else _NO_OPTIONS


def _open_safely(asked: SourceRequest, vouches: Vouches) -> Folder:
    """The folder; without the user's credentials, where an option leads to a strange host."""
    source, options = asked.source, asked.options
    strange = () if source.is_local else strange_ways(source, options, vouches)
    if not strange:
        return _open(asked)
    if source.scheme in S3:
        options = {**options, "anon": True}
    elif source.scheme in GOOGLE:
        options = {**options, "token": "anon"}
    elif not source.is_hub and source.scheme not in HTTP:
        raise withheld(source, strange, asked.where)
    folder = _open(replace(asked, options=options, trusted=False))
    return WithheldFolder(folder, strange, asked.where)


MODULES: Mapping[str, str] = {
    **dict.fromkeys(HTTP, "http"),
    **dict.fromkeys(S3, "s3"),
}
"""By a URL's scheme, the module here that opens it; any other scheme is fsspec's (``remote``)."""


def _open(asked: SourceRequest) -> Folder:
    source = asked.source
    if source.is_local or source.is_hub:
        name = "local" if source.is_local else "hub"
    else:
        asked.need_network()
        name = MODULES.get(source.scheme, "remote")
    opener: Callable[[SourceRequest], Folder] = import_module(f".{name}", __package__).open_folder
    return opener(asked)
