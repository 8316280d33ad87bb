"""From a registry's URL to its storage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import SourceError
from ...manifests.findings.finding import Where
from ...manifests.language.source import Source, SourceSyntaxError
from ..sources.failures import scrub, source_error
from ..sources.open import allowed_request, is_offline
from ..sources.request import Permits, SourceRequest
from ..sources.ways import HTTP, Vouches
from ..storages.local_storage import LocalStorage
from ..storages.storage import Storage

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def open_storage(
    url: str | Source,
    *,
    directory: Path,
    storage_options: Mapping[str, Any] = _NOTHING,
    offline: bool = False,
    permits: Permits | None = None,
    vouches: Vouches | None = None,
    where: Where = Where(),  # noqa: B008 - frozen
) -> Storage:
    """The storage of the registry at ``url``. The network is first used by its methods.

    Args:
        url: A folder: ``./folder``, ``s3://bucket/folder``, ``https://host/folder``, or any other
            that fsspec opens. Or ``oci-archive:FILE``: what is opened is read at once.
        directory: The folder that a relative local path starts from.
        storage_options: For the fsspec filesystem.
        offline: Keeps everything off the network; a local folder still opens.
        permits: Is asked before a redirection of a web server is followed.
        vouches: Whether the user chose a place that ``storage_options`` name. The user's
            credentials are sent to no other place. Without it, they are sent to each.
        where: The place in the manifest, for findings.

    Raises:
        SourceError: The storage cannot be opened (``OfflineError`` where it needs the network).
    """
    source = _parsed(url, where)
    if source.is_local:
        try:
            folder = source.local_path(directory)
        except SourceSyntaxError as error:
            raise _invalid(str(source), str(error), where) from error
        if storage_options:
            SourceRequest(source, directory, storage_options, where=where).only_options()
        return LocalStorage(folder)
    if source.is_archive:
        from ..oci.archive_storage import ArchiveStorage

        SourceRequest(source, directory, storage_options, where=where).only_options()
        return ArchiveStorage(archive_path(source, directory, where), source.path or None, where)
    request = allowed_request(
        SourceRequest(
            source,
            directory,
            storage_options,
            offline or is_offline(),
            permits=permits,
            where=where,
        ),
        vouches,
    )
    if source.scheme in HTTP:
        from ..storages.http_storage import HttpStorage

        return HttpStorage(request)
    from ..storages.remote_storage import RemoteStorage

    return RemoteStorage(request)


def archive_path(source: Source, directory: Path, where: Where) -> Path:
    """The file of an ``oci-archive:`` source."""
    try:
        return source.local_path(directory)
    except SourceSyntaxError as error:
        raise _invalid(str(source), str(error), where) from error


def _parsed(url: str | Source, where: Where) -> Source:
    try:
        source = url if isinstance(url, Source) else Source.parse(url)
    except SourceSyntaxError as error:
        raise _invalid(str(url), str(error), where) from error
    if source.is_hub:
        raise _invalid(str(source), "the Hub keeps no registries", where)
    if source.is_registry or source.is_oci:
        raise _invalid(str(source), "it names an adapter in a registry", where)
    return source


def _invalid(url: str, reason: str, where: Where) -> SourceError:
    return source_error(
        codes.BAD_REGISTRY_URL,
        f"Invalid URL {scrub(url)!r} of a registry: {reason}",
        where,
        expected="./folder, s3://bucket/folder, az://container/folder, gs://bucket/folder, ...",
    )
