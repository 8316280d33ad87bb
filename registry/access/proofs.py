"""Signatures that were verified, kept beside the files of the cache.

A lock does not replace a signature, and a cache is used without a network. So what was read of a
registry to verify an entry is kept, under the same paths; it is verified again each time. Nothing
here is trusted: without a valid signature of a trusted key it proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...manifests.findings.errors import AdapterdockError
from ..catalogue.catalogue import Catalogue, Resolved
from ..storages.layout import entry_file
from ..storages.local_storage import LocalStorage
from ..storages.storage import Storage

if TYPE_CHECKING:
    from ..store.store import Store

FOLDER = "registries"


class Keeping:
    """A storage whose files are kept in another one as they are read."""

    def __init__(self, inner: Storage, kept: Storage) -> None:
        self._inner = inner
        self._kept = kept

    @property
    def url(self) -> str:
        return self._inner.url

    @property
    def creates(self) -> bool:
        return self._inner.creates

    @property
    def lists(self) -> bool:
        return self._inner.lists

    def read(self, path: str, limit: int) -> bytes:
        raw = self._inner.read(path, limit)
        if len(raw) < limit:
            keep(self._kept, path, raw)
        return raw

    def find(self, folder: str) -> Mapping[str, int]:
        return self._inner.find(folder)

    def create(self, path: str, content: bytes | Path) -> None:
        self._inner.create(path, content)

    def remove(self, path: str) -> None:
        self._inner.remove(path)


def keep(kept: Storage, path: str, raw: bytes) -> None:
    """Keep a file in place of what was kept of it before; a cache that cannot be written keeps
    nothing."""
    with suppress(AdapterdockError, FileNotFoundError, FileExistsError):
        try:
            kept.create(path, raw)
        except FileExistsError:
            if kept.read(path, len(raw) + 1) != raw:
                kept.remove(path)
                kept.create(path, raw)


def keeping(catalogue: Catalogue, resolved: Resolved, store: Store) -> Catalogue:
    """The registry, of which is kept what is read from now on, and this entry."""
    kept = kept_storage(catalogue.id, store)
    entry = resolved.entry
    keep(kept, entry_file(entry.name, entry.version), resolved.raw)
    return replace(catalogue, storage=Keeping(catalogue.storage, kept))


def kept_storage(id_: str, store: Store) -> Storage:
    """What is kept of the registry with this id. Raises ``ValueError`` for an id that is none."""
    if not id_.isalnum():
        raise ValueError(id_)
    return LocalStorage(store.root / FOLDER / id_)
