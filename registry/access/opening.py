"""A declared source that is to be opened, and who opens which kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...manifests.findings.finding import Where
from ...manifests.language.schema import Policy
from ...manifests.language.source import ARCHIVE, OCI, REGISTRY, Source
from ...manifests.lockfile import LockedAdapter, LockedBase
from ...manifests.manifest import ManifestFile
from ..sources.folder import Folder
from .open_registries import OpenRegistries

if TYPE_CHECKING:
    from ..store.store import Store

OPENERS: Mapping[str, str] = {
    REGISTRY: "published",
    OCI: "artifacts",
    ARCHIVE: "artifacts",
}
"""By scheme, the module here whose ``open_folder(opening)`` opens sources that are not folders
themselves. All others are opened by ``sources/open.py``."""


@dataclass(frozen=True)
class Opening:
    """What decides how a published source is opened.

    Attributes:
        source: As declared.
        file: The manifest; ``None`` for a source that a caller passed without one.
        options: Storage options.
        pin: What the lock pins of it, where the lock counts.
        seen: What the lock has of it, even where it does not count (as with ``--upgrade``).
        policies: Those in force.
        offline: Whether the network must not be used.
        registries: Those that are open in this command.
        directory: The folder that a relative file starts from; by default the manifest's, else the
            current one.
        vouched: Whether the caller chose the options, so that the user's credentials may be sent to
            the places that they name.
        store: Where signatures are kept for use without a network.
        registry: The URL of the registry, in place of what its local name means.
        where: The place in the manifest, for findings.
    """

    source: Source
    file: ManifestFile | None
    options: Mapping[str, Any] = field(default_factory=dict)
    pin: LockedAdapter | LockedBase | None = None
    seen: LockedAdapter | None = None
    policies: tuple[Policy, ...] = ()
    offline: bool = False
    registries: OpenRegistries | None = None
    store: Store | None = None
    registry: str | None = None
    directory: Path | None = None
    vouched: bool = False
    where: Where = Where()  # noqa: RUF009 - frozen


def opener_of(source: Source) -> Callable[[Opening], Folder] | None:
    """Who opens this kind of source, or ``None`` for a folder."""
    module = OPENERS.get(source.scheme)
    if module is None:
        return None
    opener: Callable[[Opening], Folder] = import_module(f".{module}", __package__).open_folder
    return opener
