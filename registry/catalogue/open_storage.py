"""From a registry's URL to its storage."""

from __future__ import annotations

from pathlib import Path

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import SourceError
from ...manifests.findings.finding import Where
from ...manifests.language.source import Source, SourceSyntaxError
from .local_storage import LocalStorage
from .storage import Storage


def open_storage(
    url: str | Source,
    *,
    directory: Path,
    where: Where = Where(),  # noqa: B008 - frozen
) -> Storage:
    """The storage of the registry at ``url``; a relative path starts from ``directory``. Raises
    :class:`SourceError`."""
    try:
        source = Source.parse(url) if isinstance(url, str) else url
        if source.is_local:
            return LocalStorage(source.local_path(directory))
    except SourceSyntaxError as error:
        raise SourceError(
            codes.NOT_A_REGISTRY.finding("Invalid URL of a registry", where, found=error)
        ) from error
    raise SourceError(
        codes.NOT_A_REGISTRY.finding(
            "This kind of registry cannot be opened", where, found=source, expected="a folder"
        )
    )
