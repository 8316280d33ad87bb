"""What opens the sources that are above those of fsspec: artifacts and adapters of registries."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..manifests.language.source import ARCHIVE, OCI
from .sources.folder import Folder
from .sources.open import Opener
from .sources.request import SourceRequest


def _artifact(request: SourceRequest) -> Folder:
    from .catalogue.oci_folder import RegistryFolder

    return RegistryFolder(request)


def _in_archive(request: SourceRequest) -> Folder:
    from .catalogue.oci_folder import ArchiveFolder

    return ArchiveFolder(request)


OPENERS: Mapping[str, Opener] = MappingProxyType({OCI: _artifact, ARCHIVE: _in_archive})
"""By scheme; for ``open_source``."""
