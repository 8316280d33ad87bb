"""Creates a registry, and proves that a storage can hold one."""

from __future__ import annotations

import secrets

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import PolicyError, StoreError
from ...manifests.findings.finding import Where
from ..records.series import canonical
from ..storages.layout import IDENTITY, MIRROR
from ..storages.storage import Storage, write_once
from .catalogue import FORMAT, Catalogue

ATTRIBUTES = ".gitattributes"
_AS_IT_IS = b"* -text\n"
"""Git changes no line ends: these would change digests."""


def init_registry(storage: Storage, title: str | None = None, *, local: bool = False) -> Catalogue:
    """Create a registry in an empty folder.

    Args:
        storage: Where.
        title: What people call it.
        local: Whether it is on this machine's disk, where it may be in a git checkout.

    Raises :class:`StoreError` where there is one already, and :class:`PolicyError` where the
    storage cannot create a file exclusively.
    """
    where = Where(file=storage.url)
    require_creating(storage)
    catalogue = Catalogue(storage, secrets.token_hex(16), title)
    data = {"format": FORMAT, "id": catalogue.id, **({} if title is None else {"title": title})}
    if local:  # first: a registry that exists has it
        keep_bytes(storage)
    if not write_once(storage, IDENTITY, canonical(data)):
        raise StoreError(
            codes.EXISTS_ALREADY.finding(
                "There is a registry already", where, found=IDENTITY, hint="Use it, or another URL."
            )
        )
    return catalogue


def keep_bytes(storage: Storage) -> None:
    """Create the ``.gitattributes`` of a registry on a disk: git changes no bytes. Raises
    :class:`StoreError` where there is one that lets git change line ends."""
    if write_once(storage, ATTRIBUTES, _AS_IT_IS):
        return
    there = storage.read(ATTRIBUTES, 1 << 16)
    if _AS_IT_IS.strip() not in [line.strip() for line in there.splitlines()]:
        raise StoreError(
            codes.EXISTS_ALREADY.finding(
                f"{ATTRIBUTES} lets git change line ends",
                Where(file=storage.url),
                expected="a line `* -text`",
                hint="Add the line `* -text`, or use another folder.",
            )
        )


def require_writable(catalogue: Catalogue) -> None:
    """Raise :class:`PolicyError` for a mirror, and for a storage that cannot create files
    exclusively."""
    try:
        catalogue.storage.read(MIRROR, 1)
    except FileNotFoundError:
        require_creating(catalogue.storage)
        return
    raise PolicyError(
        codes.REGISTRY_READ_ONLY.finding("This registry is a mirror", catalogue.where, found=MIRROR)
    )


def require_creating(storage: Storage) -> None:
    """Raise :class:`PolicyError` where nothing can be created exclusively."""
    if not storage.creates:
        raise PolicyError(
            codes.REGISTRY_READ_ONLY.finding(
                "Nothing can be created in this registry", Where(file=storage.url)
            )
        )
