"""Manifests written into a folder and read back, and the findings that they earn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import ManifestError
from adapterdock.manifests.findings.finding import Finding
from adapterdock.manifests.manifest import ManifestFile, read_manifest

HEADER = "version: 1\n"
DIGEST = "sha256:" + "0" * 64


class Desk:
    """A folder for manifests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, text: str | bytes, name: str = "adapters.yaml") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def read(
        self, text: str | bytes, environ: Mapping[str, str] | None = None, **overrides: str
    ) -> ManifestFile:
        return read_manifest(self.write(text), environ=environ or {}, **overrides)

    def findings(
        self, text: str | bytes, environ: Mapping[str, str] | None = None, **overrides: str
    ) -> tuple[Finding, ...]:
        with pytest.raises(ManifestError) as caught:
            self.read(text, environ, **overrides)
        return caught.value.findings


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)
