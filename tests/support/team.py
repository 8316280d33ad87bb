"""A project whose adapter is in a registry."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import adapterdock
import pytest
from adapterdock.manifests.findings.errors import AdapterdockError
from adapterdock.registry.catalogue.catalogue import Catalogue
from adapterdock.registry.catalogue.promote import mark, promote
from adapterdock.registry.publishing import publish
from adapterdock.registry.records.marks import Action

from .project import NAME as BASE
from .project import Project
from .published import registry

NAME = "refunds"


class Team:
    """A project whose only adapter is in its registry, as ``team/refunds``."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.place = project.folder / "registry"
        self.url = "./registry"
        self.catalogue: Catalogue = registry(self.place)
        project.base()
        self.use("^1.0")

    def use(self, selector: str, **sections: Any) -> None:
        tables: dict[str, Any] = {"registries": {"team": "./registry"}, **sections}
        self.project.write({"tone": f"registry://team/{NAME}@{selector}"}, **tables)

    def publish(self, version: str, rank: int = 8, name: str = NAME) -> str:
        """Publish a version; the digest of its entry."""
        folder = self.project.adapter(f"v{version}", seed=_seed(version), r=rank)
        manifest = self.project.folder / "publish.yaml"
        manifest.write_text(
            f"version: 1\nbase: {{model: ./base, aliases: [{BASE}]}}\n"
            "registries: {team: ./registry}\n"
        )
        done = publish(folder, f"team/{name}@{version}", manifest=manifest, new_name=True)
        shutil.rmtree(folder)
        return done.resolved.digest if done else ""

    def promote(self, version: str, alias: str = "prod") -> None:
        assert promote(self.catalogue, NAME, version, alias) is not None

    def mark(self, version: str, action: Action, why: str | None = None) -> None:
        assert mark(self.catalogue, NAME, version, action, why=why) is not None

    def lock(self, **options: Any) -> Any:
        return adapterdock.lock(self.project.manifest, **options).adapters["tone"]

    def refused(self, act: Callable[[], Any], kind: type[AdapterdockError]) -> Any:
        with pytest.raises(kind) as caught:
            act()
        return caught.value.findings[0]


def in_production(project: Project) -> Team:
    """Version 1.0.0 of two is in production, and locked."""
    team = Team(project)
    team.publish("1.0.0")
    team.publish("2.0.0")
    team.promote("1.0.0")
    team.use("prod")
    team.lock()
    return team


def _seed(version: str) -> int:
    """Other weights for each version."""
    return sum(version.encode())
