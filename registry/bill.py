"""The bill of materials of a locked set-up: what is in it, from where, under which licences."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from ..manifests.findings import registry as codes
from ..manifests.findings.errors import AdapterdockError
from ..manifests.findings.finding import Finding, Where
from ..manifests.language.source import Source
from ..manifests.lockfile import Lock, LockedAdapter, LockedBase, LockedFile
from ..manifests.manifest import ManifestFile
from .access.access import Access, open_adapter_folder, open_base_folder
from .access.published import PublishedFolder
from .access.session import session_for
from .licences import licence_beside, together
from .locks.inputs import recipe
from .locks.project import ManifestSource, lock_of, open_manifest
from .locks.state import require_lock
from .pull import require_policy
from .sources.folder import Folder

BASE = "base"
_IN_CARD = "`license` in the metadata of its README.md"
_ANYWHERE = f"`licence` in the manifest or the registry, or {_IN_CARD}"


@dataclass(frozen=True)
class Material:
    """The base, an adapter or a composition.

    Attributes:
        kind: Which of them.
        name: In the manifest; the base's is its source.
        source: Where it is, at a revision if its kind of source has one.
        digest: ``sha256:HEX`` of the whole, as in the lock.
        files: By path.
        licence: ``None`` if it is unknown.
        uses: Names of materials that it needs (``base`` for the base).
        about: What else is known, by name.
    """

    kind: Literal["base", "adapter", "composition"]
    name: str
    source: Source | None = None
    revision: str | None = None
    digest: str | None = None
    files: Mapping[str, LockedFile] = field(default_factory=dict)
    licence: str | None = None
    description: str | None = None
    owner: str | None = None
    tags: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        """Its name in the bill, which no other material has."""
        return BASE if self.kind == "base" else f"{self.kind}:{self.name}"


@dataclass(frozen=True)
class Bill:
    """The bill of a manifest. ``findings`` are warnings about licences."""

    name: str | None
    description: str | None
    materials: tuple[Material, ...]
    findings: tuple[Finding, ...] = ()


def bill(
    manifest: ManifestSource,
    *,
    policy: str | os.PathLike[str] | None = None,
    offline: bool = False,
) -> Bill:
    """The bill of a manifest and its lock.

    A licence is what the manifest says, else the entry in a registry, else the model card beside
    the files. No weights are read.

    Args:
        manifest: The manifest's path.
        policy: A policy file that must allow the sources too.
        offline: Use no network: licences that need it are unknown.

    Raises:
        ManifestError: The manifest or the policy file is invalid.
        LockError: The lock is missing or stale, or does not pin everything.
        PolicyError: A policy forbids a source.
    """
    file = open_manifest(manifest)
    access = session_for(file, policy=policy, offline=offline).access
    lock = lock_of(file)
    require_lock(file, lock, frozen=True)
    assert lock is not None
    require_policy(file, lock, access)
    return bill_of(file, lock, licence_reader(file, lock, access))


AskLicence = Callable[[str | None], str | None]
"""``ask(name)``: the licence of an adapter, or of the base (``None``); raises
:class:`AdapterdockError` where its card cannot be read."""


def bill_of(file: ManifestFile, lock: Lock, ask: AskLicence) -> Bill:
    """The bill of what ``lock`` pins; ``ask`` is asked for licences that the manifest does not
    have."""
    findings: list[Finding] = []
    materials: list[Material] = []
    if lock.base is not None:
        where = file.where(("base", "model"))
        licence = _licence("the base", partial(ask, None), findings, where, _IN_CARD)
        materials.append(base_material(lock.base, licence))
    for name in sorted(lock.adapters):
        locked, declared = lock.adapters[name], file.manifest.adapters[name]
        where = file.where(("adapters", name))
        licence = declared.licence
        if licence is None and locked.files:
            whose = f"adapter {name!r}"
            licence = _licence(whose, partial(ask, name), findings, where, _ANYWHERE)
        made = adapter_material(name, locked, licence, based=lock.base is not None)
        more = replace(
            made, description=declared.description, owner=declared.owner, tags=declared.tags
        )
        materials.append(more)
        if lock.base is not None and (told := together(materials[0].licence, licence)):
            findings.append(
                codes.LICENCES_TOGETHER.finding(
                    f"Adapter {name!r} and the base: {told}",
                    where,
                    found=f"{licence} on {materials[0].licence}",
                )
            )
    for name in sorted(lock.compositions):
        materials.append(_composition(file, lock, name))
    about = file.manifest
    return Bill(about.name, about.description, tuple(materials), tuple(findings))


def base_material(locked: LockedBase, licence: str | None) -> Material:
    """The base of a lock."""
    source = Source.parse(locked.source)
    fingerprint = locked.fingerprint
    levels = {} if fingerprint is None else fingerprint.model_dump(mode="json", exclude_none=True)
    return Material(
        kind="base",
        name=source.location if source.is_hub else locked.declared,
        source=source,
        revision=locked.revision,
        files=locked.files,
        licence=licence,
        about=dict(_flat("fingerprint", levels)),
    )


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}:{key}", inner)
    else:
        yield name, str(value)


def adapter_material(
    name: str, locked: LockedAdapter, licence: str | None, *, based: bool
) -> Material:
    """An adapter of a lock. One that is created from its config has no source and no files."""
    about = {
        "method": locked.method,
        "rank": str(locked.rank),
        "targets": ", ".join(locked.targets),
        "seed": "" if locked.seed is None else str(locked.seed),
    }
    if (pin := locked.registry) is not None:
        about |= {"registry": pin.id, "version": pin.version, "entry": pin.entry}
    return Material(
        kind="adapter",
        name=name,
        source=Source.parse(locked.source) if locked.files else None,
        revision=locked.revision,
        digest=locked.digest,
        files=locked.files,
        licence=licence,
        uses=(BASE,) if based else (),
        about={key: value for key, value in about.items() if value},
    )


def _composition(file: ManifestFile, lock: Lock, name: str) -> Material:
    composition = file.manifest.compositions[name]
    options = recipe(composition, None)
    weights = options.pop("of")
    about = {**{key: str(value) for key, value in options.items()}}
    about |= {f"weight:{member}": str(weight) for member, weight in sorted(weights.items())}
    compositions = file.manifest.compositions
    uses = [
        f"composition:{member}" if member in compositions else f"adapter:{member}"
        for member in sorted(composition.of)
    ]
    digest = lock.compositions[name].digest
    return Material("composition", name, digest=digest, uses=tuple(uses), about=about)


def _licence(
    whose: str,
    ask: Callable[[], str | None],
    findings: list[Finding],
    where: Where,
    expected: str,
) -> str | None:
    """A licence, with a finding where it is unknown."""
    reason = None
    try:
        licence = ask()
    except AdapterdockError as error:
        licence, reason = None, error.findings[0].message
    if licence is None:
        findings.append(
            codes.LICENCE_UNKNOWN.finding(
                f"The licence of {whose} is unknown",
                where,
                found=reason or "no licence in its model card",
                expected=expected,
            )
        )
    return licence


def licence_reader(file: ManifestFile, lock: Lock, access: Access) -> AskLicence:
    """Reads licences from the model cards beside the files that ``lock`` pins."""
    pinned = _at_revisions(file, lock)

    def ask(name: str | None) -> str | None:
        if name is None:
            folder = open_base_folder(pinned, access)
        elif lock.adapters[name].registry is not None:  # its entry is pinned
            folder = open_adapter_folder(file, name, access.under(lock, (name,)))
        else:
            folder = open_adapter_folder(pinned, name, access)
        return None if folder is None else _in_folder(folder)

    return ask


def _in_folder(folder: Folder) -> str | None:
    """What the entry of a registry says, else the model card."""
    if isinstance(folder, PublishedFolder) and folder.resolved.entry.licence is not None:
        return folder.resolved.entry.licence
    return licence_beside(folder)


def _at_revisions(file: ManifestFile, lock: Lock) -> ManifestFile:
    """The manifest with each source at the revision of the lock: a card is none of the pinned
    files, so they cannot pin it."""
    base = file.manifest.base
    if lock.base is not None:
        base = base.model_copy(update={"model": Source.parse(lock.base.source)})
    adapters = {
        name: declared.model_copy(update={"source": Source.parse(lock.adapters[name].source)})
        if lock.adapters[name].files
        else declared
        for name, declared in file.manifest.adapters.items()
    }
    manifest = file.manifest.model_copy(update={"base": base, "adapters": adapters})
    return replace(file, manifest=manifest)
