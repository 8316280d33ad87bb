"""`registry renumber`: two branches of a git checkout that used the same numbers."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from adapterdock.manifests.findings.errors import AdapterdockError, IntegrityError
from adapterdock.manifests.language.selector import Selector, parse_selector
from adapterdock.registry.catalogue.catalogue import Catalogue, open_catalogue
from adapterdock.registry.catalogue.promote import history, mark, promote
from adapterdock.registry.catalogue.renumber_checkout import renumber_checkout
from adapterdock.registry.catalogue.rules import Gate, Rules
from adapterdock.registry.catalogue.rules_series import set_rules
from adapterdock.registry.catalogue.sign import sign_selected
from adapterdock.registry.catalogue.verify import verify_registry
from adapterdock.registry.signatures.signer import new_pair, open_signer
from adapterdock.registry.storages.local_storage import LocalStorage
from support.published import publish, registry


def selector(text: str) -> Selector:
    found = parse_selector(text)
    assert found is not None
    return found


class Checkout(SimpleNamespace):
    """A git repository with a registry in a folder."""

    folder: Path
    files: Path

    def git(self, *arguments: str, ok: bool = True) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.folder), *arguments], capture_output=True, text=True, check=False
        )
        assert not ok or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def team(self) -> Catalogue:
        return open_catalogue(LocalStorage(self.folder / "registry"))

    def commit(self, text: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", text)

    def errors(self) -> list[str]:
        found = verify_registry(self.team, patience=0, workers=2, complete=False)
        return [finding.code for finding in found.findings]

    def prod(self) -> list[str | None]:
        return [value.version for value in history(self.team, "refunds", "prod")]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """A published registry, and two branches: ``main`` promotes 1.1.0 twice and yanks 1.0.0, and
    ``other`` publishes and promotes 1.2.0 and deprecates 1.0.0."""
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "ada")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "ada@example.com")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "nothing"))
    work = Checkout(folder=tmp_path / "work", files=tmp_path / "files")
    work.folder.mkdir()
    work.git("init", "-q", "-b", "main")
    team = registry(work.folder / "registry")
    for version in ("1.0.0", "1.1.0"):
        publish(team, work.files, version)
    promote(team, "refunds", "1.0.0", "prod", by="ada")
    work.commit("start")
    work.git("checkout", "-q", "-b", "other")
    publish(work.team, work.files, "1.2.0")
    promote(work.team, "refunds", "1.2.0", "prod", by="bo")
    mark(work.team, "refunds", "1.0.0", "deprecate", why="old")
    work.commit("other")
    work.git("checkout", "-q", "main")
    promote(work.team, "refunds", "1.1.0", "prod", by="ada")
    promote(work.team, "refunds", "1.0.0", "prod", by="ada")
    mark(work.team, "refunds", "1.0.0", "yank", why="wrong")
    work.commit("main")
    return work


def test_a_conflict_is_renumbered_and_nothing_is_lost(work: Checkout) -> None:
    work.git("merge", "other", ok=False)
    assert "AD863" in work.errors()
    done = renumber_checkout(work.team)
    assert done.winner == "ours"
    assert work.errors() == []
    assert work.prod() == ["1.0.0", "1.1.0", "1.0.0", "1.2.0"]
    found = work.team.mark(work.team.listing("refunds"), "1.0.0")
    assert found is not None
    assert (found.yanked, found.deprecated) == (True, True)
    assert len(work.team.storage.find("journal")) == 3 + 3 + 3
    work.git("commit", "-q", "-m", "merged")
    assert work.git("status", "--porcelain") == ""
    again = renumber_checkout(work.team)
    assert again.changed == ()
    assert work.git("status", "--porcelain") == ""


def test_the_other_side_can_stay(work: Checkout) -> None:
    work.git("merge", "other", ok=False)
    renumber_checkout(work.team, "theirs")
    assert work.errors() == []
    assert work.prod() == ["1.0.0", "1.2.0", "1.1.0", "1.0.0"]


def test_what_is_pushed_stays(work: Checkout, tmp_path: Path) -> None:
    work.git("init", "-q", "--bare", str(tmp_path / "server"))
    work.git("remote", "add", "origin", str(tmp_path / "server"))
    work.git("push", "-q", "origin", "other:main")
    work.git("fetch", "-q", "origin")
    work.git("branch", "-q", "--set-upstream-to=origin/main", "main")
    work.git("pull", "-q", "--no-rebase", ok=False)
    assert renumber_checkout(work.team).winner == "theirs"
    assert work.prod()[1] == "1.2.0"
    work.commit("merged")
    work.git("push", "-q", "origin", "main")


def test_a_merge_that_dropped_one_side_is_seen_and_repaired(work: Checkout) -> None:
    work.git("merge", "-q", "-X", "ours", "other", "-m", "merged")
    assert work.git("status", "--porcelain") == ""
    assert work.errors()
    renumber_checkout(work.team)
    assert work.errors() == []
    assert work.prod() == ["1.0.0", "1.1.0", "1.0.0", "1.2.0"]


def test_a_rebase_of_several_commits_appends_each_once(work: Checkout) -> None:
    work.git("checkout", "-q", "other")
    promote(work.team, "refunds", "1.0.0", "prod", by="bo")
    work.commit("more")
    work.git("rebase", "-q", "main", ok=False)
    for _ in range(5):
        if not (work.folder / ".git/rebase-merge").exists():
            break
        renumber_checkout(work.team)
        work.git("-c", "core.editor=true", "rebase", "--continue", ok=False)
    assert work.errors() == []
    assert work.prod() == ["1.0.0", "1.1.0", "1.0.0", "1.2.0", "1.0.0"]
    assert work.git("status", "--porcelain") == ""


def test_a_clean_merge_needs_nothing(work: Checkout) -> None:
    work.git("checkout", "-q", "-b", "later", "main")
    promote(work.team, "refunds", "1.1.0", "prod")
    work.commit("later")
    work.git("checkout", "-q", "main")
    work.git("merge", "-q", "--no-ff", "later", "-m", "merged")
    assert renumber_checkout(work.team).changed == ()
    assert work.errors() == []


def test_one_version_with_two_contents_is_named_and_nothing_changes(work: Checkout) -> None:
    work.git("checkout", "-q", "other")
    publish(work.team, work.files, "2.0.0", licence="MIT")
    work.commit("two")
    work.git("checkout", "-q", "main")
    publish(work.team, work.files, "2.0.0", licence="Apache-2.0")
    work.commit("two")
    work.git("merge", "other", ok=False)
    before = work.git("status", "--porcelain")
    with pytest.raises(IntegrityError) as caught:
        renumber_checkout(work.team)
    assert caught.value.code == "AD864"
    assert "versions/2.0.0.json" in str(caught.value)
    assert work.git("status", "--porcelain") == before


def test_one_version_with_one_content_and_two_times_is_one(work: Checkout) -> None:
    for branch, year in (("other", 2026), ("main", 2027)):
        work.git("checkout", "-q", branch)
        publish(work.team, work.files, "2.0.0", created=f"{year}-01-01T00:00:00Z")
        promote(work.team, "refunds", "2.0.0", "beta", by=branch)
        work.commit("two")
    work.git("merge", "other", ok=False)
    renumber_checkout(work.team)
    assert work.errors() == []
    assert work.team.entry("refunds", "2.0.0").entry.created.startswith("2027")


def test_signatures_of_renumbered_values_are_removed_and_named(work: Checkout) -> None:
    folder = "adapters/refunds/signatures/aliases/prod/00000002"
    name = f"{folder}/{'0' * 64}.json"
    work.git("checkout", "-q", "other")
    work.team.storage.create(name, b"{}")
    work.commit("signed")
    work.git("checkout", "-q", "main")
    work.git("merge", "other", ok=False)
    done = renumber_checkout(work.team)
    (finding,) = done.findings
    assert finding.code == "AD884"
    assert name in finding.message
    assert not (work.folder / "registry" / name).exists()
    work.git("commit", "-q", "-m", "merged")
    assert work.git("status", "--porcelain") == ""


@pytest.mark.parametrize("where", ["no checkout", "no merge"])
def test_without_a_merge_it_says_so(work: Checkout, tmp_path: Path, where: str) -> None:
    team = work.team if where == "no merge" else registry(tmp_path / "elsewhere")
    with pytest.raises(AdapterdockError) as caught:
        renumber_checkout(team)
    assert caught.value.code == "AD865"


def test_signed_values_and_rules_that_need_signatures(work: Checkout, tmp_path: Path) -> None:
    """The other branch signs its promotion, and both branches set rules."""
    new_pair(tmp_path / "key")
    signer = open_signer(str(tmp_path / "key"))
    key = (tmp_path / "key.pub").read_text()
    for branch in ("other", "main"):
        work.git("checkout", "-q", branch)
        promote(work.team, "refunds", "1.0.0", "beta", by=branch, signer=signer)
        set_rules(work.team, Rules(keys=(key,)), signer=signer)
        gated = Rules(keys=(key,), aliases={branch: Gate(licences=("MIT",))})
        set_rules(work.team, gated, signer=signer)
        sign_selected(work.team, "refunds", selector("beta"), signer)
        work.commit("signed")
    work.git("merge", "other", ok=False)
    done = renumber_checkout(work.team)
    assert {finding.code for finding in done.findings} == {"AD884", "AD858"}
    assert any("rules/00000002.json" in finding.message for finding in done.findings)
    assert work.errors() == []
    work.git("commit", "-q", "-m", "merged")
    assert [value.by for value in history(work.team, "refunds", "beta")] == ["main", "other"]
