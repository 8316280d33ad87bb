"""Opening a source of any kind. Nothing heavy is imported before the kind is known."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...manifests.findings import language as language_codes
from ...manifests.findings.errors import SourceError
from ...manifests.findings.finding import Where
from ...manifests.language.source import ARCHIVE, HUB, LOCAL, Source
from ..files.facts import FileFact
from .failures import scrub
from .folder import Folder
from .mirrors import MirroredFolder, mirror_for, not_in_mirror, options_for, unversioned
from .opened import OpenedFolder
from .request import Permits, SourceRequest
from .ways import GOOGLE, HTTP, S3, Vouches, strange_ways

_log = logging.getLogger(__name__)
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_OFFLINE_VARIABLES = ("ADAPTERDOCK_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})  # as the Hub's client reads its variables

MODULES: Mapping[str, str] = {
    LOCAL: "local",
    HUB: "hub",
    **dict.fromkeys(HTTP, "http"),
    **dict.fromkeys(S3, "s3"),
}
"""By a URL's scheme, the module here that opens it; any other scheme is fsspec's (``remote``)."""

_ALSO_OFFLINE = frozenset({LOCAL, HUB, ARCHIVE})
"""Schemes whose files may be on this machine."""

_ANONYMOUS: Mapping[str, Mapping[str, Any]] = {
    HUB: {},
    **{scheme: {} for scheme in HTTP},
    **{scheme: {"anon": True} for scheme in S3},
    **{scheme: {"token": "anon"} for scheme in GOOGLE},
}
"""By a URL's scheme, the options that keep credentials back. No other scheme has such options."""


def is_offline() -> bool:
    """Whether the environment switches the network off, for the Hub's client or for all."""
    return any(os.environ.get(name, "").upper() in _TRUE for name in _OFFLINE_VARIABLES)


def open_source(
    source: Source,
    *,
    directory: Path,
    storage_options: Mapping[str, Any] = _NOTHING,
    mirrors: Mapping[str, str] = _NOTHING,
    offline: bool = False,
    revision: str | None = None,
    files: Mapping[str, FileFact] | None = None,
    permits: Permits | None = None,
    vouches: Vouches | None = None,
    where: Where = Where(),  # noqa: B008 - frozen
) -> Folder:
    """The folder that ``source`` names. The network is first used by the folder's methods.

    Args:
        source: The declared source. The folder keeps it as its name.
        directory: The folder that a relative local path starts from.
        storage_options: For the fsspec filesystem of the source's own scheme (also for a mirror
            of the same scheme; the Hub takes ``endpoint`` and ``token``).
        mirrors: By URL prefix, where it is fetched from.
        offline: Keeps everything off the network, as a true ADAPTERDOCK_OFFLINE or
            HF_HUB_OFFLINE does. Local folders and the Hub's cache still open.
        revision: A Hub commit, from a lock.
        files: By path, the size, version and sha256 from a lock. The folder then has exactly
            those files, and ``files()`` fails where a file has changed or is gone.
        permits: Is asked before a redirection of a web server (or of a mirror) is followed.
        vouches: Whether the user chose a place that ``storage_options`` name. The user's
            credentials are sent to no other place. Without it, they are sent to each.
        where: The place in the manifest, for findings.

    Raises:
        SourceError: The source cannot be opened (``OfflineError`` where it needs the network).
    """
    if source.is_registry or source.is_oci or source.is_archive:
        raise SourceError(
            language_codes.SOURCE_NOT_HERE.finding(f"{source} is not a folder", where)
        )
    offline = offline or is_offline()
    request = SourceRequest(
        source, directory, storage_options, offline, revision, files, permits, where=where
    )
    row = mirror_for(source, mirrors, revision=revision, where=where)
    if row is None:
        _log.info("Opening %s", scrub(str(source)))
        return _open(request, vouches)
    place = row[1]
    _log.info("Opening %s, from %s", scrub(str(source)), scrub(str(place)))
    mirrored = replace(
        request,
        source=place,
        options=options_for(place, source, storage_options),
        revision=None,
        pins=None if files is None else unversioned(files),
    )
    try:
        folder = _open(mirrored, vouches)
    except SourceError as error:
        raise not_in_mirror(error, source, row[0]) from error
    return MirroredFolder(folder, source, revision, row[0])


def open_contents(request: SourceRequest, vouches: Vouches | None) -> OpenedFolder:
    """A folder of contents whose names are their digests; see :meth:`OpenedFolder.expect`."""
    folder = _open(request, vouches)
    assert isinstance(folder, OpenedFolder)  # as those of all schemes are
    return folder


def allowed_request(request: SourceRequest, vouches: Vouches | None) -> SourceRequest:
    """The same request; without the user's credentials, where an option leads to a strange host.

    Raises ``SourceError`` where it then cannot be opened, or needs the network that it must not
    use.
    """
    source = request.source
    if vouches is not None and not source.is_local:
        request = replace(request, strange=strange_ways(source, request.options, vouches))
    if request.strange:
        if source.scheme not in _ANONYMOUS:
            raise request.withheld()
        request = replace(request, options={**request.options, **_ANONYMOUS[source.scheme]})
    if source.scheme not in _ALSO_OFFLINE:
        request.need_network()
    return request


def _open(request: SourceRequest, vouches: Vouches | None) -> Folder:
    request = allowed_request(request, vouches)
    module = import_module(f".{MODULES.get(request.source.scheme, 'remote')}", __package__)
    opener: Callable[[SourceRequest], Folder] = module.open_folder
    return opener(request)
