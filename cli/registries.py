"""Options that the commands on registries share, and how a reference is opened."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import err
from .options import DEFAULT_MANIFEST, manifest_argument
from .render import print_findings

if TYPE_CHECKING:
    from ..manifests.findings.errors import AdapterdockError
    from ..manifests.findings.finding import Finding
    from ..manifests.manifest import ManifestFile
    from ..registry.catalogue.catalogue import Catalogue
    from ..registry.catalogue.reference import Reference

ReferenceArgument = Annotated[
    str,
    typer.Argument(
        metavar="REGISTRY/NAME@VERSION",
        help="One version of an adapter in a registry: team/refunds@2.1.0.",
        show_default=False,
    ),
]
NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="REGISTRY/NAME",
        help="An adapter in a registry: team/refunds.",
        show_default=False,
    ),
]
PlaceArgument = Annotated[
    str,
    typer.Argument(
        metavar="URL|NAME",
        help="A registry: its folder (./registry, s3://bucket/folder), or its configured name.",
        show_default=False,
    ),
]
RegistryOption = Annotated[
    str | None,
    typer.Option(
        "--registry",
        metavar="URL",
        help="What REGISTRY means (default: `registries` of the manifest, else of config.toml).",
    ),
]
RegistriesOption = Annotated[
    Path | None,
    typer.Option(
        "--manifest",
        metavar="FILE",
        help="The manifest that names the registries (default: adapters.yaml, if it is there).",
    ),
]
ByOption = Annotated[
    str | None,
    typer.Option("--by", metavar="WHO", help="Recorded as who did it (default: your user name)."),
]
WhyOption = Annotated[
    str | None, typer.Option("--why", metavar="TEXT", help="Recorded as the reason.")
]


def manifest_of(path: Path | None) -> ManifestFile | None:
    """The manifest that names registries, if there is one."""
    if path is None and not DEFAULT_MANIFEST.is_file():
        return None
    from ..registry.locks.project import open_manifest

    return open_manifest(manifest_argument(path or DEFAULT_MANIFEST))


def opened(text: str, registry: str | None, manifest: Path | None) -> tuple[Catalogue, Reference]:
    """The registry that a reference names, and the reference."""
    from ..registry.catalogue.reference import parse_reference
    from ..registry.registries import open_registry

    reference = parse_reference(text)
    file = manifest_of(manifest) if registry is None else None
    return open_registry(reference, registry, file), reference


def never_existed(catalogue: Catalogue, name: str, alias: str) -> AdapterdockError:
    """That no version was ever promoted to an alias."""
    from ..manifests.findings import registry as codes
    from ..manifests.findings.errors import SourceError

    return SourceError(
        codes.NOT_PUBLISHED.finding(f"{name}@{alias} never existed", catalogue.where)
    )


def who(by: str | None) -> str | None:
    """Who does it: as given, else the user's name."""
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user id without a name
        return None


def warn(finding: Finding) -> None:
    """Print a warning about a change that was made."""
    print_findings([finding], err)
