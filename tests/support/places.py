"""Where a registry can lie: every backend that promises the same.

A test that asks for ``place`` runs once for each of them::

    def test_x(place):
        catalogue = place.init()
        publish(catalogue, ...)
        assert place.open().listing("refunds").versions
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from adapterdock.registry.catalogue.catalogue import Catalogue, open_catalogue
from adapterdock.registry.catalogue.init import init_registry
from adapterdock.registry.catalogue.open_storage import open_storage
from adapterdock.registry.storages.layout import PROBE
from adapterdock.registry.storages.storage import Storage

AZURE = pytest.param("azure", marks=pytest.mark.registries)
KINDS = ("links", "renames", "s3", AZURE)
"""``links`` is a local folder, ``renames`` one on a disk without hard links."""
_WHOLE = 64 << 20


@dataclass(frozen=True)
class Place:
    """A folder of its own on one backend."""

    kind: str
    url: str
    directory: Path

    def storage(self) -> Storage:
        """Opened anew, as another process would."""
        return open_storage(self.url, directory=self.directory)

    def init(self, title: str | None = None) -> Catalogue:
        """A new registry."""
        init_registry(self.storage(), title, local=self.kind in ("links", "renames"))
        return self.open()

    def open(self) -> Catalogue:
        return open_catalogue(self.storage())

    def files(self) -> Mapping[str, bytes]:
        """All that is there, but what proves that a file is created once."""
        storage = self.storage()
        paths = (path for path in storage.find("") if path != PROBE)
        return {path: storage.read(path, _WHOLE) for path in paths}

    def replace(self, path: str, content: bytes) -> None:
        """What no client does, but whoever can write to the folder."""
        storage = self.storage()
        storage.remove(path)
        storage.create(path, content)


def place_of(request: pytest.FixtureRequest, kind: str) -> Place:
    """A new and empty place of one kind."""
    tmp_path: Path = request.getfixturevalue("tmp_path")
    folder = f"registry-{secrets.token_hex(4)}"
    if kind == "s3":
        return Place(kind, f"s3://{request.getfixturevalue('s3').shared}/{folder}", tmp_path)
    if kind == "azure":
        return Place(kind, f"az://{request.getfixturevalue('azure').shared}/{folder}", tmp_path)
    if kind == "renames":

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        request.getfixturevalue("monkeypatch").setattr(os, "link", refuse)
    return Place(kind, str(tmp_path / folder), tmp_path)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Place:
    """An empty place on each backend in turn."""
    return place_of(request, request.param)
