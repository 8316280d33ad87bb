"""`registry verify`: everything against its digests, and the journal completed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.language.selector import parse_selector
from adapterdock.registry.catalogue.catalogue import Catalogue, open_catalogue
from adapterdock.registry.catalogue.promote import demote, mark, promote
from adapterdock.registry.catalogue.rules import Rules
from adapterdock.registry.catalogue.rules_series import set_rules
from adapterdock.registry.catalogue.sign import sign_selected
from adapterdock.registry.catalogue.verify import Verified, verify_registry
from adapterdock.registry.records.journal import head, note
from adapterdock.registry.signatures.signer import new_pair, open_signer
from adapterdock.registry.storages.local_storage import LocalStorage
from support.published import Counted, publish, registry


@pytest.fixture
def team(tmp_path: Path) -> Catalogue:
    made = registry(tmp_path / "registry")
    publish(made, tmp_path / "files", "1.0.0")
    publish(made, tmp_path / "files", "1.1.0")
    promote(made, "refunds", "1.0.0", "prod", by="ada", why="first")
    promote(made, "refunds", "1.1.0", "prod", by="bo")
    mark(made, "refunds", "1.0.0", "yank", why="wrong")
    mark(made, "refunds", "1.0.0", "deprecate")
    mark(made, "refunds", "1.0.0", "unyank")
    demote(made, "refunds", "prod")
    return made


def verified(team: Catalogue, **options: Any) -> Verified:
    return verify_registry(team, patience=0, workers=2, **options)


def folder(team: Catalogue) -> Path:
    return Path(team.storage.url)


def test_a_registry_without_damage_passes(team: Catalogue) -> None:
    found = verified(team)
    assert (found.findings, found.added) == ((), ())
    assert found.counts["entries"] == 2
    assert found.counts["contents"] == 2
    assert (found.counts["alias"], found.counts["marks"], found.counts["journal"]) == (3, 3, 8)


def _first(team: Catalogue, pattern: str) -> Path:
    return min(folder(team).glob(pattern))


def _change(path: Path) -> None:
    text = path.read_text()
    path.write_text(text.replace("1", "2", 1) if "1" in text else text[::-1])


@pytest.mark.parametrize(
    ("pattern", "act", "code"),
    [
        ("blobs/sha256/*", _change, "AD847"),
        ("blobs/sha256/*", Path.unlink, "AD847"),
        ("adapters/refunds/versions/1.0.0.json", _change, "AD862"),
        ("adapters/refunds/versions/1.0.0.json", Path.unlink, "AD847"),
        ("adapters/refunds/aliases/prod/00000001.json", Path.unlink, "AD863"),
        ("adapters/refunds/aliases/prod/00000002.json", _change, "AD863"),
        ("adapters/refunds/aliases/prod/00000003.json", Path.unlink, "AD847"),
        ("adapters/refunds/aliases/prod/00000003.json", _change, "AD847"),
        ("adapters/refunds/marks/1.0.0/00000002.json", Path.unlink, "AD863"),
        ("adapters/refunds/marks/1.0.0/00000003.json", Path.unlink, "AD847"),
        ("journal/00000004.json", _change, "AD863"),
        ("journal/00000004.json", Path.unlink, "AD863"),
    ],
)
def test_what_was_changed_or_removed_is_named(
    team: Catalogue, pattern: str, act: Callable[[Path], object], code: str
) -> None:
    path = _first(team, pattern)
    act(path)
    before = sorted(folder(team).rglob("*"))
    found = verified(team)
    errors = [finding for finding in found.findings if finding.code == code]
    assert errors, found.findings
    assert any(path.stem in str(finding) or path.parts[-2] in str(finding) for finding in errors)
    assert sorted(folder(team).rglob("*")) == before


@pytest.mark.parametrize("act", [_change, Path.unlink])
def test_a_broken_journal_is_one_finding_and_not_one_for_each_line(
    team: Catalogue, act: Callable[[Path], object]
) -> None:
    act(_first(team, "journal/00000004.json"))
    assert [finding.code for finding in verified(team).findings] == ["AD863"]


def test_an_alias_that_selects_another_entry_is_named(team: Catalogue) -> None:
    value = {"version": "1.0.0", "entry": "sha256:" + "0" * 64, "previous": None}
    team.storage.create("adapters/refunds/aliases/beta/00000001.json", json.dumps(value).encode())
    (finding,) = verified(team, complete=False).findings[:1]
    assert finding.code == "AD862"
    assert "aliases/beta: value 1" in finding.message


def test_a_signature_under_another_name_is_named(team: Catalogue) -> None:
    team.storage.create(f"adapters/refunds/signatures/1.0.0/{'0' * 64}.json", b"{}")
    (finding,) = verified(team).findings
    assert finding.code == "AD847"
    assert "signatures/1.0.0" in finding.message


def _killed_before_the_journal(team: Catalogue, act: Callable[[Catalogue], object]) -> None:
    """Run ``act`` until it would write into the journal."""

    class Killed(Counted):
        def create(self, path: str, content: bytes | Path) -> None:
            if path.startswith("journal/"):
                raise KeyboardInterrupt
            super().create(path, content)

    with pytest.raises(KeyboardInterrupt):
        act(open_catalogue(Killed(team.storage)))


def test_lines_that_kills_left_out_are_added_once(team: Catalogue, tmp_path: Path) -> None:
    acts: tuple[Callable[[Catalogue], object], ...] = (
        lambda at: publish(at, tmp_path / "files", "1.2.0"),
        lambda at: promote(at, "refunds", "1.2.0", "beta", by="ada", why="new"),
        lambda at: mark(at, "refunds", "1.1.0", "yank", why="broken"),
        lambda at: demote(at, "refunds", "beta"),
    )
    for act in acts:
        _killed_before_the_journal(team, act)
    seen = verified(team, complete=False)
    assert [finding.code for finding in seen.findings] == ["AD849"] * 4
    assert head(team.storage).number == 8  # type: ignore[union-attr]
    added = verified(team)
    assert not added.findings
    assert {line["what"] for line in added.added} == {"publish", "promote", "yank", "demote"}
    lines = [json.loads(team.storage.read(path, 9999)) for path in team.storage.find("journal")]
    assert len(lines) == 12
    (promoted,) = (line for line in lines if line.get("alias") == "beta" and line.get("version"))
    assert (promoted["by"], promoted["why"], promoted["serial"]) == ("ada", "new", 1)
    again = verified(team)
    assert (again.findings, again.added) == ((), ())


def test_a_line_that_somebody_writes_meanwhile_is_not_added_twice(
    team: Catalogue, tmp_path: Path
) -> None:
    _killed_before_the_journal(team, lambda at: publish(at, tmp_path / "files", "1.2.0"))
    entry = team.entry("refunds", "1.2.0")

    class Slow(LocalStorage):
        late = True

        def create(self, path: str, content: bytes | Path) -> None:
            if path.startswith("journal/") and self.late:
                self.late = False
                line = {"what": "publish", "name": "refunds", "version": "1.2.0"}
                note(LocalStorage(folder(team)), {**line, "entry": entry.digest})
            super().create(path, content)

    found = verified(open_catalogue(Slow(folder(team))))
    assert (found.findings, found.added) == ((), ())
    assert len(team.storage.find("journal")) == 9


def test_a_mirror_gets_no_lines(team: Catalogue) -> None:
    (folder(team) / "journal/00000008.json").unlink()
    team.storage.create("mirror.json", b"{}")
    found = verified(team)
    assert [finding.code for finding in found.findings] == ["AD849"]
    assert not found.added


def test_progress_counts_every_byte_of_the_contents(team: Catalogue) -> None:
    class Seen:
        total = 0
        count = 0

        def start(self, file: str, total: int | None) -> None:
            self.total += total or 0

        def advance(self, file: str, count: int) -> None:
            self.count += count

        def done(self, file: str) -> None: ...

    seen = Seen()
    found = verified(team, progress=seen)
    assert seen.total == seen.count == found.size > 0


def test_a_signature_without_a_line_gets_one_and_one_that_vanished_is_named(
    team: Catalogue, tmp_path: Path
) -> None:
    new_pair(tmp_path / "key")
    signer = open_signer(str(tmp_path / "key"))
    promote(team, "refunds", "1.0.0", "beta", signer=signer)
    selector = parse_selector("1.0.0")
    assert selector is not None
    _killed_before_the_journal(team, lambda at: sign_selected(at, "refunds", selector, signer))
    (line,) = verified(team).added
    assert (line["what"], line["name"]) == ("sign", "refunds")
    assert line["signature"].startswith("adapters/refunds/signatures/1.0.0/")
    assert verified(team).findings == ()
    (folder(team) / line["signature"]).unlink()
    (finding,) = verified(team).findings
    assert (finding.code, line["signature"] in finding.message) == ("AD847", True)


def test_rules_that_are_not_signed_as_they_must_be_are_named(
    team: Catalogue, tmp_path: Path
) -> None:
    new_pair(tmp_path / "key")
    signer = open_signer(str(tmp_path / "key"))
    key = (tmp_path / "key.pub").read_text()
    set_rules(team, Rules(keys=(key,)), signer=signer)
    set_rules(team, Rules(), signer=signer)
    assert verified(team).findings == ()
    for path in folder(team).glob("rules/signatures/00000002/*"):
        path.unlink()
    assert "AD858" in [finding.code for finding in verified(team).findings]
