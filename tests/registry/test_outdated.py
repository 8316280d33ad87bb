"""What is newer than a lock: versions, aliases, and branches of the Hub."""

from __future__ import annotations

from typing import Any

import adapterdock
import pytest
from adapterdock.manifests.findings.errors import LockError
from adapterdock.registry.outdated import Outdated, Standing, outdated
from support.hub_server import HubServer
from support.project import Project, codes
from support.shelf import files_of
from support.team import Team


@pytest.fixture
def team(project: Project) -> Team:
    made = Team(project)
    made.publish("1.0.0")
    return made


def compared(team: Team, **options: Any) -> Standing:
    (standing,) = outdated(team.project.manifest, **options).standings
    return standing


def test_nothing_is_newer_than_what_was_locked_now(team: Team) -> None:
    team.lock()
    assert compared(team) == Standing(
        "tone", "registry://team/refunds@^1.0", "1.0.0", "1.0.0", "1.0.0"
    )
    assert not outdated(team.project.manifest).any


def test_newer_versions_in_the_range_and_at_all_are_told_apart(team: Team) -> None:
    team.lock()
    team.publish("2.0.0")
    found = compared(team)
    assert (found.locked, found.selected, found.newest) == ("1.0.0", "1.0.0", "2.0.0")
    assert found.outdated
    team.publish("1.1.0")
    assert compared(team).selected == "1.1.0"


def test_yanked_versions_and_prereleases_are_not_newer(team: Team) -> None:
    team.lock()
    team.publish("2.0.0-rc.1")
    team.publish("1.1.0")
    team.mark("1.1.0", "yank")
    assert not compared(team).outdated
    team.use("2.0.0-rc.1")
    team.lock()
    team.publish("2.0.0-rc.2")
    assert compared(team).newest == "2.0.0-rc.2"


def test_an_alias_that_moved_is_newer_even_where_it_moved_down(team: Team) -> None:
    team.publish("1.1.0")
    team.promote("1.1.0")
    team.use("prod")
    team.lock()
    assert not compared(team).outdated
    team.promote("1.0.0")
    found = compared(team)
    assert (found.selected, found.alias, found.outdated) == ("1.0.0", "prod 1 -> 2", True)


def test_a_source_that_selects_nothing_any_more_is_shown(team: Team) -> None:
    team.lock()
    team.mark("1.0.0", "yank")
    found = compared(team)
    assert (found.selected, found.newest, found.outdated) == (None, None, False)


def test_a_branch_of_the_hub_that_moved_is_newer(project: Project, hub: HubServer) -> None:
    project.base()
    project.adapter("tone")
    first = hub.commit("acme/tone", files_of(project.folder / "tone"))
    project.write({"tone": "hf://acme/tone", "fixed": f"hf://acme/tone@{first}", "here": "./tone"})
    adapterdock.lock(project.manifest)
    assert not outdated(project.manifest).any
    project.adapter("tone", seed=1)
    second = hub.commit("acme/tone", files_of(project.folder / "tone"))
    (found,) = outdated(project.manifest).standings
    assert (found.adapter, found.locked, found.selected) == ("tone", first, second)
    assert found.outdated


def test_a_registry_that_cannot_be_read_does_not_hide_the_others(team: Team) -> None:
    other: dict[str, Any] = {"registries": {"team": "./registry", "gone": "./gone"}}
    team.lock()
    text = team.project.lock_file.read_text()
    source = "registry://team/refunds@1.0.0"
    team.project.write({"tone": "registry://team/refunds@^1.0", "same": source}, **other)
    adapterdock.lock(team.project.manifest)
    assert text != team.project.lock_file.read_text()
    text = team.project.manifest.read_text()
    lock = team.project.lock_file.read_text()
    gone = "registry://gone/refunds@1.0.0"
    team.project.manifest.write_text(text.replace(source, gone))
    team.project.lock_file.write_text(lock.replace(source, gone))
    found: Outdated = outdated(team.project.manifest)
    assert [one.adapter for one in found.standings] == ["tone"]
    assert codes(found.findings) == ["AD860"]


def test_without_a_lock_there_is_nothing_to_compare(team: Team) -> None:
    with pytest.raises(LockError) as caught:
        outdated(team.project.manifest)
    assert caught.value.code == "AD504"
