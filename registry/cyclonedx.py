"""A bill of materials as CycloneDX 1.6 in JSON (https://cyclonedx.org/docs/1.6/json/).

The base and each adapter are machine-learning models whose files are components with a hash. A
composition is one too, without files: it depends on its members, as adapters depend on the base.
The same lock and licences give the same bytes: there is no time in it, and the serial number comes
from the content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from operator import itemgetter
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from .. import __version__
from ..manifests.findings import registry as codes
from ..manifests.findings.errors import UsageError
from ..manifests.language.source import OCI, Source
from ..manifests.lockfile import LockedFile
from .bill import Bill, Material
from .files.digests import PREFIX

ROOT = "setup"
_OURS = "adapterdock"
_WEB = ("http", "https", "s3", "gs", "az", "abfs", "oci")
"""Schemes of sources that are written as a reference to a place."""


def cyclonedx(bill: Bill) -> bytes:
    """The bill as CycloneDX. Raises :class:`UsageError` where the extra ``sbom`` is missing."""
    lib = _library()
    bom = lib.Bom(metadata=_metadata(bill))
    components = {one.ref: _component(one) for one in bill.materials}
    root = bom.metadata.component
    for component in components.values():
        bom.components.add(component)
    bom.register_dependency(root, components.values())
    for one in bill.materials:
        bom.register_dependency(components[one.ref], [components[ref] for ref in one.uses])
    data: dict[str, Any] = json.loads(lib.JsonV1Dot6(bom).output_as_string())
    del data["metadata"]["timestamp"], data["serialNumber"]
    data["components"].sort(key=itemgetter("bom-ref"))
    data["compositions"] = [_complete(bill)]
    data["serialNumber"] = f"urn:uuid:{UUID(bytes=_digest(data)[:16], version=4)}"
    return _written(data)


@cache
def _library() -> Any:
    """The names of the library that are used here; its types are hidden by its decorators."""
    modules = ("model", "model.bom", "model.component", "model.tool", "output.json")
    found: dict[str, Any] = {}
    try:
        for name in (*modules, "contrib.license.factories"):
            found |= vars(import_module(f"cyclonedx.{name}"))
        found["PackageURL"] = import_module("packageurl").PackageURL
    except ImportError as error:
        raise UsageError(
            codes.SBOM_UNAVAILABLE.finding(
                "A bill of materials needs the package cyclonedx-python-lib", found=str(error)
            )
        ) from error
    return SimpleNamespace(**{name: one for name, one in found.items() if name[0].isupper()})


def _complete(bill: Bill) -> dict[str, Any]:
    """Says that nothing is missing: a lock pins all that is loaded."""
    refs = [ROOT, *(one.ref for one in bill.materials)]
    return {"aggregate": "complete", "assemblies": refs, "dependencies": refs}


def _digest(data: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(_written(data)).digest()


def _written(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()


def _metadata(bill: Bill) -> Any:
    lib = _library()

    root = lib.Component(
        type=lib.ComponentType.APPLICATION,
        name=bill.name or ROOT,
        bom_ref=ROOT,
        description=bill.description,
    )
    tool = lib.Component(type=lib.ComponentType.APPLICATION, name=_OURS, version=__version__)
    return lib.BomMetaData(component=root, tools=lib.ToolRepository(components=[tool]))


def _component(one: Material) -> Any:
    lib = _library()

    about = {"kind": one.kind, **one.about}
    if one.source is not None:
        about["source"] = str(one.source)
    if one.digest is not None:
        about["digest"] = one.digest
    if one.owner is not None:
        about["owner"] = one.owner
    place = None if one.source is None else _place(one.source)
    reference = lib.ExternalReference(
        type=lib.ExternalReferenceType.DISTRIBUTION, url=lib.XsUri(place or "urn:none")
    )
    return lib.Component(
        type=lib.ComponentType.MACHINE_LEARNING_MODEL,
        name=one.name,
        version=one.revision or one.digest,
        bom_ref=one.ref,
        description=one.description,
        licenses=[] if one.licence is None else [_licence(one.licence)],
        purl=None if one.source is None else _purl(one.source, one.revision),
        external_references=[] if place is None else [reference],
        properties=_properties(about),
        tags=one.tags,
        components=[_file(one.ref, path, file) for path, file in sorted(one.files.items())],
    )


def _file(ref: str, path: str, file: LockedFile) -> Any:
    lib = _library()

    digest = (file.sha256 or "").removeprefix(PREFIX)
    return lib.Component(
        type=lib.ComponentType.FILE,
        name=path,
        bom_ref=f"{ref}/{path}",
        hashes=[lib.HashType(alg=lib.HashAlgorithm.SHA_256, content=digest)] if digest else [],
        properties=_properties({"size": str(file.size)}),
    )


def _properties(about: Mapping[str, str]) -> list[Any]:

    lib = _library()
    return [
        lib.Property(name=f"{_OURS}:{key}", value=value) for key, value in sorted(about.items())
    ]


def _licence(text: str) -> Any:
    """An SPDX id or expression where it is one, else a name."""

    return _library().LicenseFactory().make_from_string(text)


def _purl(source: Source, revision: str | None) -> Any:
    """Of a model on the Hub or in an OCI registry, by https://github.com/package-url/purl-spec."""
    make = _library().PackageURL
    parent, _, name = source.location.rpartition("/")
    if source.is_hub:
        return make("huggingface", parent or None, name, revision, subpath=source.path or None)
    if source.scheme == OCI and source.revision is not None:
        name, _, tag = name.partition(":")
        where = {"repository_url": f"{parent}/{name}", **({"tag": tag} if tag else {})}
        return make("oci", None, name, source.revision, where)
    return None


def _place(source: Source) -> str | None:
    if source.is_hub:
        return f"https://huggingface.co/{source.location}"
    return str(source) if source.scheme in _WEB else None
