"""A registry with two versions of one adapter, of which one is in production."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from adapterdock.registry.catalogue.catalogue import Catalogue  # noqa: E402
from adapterdock.registry.catalogue.promote import promote  # noqa: E402
from adapterdock.registry.publishing import publish  # noqa: E402
from support.published import registry  # noqa: E402

NAME = "voice"
SOURCE = f"registry://team/{NAME}@prod"
QUICKSTART = ROOT / "manifests" / "quickstart"
BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
VERSIONS = {"1.0.0": QUICKSTART / "pirate", "2.0.0": QUICKSTART / "devil"}
"""They begin their answers with different words."""


class Promoted:
    """The registry, in ``folder``; its first version is in production."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.registries = {"team": str(folder / "registry")}
        self.now = ""
        self._catalogue: Catalogue = registry(folder / "registry")
        manifest = folder / "publish.yaml"
        declared = {"model": str(base), "aliases": [BASE_NAME]}
        data = {"version": 1, "base": declared, "registries": self.registries}
        manifest.write_text(yaml.safe_dump(data))
        for version, adapter in VERSIONS.items():
            publish(adapter, f"team/{NAME}@{version}", manifest=manifest, new_name=True)
        self.promote()

    def promote(self) -> None:
        """Promote the version that is not in production."""
        self.now = next(version for version in VERSIONS if version != self.now)
        assert promote(self._catalogue, NAME, self.now, "prod") is not None
