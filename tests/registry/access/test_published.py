"""Adapters of a registry, in a manifest: resolved, locked, and refused where history changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import adapterdock
import pytest
from adapterdock.manifests.findings.errors import (
    IntegrityError,
    LockError,
    OfflineError,
    SourceError,
)
from adapterdock.manifests.language.source import Source
from adapterdock.registry.access.open_registries import OpenRegistries
from adapterdock.registry.access.opening import Opening
from adapterdock.registry.access.published import open_registry_of
from adapterdock.registry.catalogue.promote import demote
from adapterdock.registry.storages.local_storage import LocalStorage
from adapterdock.registry.store.store import Store
from support.project import Project, codes, swap_bytes
from support.published import registry
from support.team import NAME, Team


@pytest.fixture
def team(project: Project) -> Team:
    made = Team(project)
    made.publish("1.0.0")
    return made


def test_a_manifest_is_validated_locked_and_pulled_from_a_registry(team: Team) -> None:
    digest = team.publish("1.1.0", rank=4)
    report = adapterdock.validate(team.project.manifest)
    assert codes(report.findings) == []
    assert report.adapters["tone"]["source"] == "registry://team/refunds@1.1.0"
    assert report.adapters["tone"]["rank"] == 4
    locked = team.lock()
    assert (locked.source, locked.revision) == ("registry://team/refunds@1.1.0", "1.1.0")
    assert (locked.registry.id, locked.registry.version) == (team.catalogue.id, "1.1.0")
    assert locked.registry.entry == digest
    assert locked.registry.journal.serial == 2
    assert locked.registry.alias is None
    pulled = adapterdock.pull(team.project.manifest)
    assert set(pulled.adapters["tone"]) == {"adapter_config.json", "adapter_model.safetensors"}
    paths = [fetched.path for fetched in pulled.adapters["tone"].values()]
    assert all(path.is_relative_to(Store.default().root) for path in paths)


@pytest.mark.parametrize("selector", ["1.0.0", "~1.0", ">=1,<2", "prod", "digest"])
def test_every_kind_of_selector_is_locked_to_a_version(team: Team, selector: str) -> None:
    if selector == "digest":
        selector = team.catalogue.entry(NAME, "1.0.0").digest
    team.publish("2.0.0")
    team.promote("1.0.0")
    team.use(selector)
    locked = team.lock()
    assert locked.source == "registry://team/refunds@1.0.0"
    assert (locked.registry.alias is not None) == (selector == "prod")


def test_the_lock_keeps_what_it_pins_until_it_is_upgraded(team: Team) -> None:
    before = team.lock()
    text = team.project.lock_file.read_text()
    team.publish("1.1.0")
    assert team.lock() == before
    assert team.project.lock_file.read_text() == text
    assert team.lock(upgrade=["tone"]).registry.version == "1.1.0"
    team.publish("1.2.0")
    assert team.lock(upgrade_all=True).registry.version == "1.2.0"


def test_another_url_with_the_same_registry_keeps_the_lock_current(team: Team) -> None:
    team.lock()
    shutil.copytree(team.place, team.project.folder / "mirror")
    shutil.rmtree(team.place)
    team.use("^1.0", registries={"team": "./mirror"})
    text = team.project.lock_file.read_text()
    assert adapterdock.validate(team.project.manifest, frozen=True).ok
    team.lock()
    assert team.project.lock_file.read_text() == text


def test_from_manifest_and_lock_alone_a_mirror_gives_the_same_bytes(
    team: Team, tmp_path: Path
) -> None:
    team.lock()
    first = adapterdock.pull(team.project.manifest).adapters["tone"]
    contents = {path: fetched.path.read_bytes() for path, fetched in first.items()}
    home = tmp_path / "elsewhere"
    home.mkdir()
    for path in (team.project.manifest, team.project.lock_file):
        shutil.copy(path, home)
    shutil.copy(team.project.folder / "adapters.lock.samples", home)
    shutil.copytree(team.project.folder / "base", home / "base")
    shutil.copytree(team.place, home / "registry")
    shutil.rmtree(team.place)
    store = Store(home / "cache")
    again = adapterdock.pull(home / "adapters.yaml", store=store, frozen=True, offline=True)
    found = again.adapters["tone"]
    assert {path: fetched.path.read_bytes() for path, fetched in found.items()} == contents
    assert (
        again.lock.adapters["tone"].digest
        == adapterdock.lock(home / "adapters.yaml").adapters["tone"].digest
    )


def test_what_is_in_the_store_needs_no_registry(team: Team) -> None:
    team.lock()
    shutil.rmtree(team.place)
    pulled = adapterdock.pull(team.project.manifest, frozen=True, offline=True)
    assert set(pulled.adapters["tone"]) == {"adapter_config.json", "adapter_model.safetensors"}
    assert team.lock(offline=True).registry.version == "1.0.0"


def test_a_registry_with_another_id_under_the_url_is_refused(team: Team) -> None:
    team.lock()
    shutil.rmtree(team.place)
    team.catalogue = registry(team.place)
    team.publish("1.0.0")
    for options in ({}, {"upgrade": ["tone"]}):
        finding = team.refused(lambda options=options: team.lock(**options), IntegrityError)
        assert finding.code == "AD895"
        assert "Another registry is at" in finding.message
        assert finding.found == team.catalogue.id


def test_an_entry_whose_bytes_differ_is_refused(team: Team) -> None:
    team.lock()
    path = team.place / "adapters/refunds/versions/1.0.0.json"
    path.write_bytes(path.read_bytes().replace(b'"created":"2', b'"created":"3'))
    finding = team.refused(team.lock, IntegrityError)
    assert (finding.code, finding.message) == (
        "AD862",
        "The entry of refunds@1.0.0 has another digest",
    )
    finding = team.refused(lambda: team.lock(upgrade=["tone"]), IntegrityError)
    assert finding.message == "refunds@1.0.0 has other bytes than when it was locked"


def test_an_alias_that_went_back_is_refused(team: Team) -> None:
    team.publish("1.1.0")
    team.promote("1.0.0")
    team.promote("1.1.0")
    team.use("prod")
    assert team.lock().registry.alias.serial == 2
    values = team.place / "adapters/refunds/aliases/prod"
    newest = values / "00000002.json"
    newest.unlink()
    for options in ({}, {"upgrade": ["tone"]}):
        finding = team.refused(lambda options=options: team.lock(**options), IntegrityError)
        assert finding.message == "adapters/refunds/aliases/prod went back"


def test_an_alias_whose_value_was_replaced_is_refused(team: Team) -> None:
    team.publish("1.1.0")
    team.promote("1.0.0")
    team.promote("1.1.0")
    team.use("prod")
    team.lock()
    (team.place / "adapters/refunds/aliases/prod/00000002.json").unlink()
    assert demote(team.catalogue, NAME, "prod") is not None
    for options in ({}, {"upgrade": ["tone"]}):
        finding = team.refused(lambda options=options: team.lock(**options), IntegrityError)
        assert "has another value 2 than the one that was seen before" in finding.message


def test_a_journal_that_went_back_is_refused(team: Team) -> None:
    team.publish("1.1.0")
    team.lock()
    (team.place / "journal/00000002.json").unlink()
    assert team.refused(team.lock, IntegrityError).message == "journal went back"


def test_an_alias_is_followed_when_the_lock_is_upgraded(team: Team) -> None:
    team.promote("1.0.0")
    team.use("prod")
    team.lock()
    team.publish("1.1.0")
    team.promote("1.1.0")
    assert team.lock().registry.version == "1.0.0"
    moved = team.lock(upgrade=["tone"]).registry
    assert (moved.version, moved.alias.serial) == ("1.1.0", 2)


def test_yanked_versions_are_skipped_by_ranges_and_stay_locked_with_a_warning(team: Team) -> None:
    team.publish("1.1.0")
    assert team.lock().registry.version == "1.1.0"
    team.mark("1.1.0", "yank", "wrong data")
    assert team.lock().registry.version == "1.1.0"
    for report in (
        adapterdock.validate(team.project.manifest),
        adapterdock.registry.validate.check_lock(team.project.manifest),
    ):
        assert codes(report.findings) == ["AD869"]
        assert report.findings[0].message == "refunds@1.1.0 is yanked: wrong data"
        assert report.exit_status == 0
    assert team.lock(upgrade=["tone"]).registry.version == "1.0.0"
    team.mark("1.0.0", "deprecate")
    assert codes(adapterdock.validate(team.project.manifest).findings) == ["AD869"]


def test_a_pull_from_the_registry_warns_of_a_yanked_version(team: Team) -> None:
    team.lock()
    team.mark("1.0.0", "yank")
    pulled = adapterdock.pull(team.project.manifest, store=Store(team.project.folder / "empty"))
    assert codes(pulled.notes) == ["AD869"]


def test_a_registry_that_cannot_be_read_leaves_marks_unknown(team: Team) -> None:
    team.lock()
    shutil.rmtree(team.place)
    report = adapterdock.validate(team.project.manifest)
    assert codes(report.findings) == ["AD894"]
    assert report.exit_status == 0
    assert codes(adapterdock.validate(team.project.manifest, offline=True).findings) == ["AD894"]


@pytest.mark.parametrize(
    ("role", "act"),
    [("weights", adapterdock.pull), ("weights", adapterdock.lock), ("config", adapterdock.lock)],
)
def test_a_changed_content_is_never_used_nor_accepted(
    team: Team, role: str, act: Callable[..., Any]
) -> None:
    if act is adapterdock.pull:
        team.lock()
    entry = team.catalogue.entry(NAME, "1.0.0").entry
    changed = next(file for file in entry.files if file.role == role)
    swap_bytes(team.place / "blobs/sha256" / changed.sha256.removeprefix("sha256:"))
    empty = Store(team.project.folder / "empty")
    refused = lambda: act(team.project.manifest, store=empty)  # noqa: E731
    hint = team.refused(refused, IntegrityError).hint
    assert "registry verify" in hint
    assert "--upgrade" not in hint


def test_a_missing_content_is_named(team: Team) -> None:
    team.lock()
    entry = team.catalogue.entry(NAME, "1.0.0").entry
    weights = next(file for file in entry.files if file.role == "weights")
    (team.place / "blobs/sha256" / weights.sha256.removeprefix("sha256:")).unlink()
    empty = Store(team.project.folder / "empty")
    act = lambda: adapterdock.pull(team.project.manifest, store=empty)  # noqa: E731
    finding = team.refused(act, SourceError)
    assert finding.code == "AD893"
    assert "lacks adapter_model.safetensors of registry://team/refunds@^1.0" in finding.message


def test_what_is_not_there_is_found_at_the_line_of_the_manifest(team: Team) -> None:
    for version, hint in (("stable", "adapterdock promote"), ("^9", "adapterdock versions")):
        team.use(version)
        (finding,) = adapterdock.validate(team.project.manifest).findings
        assert finding.code == "AD861" and hint in str(finding.hint)
        assert finding.where.line is not None and str(team.place) in finding.message
    team.use("^1.0", registries={"team": "./nowhere"})
    (finding,) = adapterdock.validate(team.project.manifest).findings
    assert finding.code == "AD860" and finding.where.line is not None


def test_names_are_explicit_and_no_registry_stands_in_for_another(team: Team) -> None:
    other = registry(team.project.folder / "other")
    assert other.id != team.catalogue.id
    both = {"other": "./registry", "team": "./other"}
    team.use("^1.0", registries=both)
    report = adapterdock.validate(team.project.manifest)
    assert codes(report.findings) == ["AD861"]
    team.use("^1.0", registries={"other": "./registry"})
    assert codes(adapterdock.validate(team.project.manifest).findings) == ["AD177"]


def test_a_manifest_without_registries_uses_those_of_the_user(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[registries]\nteam = "{team.place}"\n')
    monkeypatch.setenv("ADAPTERDOCK_CONFIG", str(config))
    team.use("^1.0", registries={})
    assert team.lock().registry.id == team.catalogue.id
    config.write_text("")
    assert codes(adapterdock.validate(team.project.manifest).findings) == ["AD894"]
    team.project.lock_file.unlink()
    finding = adapterdock.validate(team.project.manifest).findings[0]
    assert (finding.code, finding.message) == ("AD177", "Unknown registry 'team'")


def test_a_stale_lock_says_what_of_the_source_changed(team: Team) -> None:
    team.lock()
    team.use("1.0.0")
    with pytest.raises(LockError) as caught:
        adapterdock.pull(team.project.manifest)
    assert caught.value.findings[0].found == (
        "adapters.tone.source was registry://team/refunds@^1.0, is registry://team/refunds@1.0.0"
    )


def test_a_lock_that_pins_no_entry_was_edited_and_is_made_again(team: Team) -> None:
    whole = team.lock()
    text = team.project.lock_file.read_text()
    start, end = text.index("    registry:\n"), text.index("    revision:")
    team.project.lock_file.write_text(text[:start] + text[end:])
    with pytest.raises(LockError):
        adapterdock.pull(team.project.manifest)
    assert team.lock() == whole


def test_offline_a_remote_registry_is_not_asked(team: Team) -> None:
    team.use("^1.0", registries={"team": "s3://team-registry/adapters"})
    with pytest.raises(OfflineError):
        team.lock(offline=True)


def test_a_name_is_listed_once_for_a_command_and_again_for_the_next(
    team: Team,
) -> None:
    source = Source.parse("registry://team/refunds@^1.0")
    registries = OpenRegistries()
    opening = Opening(source, None, registry=str(team.place), registries=registries)
    first = open_registry_of(opening)
    assert len(first.listing(NAME).versions) == 1
    team.publish("1.1.0")
    assert len(open_registry_of(opening).catalogue.listing(NAME).versions) == 1
    later = open_registry_of(replace(opening, registries=OpenRegistries()))
    assert len(later.catalogue.listing(NAME).versions) == 2


def test_a_registry_is_opened_and_listed_once_for_a_command(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        team.publish(f"1.{n}.5", name="other" + "abc"[n])
    read: list[str] = []
    real = LocalStorage.read

    def noted(storage: LocalStorage, path: str, limit: int) -> bytes:
        read.append(path)
        return real(storage, path, limit)

    monkeypatch.setattr(LocalStorage, "read", noted)
    sources = {f"a{n}": f"registry://team/other{'abc'[n]}@^1" for n in range(3)}
    team.project.write(sources, registries={"team": "./registry"})
    assert adapterdock.validate(team.project.manifest).ok
    assert read.count("registry.json") == 1
    assert len([path for path in read if "/versions/" in path]) == 3
    read.clear()
    adapterdock.lock(team.project.manifest)
    read.clear()
    adapterdock.lock(team.project.manifest)
    assert sorted(path for path in read if not path.startswith("adapters/")) == [
        "journal/00000004.json",
        "registry.json",
    ]
