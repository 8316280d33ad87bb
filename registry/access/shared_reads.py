"""What is read once where one command checks several manifests, or one on several bases."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ...manifests.findings.finding import Finding, Where
from ...manifests.manifest import ManifestFile
from ..files.known_headers import KnownHeaders
from ..files.once import Once
from .access import Access
from .open_registries import OpenRegistries

T = TypeVar("T")


@dataclass(frozen=True)
class Reads:
    """What was read in one command that checks several manifests.

    Attributes:
        bases: Bases, and their fingerprints.
        registries: Open registries, by what decides how they are opened.
        headers: Headers of adapters.
        adapters: Adapters, where one manifest is checked on several bases.
    """

    bases: Once = field(default_factory=Once)
    registries: Once = field(default_factory=Once)
    headers: KnownHeaders = field(default_factory=KnownHeaders)
    adapters: Once | None = None

    def of_one_manifest(self) -> Reads:
        """The same for one manifest and several bases: its adapters are read once, and not kept
        after it."""
        return replace(self, adapters=Once())

    def share(self, access: Access, file: ManifestFile) -> Access:
        """``access`` to the sources of ``file``, with what was read before. A registry is shared
        only by manifests with the same policies and the same hosts that the user chose, because
        these decide where credentials are sent."""
        key = (repr(access.policies), file.from_user)
        opened = self.registries.once(key, OpenRegistries)
        return replace(
            access,
            bases=self.bases,
            adapters=self.adapters,
            headers=self.headers,
            registries=opened,
        )


def base_key(file: ManifestFile, access: Access) -> Hashable:
    """What decides what is read of the base of ``file``: equal for two manifests whose bases are
    opened in the same way, from the same place (however it is written), under the same policies."""
    base = file.manifest.base
    place: object = base.model
    if base.model is not None and base.model.is_local:
        place = os.path.realpath(base.model.local_path(file.directory))
    elif base.model is not None and base.model.is_archive:
        place = (base.model, file.directory)
    return (
        place,
        repr(sorted(base.storage_options.items())),
        repr(sorted(file.manifest.mirrors.items())),
        base.trust_remote_code,
        repr(access.pins.get(None)),
        repr(access.policies),
        file.from_user,
        access.offline,
        access.ask is None,
    )


def read_once(
    reads: Once | None,
    key: Callable[[], Hashable],
    findings: list[Finding],
    read: Callable[[list[Finding]], T],
    where: Where | None = None,
) -> T:
    """``read(findings)``, which notes findings; or what it returned and noted before for this
    ``key``, with ``where`` as the place of its findings. Without ``reads``, it is always read."""
    if reads is None:
        return read(findings)

    def make() -> tuple[T, list[Finding]]:
        noted: list[Finding] = []
        return read(noted), noted

    value, noted = reads.once(key(), make)
    findings.extend(noted if where is None else (replace(f, where=where) for f in noted))
    return value
