"""Which registry a reference names."""

from __future__ import annotations

from pathlib import Path

from ..manifests.findings import registry as codes
from ..manifests.findings.errors import UsageError
from ..manifests.manifest import ManifestFile
from .catalogue.catalogue import Catalogue, open_catalogue
from .catalogue.open_storage import open_storage
from .catalogue.reference import Reference


def open_registry(
    reference: Reference, url: str | None = None, file: ManifestFile | None = None
) -> Catalogue:
    """The registry that a reference names: at ``url``, or where the manifest says."""
    if url is not None:
        return open_catalogue(open_storage(url, directory=Path.cwd()))
    known = {} if file is None else file.manifest.registries
    source = known.get(reference.registry)
    if file is None or source is None:
        raise UsageError(
            codes.BAD_REFERENCE.finding(
                f"Unknown registry {reference.registry!r}",
                found=reference.registry,
                expected=", ".join(known) or "a registry that is configured",
                hint="Pass --registry URL, or name it under `registries` in the manifest.",
            )
        )
    where = file.where(("registries", reference.registry))
    return open_catalogue(open_storage(source, directory=file.directory, where=where))
