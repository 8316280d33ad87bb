"""The numbered rules of a registry, and what they ask of a promotion."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import AdapterdockError, UsageError
from adapterdock.manifests.language.selector import parse_selector
from adapterdock.registry.catalogue.catalogue import Catalogue
from adapterdock.registry.catalogue.promote import promote
from adapterdock.registry.catalogue.publish import publish_entry
from adapterdock.registry.catalogue.rules import (
    InvalidRulesError,
    Rules,
    read_rules,
    rules_in_file,
)
from adapterdock.registry.catalogue.rules_series import Set, rules_in_force, set_rules
from adapterdock.registry.catalogue.sign import sign_selected
from adapterdock.registry.records.journal import head
from adapterdock.registry.records.series import canonical
from adapterdock.registry.signatures.signer import Signer
from support.published import contents, entry, registry
from support.signing import MAKE, make_signer, public_pem

ANNA, BEN, EVE = (make_signer(name=f"{name}.pub") for name in ("anna", "ben", "eve"))


@pytest.fixture
def team(tmp_path: Path) -> Catalogue:
    made = registry(tmp_path / "registry")
    for version, fields in (("1.0.0", {"metrics": {"accuracy": 0.8}}), ("1.1.0", GOOD)):
        files = contents(tmp_path / "files", f"weights of {version}")
        publish_entry(made, entry(version, files, **fields), files)
    return made


GOOD: dict[str, Any] = {"metrics": {"accuracy": 0.95}, "licence": "MIT"}


def rules(*signers: Signer, threshold: int = 1, **aliases: Any) -> Rules:
    data = {
        "keys": [one.key.pem for one in signers],
        "threshold": threshold,
        "aliases": aliases,
    }
    return read_rules(canonical(data))


def number(team: Catalogue) -> int:
    last = rules_in_force(team)
    return 0 if last is None else last.value.number


def refusal(act: Any) -> list[str]:
    with pytest.raises(AdapterdockError) as refused:
        act()
    return [finding.code for finding in refused.value.findings]


def move(team: Catalogue, version: str = "1.1.0", alias: str = "prod", **more: Any) -> object:
    return promote(team, "refunds", version, alias, **more)


def test_rules_are_appended_and_the_last_ones_hold(team: Catalogue) -> None:
    assert rules_in_force(team) is None
    first, second = rules(prod={"metrics": ["accuracy>=0.9"]}), rules()
    assert set_rules(team, first, by="ada") == Set(1)
    assert set_rules(team, first) is None
    line = head(team.storage)
    assert line is not None
    assert (line.data["what"], line.data["serial"], line.data["by"]) == ("rules", 1, "ada")
    assert refusal(lambda: move(team, "1.0.0")) == ["AD868"]
    assert set_rules(team, second) == Set(2)
    assert move(team, "1.0.0") is not None


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        ({"metrics": ["accuracy>=0.9"]}, "AD868"),
        ({"metrics": ["f1>0"]}, "AD868"),
        ({"licences": ["MIT", "Apache-2.0"]}, "AD868"),
        ({"licences": []}, "AD868"),
        ({"signatures": {"keys": [ANNA.key.pem]}}, "AD885"),
        ({"promoters": [ANNA.key.pem]}, "AD859"),
    ],
)
def test_a_promotion_that_lacks_what_an_alias_needs_is_refused(
    team: Catalogue, gate: dict[str, Any], code: str
) -> None:
    set_rules(team, rules(prod=gate))
    assert refusal(lambda: move(team, "1.0.0")) == [code]
    assert refusal(lambda: move(team, "1.0.0", dry_run=True)) == [code]
    assert team.listing("refunds").aliases == []
    assert move(team, "1.0.0", "staging") is not None


def test_gates_of_one_alias_and_of_each_add_up(team: Catalogue) -> None:
    everywhere: Any = {"*": {"metrics": ["accuracy>=0.9"]}}
    set_rules(team, rules(prod={"licences": ["Apache-2.0"]}, **everywhere))
    assert refusal(lambda: move(team, "1.0.0", "staging")) == ["AD868"]
    assert move(team, "1.1.0", "staging") is not None
    assert refusal(lambda: move(team, "1.1.0")) == ["AD868"]
    assert refusal(lambda: move(team, "1.0.0")) == ["AD868", "AD868"]


def test_what_an_alias_needs_is_enough(team: Catalogue) -> None:
    gate = {
        "metrics": ["accuracy>=0.9"],
        "licences": ["MIT"],
        "signatures": {"keys": [ANNA.key.pem, BEN.key.pem], "threshold": 2},
        "promoters": [EVE.key.pem, BEN.key.pem],
    }
    set_rules(team, rules(prod=gate))
    selector = parse_selector("1.1.0")
    assert selector is not None
    sign_selected(team, "refunds", selector, ANNA)
    assert refusal(lambda: move(team, signer=BEN)) == ["AD885"]
    sign_selected(team, "refunds", selector, BEN)
    assert refusal(lambda: move(team)) == ["AD859"]
    assert refusal(lambda: move(team, signer=ANNA)) == ["AD859"]
    assert move(team, signer=BEN) is not None


def test_keys_of_rules_are_rotated_by_numbered_rules(team: Catalogue) -> None:
    set_rules(team, rules(ANNA))
    later = rules(BEN, prod={"licences": ["MIT"]})
    assert refusal(lambda: set_rules(team, later)) == ["AD885"]
    assert "AD886" in refusal(lambda: set_rules(team, later, signer=BEN))
    assert set_rules(team, later, signer=ANNA) == Set(2)
    newest = rules()
    assert "AD886" in refusal(lambda: set_rules(team, newest, signer=ANNA))
    assert set_rules(team, newest, signer=BEN) == Set(3)
    assert number(team) == 3


def test_a_threshold_of_two_needs_two_people_with_the_same_file(team: Catalogue) -> None:
    set_rules(team, rules(ANNA, BEN, EVE, threshold=2))
    wanted = rules(ANNA)
    first = set_rules(team, wanted, signer=ANNA)
    assert first is not None and first.missing is not None
    assert number(team) == 1
    other = set_rules(team, rules(BEN), signer=BEN)
    assert other is not None and other.missing is not None
    again = set_rules(team, wanted, signer=ANNA)
    assert again is not None and again.missing is not None
    assert set_rules(team, wanted, signer=BEN) == Set(2)
    last = rules_in_force(team)
    assert last is not None and last.rules == wanted


def test_a_dry_run_writes_no_rules_and_no_signature(team: Catalogue) -> None:
    set_rules(team, rules(ANNA))
    before = set(team.storage.find(""))
    assert set_rules(team, rules(), signer=ANNA, dry_run=True) == Set(2)
    assert "AD886" in refusal(lambda: set_rules(team, rules(), signer=BEN, dry_run=True))
    assert set(team.storage.find("")) == before


def test_rules_that_were_written_past_the_signatures_stop_every_promotion(
    team: Catalogue, tmp_path: Path
) -> None:
    set_rules(team, rules(ANNA))
    last = rules_in_force(team)
    assert last is not None
    raw = canonical({"format": 1, "previous": last.value.digest})
    team.storage.create("rules/00000002.json", raw)
    assert "AD858" in refusal(lambda: move(team))
    assert "AD858" in refusal(lambda: set_rules(team, rules(), signer=ANNA))
    file = tmp_path / "registry/rules/00000002.json"
    file.unlink()
    team.storage.create("rules/00000002.json", canonical({"format": 1, "previous": None}))
    assert refusal(lambda: move(team)) == ["AD863"]
    file.unlink()
    team.storage.create("rules/00000003.json", raw)
    assert refusal(lambda: move(team)) == ["AD863"]


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b"{",
        b'{"format":2}',
        b'{"format":1,"sandbox":true}',
        b'{"format":1,"aliases":{"prod":{"age":3}}}',
    ],
)
def test_rules_that_this_version_cannot_obey_stop_every_promotion(
    team: Catalogue, raw: bytes
) -> None:
    team.storage.create("rules/00000001.json", raw)
    assert refusal(lambda: move(team))[0] in ("AD858", "AD863")


def test_rules_with_a_weak_key_are_not_obeyed_by_anybody(team: Catalogue) -> None:
    weak = public_pem(MAKE["rsa1024"]()).decode()
    data = {"format": 1, "keys": [weak], "previous": None}
    team.storage.create("rules/00000001.json", canonical(data))
    assert "AD882" in refusal(lambda: set_rules(team, rules(), signer=ANNA))


def test_of_two_people_who_set_rules_at_once_one_wins(
    team: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = team.storage.create

    def slower(_: object, path: str, content: bytes) -> None:
        if path == "rules/00000001.json":
            monkeypatch.undo()
            set_rules(team, rules(prod={"licences": ["MIT"]}))
        create(path, content)

    monkeypatch.setattr(type(team.storage), "create", slower)
    assert refusal(lambda: set_rules(team, rules())) == ["AD864"]
    assert number(team) == 1


def test_a_persons_file_may_name_keys_by_path_and_is_checked(tmp_path: Path) -> None:
    (tmp_path / "anna.pub").write_text(ANNA.key.pem)
    file = tmp_path / "rules.json"
    gate = {
        "signatures": {"keys": ["anna.pub"]},
        "promoters": ["anna.pub", BEN.key.pem],
        "metrics": ["accuracy >= 0.9"],
    }
    file.write_text(json.dumps({"keys": ["anna.pub"], "aliases": {"prod": gate}}))
    found = rules_in_file(file)
    assert found.keys == (ANNA.key.pem,)
    prod = found.aliases["prod"]
    assert prod.signatures is not None
    assert prod.signatures.keys == (ANNA.key.pem,)
    assert prod.promoters == (ANNA.key.pem, BEN.key.pem)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"alias": {}}, "AD857"),
        ({"aliases": {"Prod": {}}}, "AD857"),
        ({"aliases": {"prod": {"metrics": ["good"]}}}, "AD865"),
        ({"aliases": {"prod": {"metrics": "accuracy>=0.9"}}}, "AD857"),
        ({"aliases": {"prod": {"promoters": ["missing.pub"]}}}, "AD881"),
        ({"aliases": {"prod": {"signatures": {"keys": []}}}}, "AD857"),
        ({"threshold": 2}, "AD887"),
        ({"keys": [ANNA.key.pem, ANNA.key.pem], "threshold": 2}, "AD887"),
        ({"keys": [public_pem(MAKE["rsa1024"]()).decode()]}, "AD882"),
        ("[]", "AD857"),
        (None, "AD857"),
    ],
)
def test_a_file_that_could_not_be_obeyed_is_refused(tmp_path: Path, data: Any, code: str) -> None:
    file = tmp_path / "rules.json"
    if data is not None:
        file.write_text(data if isinstance(data, str) else json.dumps(data))
    assert refusal(lambda: rules_in_file(file)) == [code]


def test_rules_without_keys_need_no_libraries_and_rules_with_keys_do(
    team: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_rules(team, rules(prod={"licences": ["MIT"]}))
    monkeypatch.setitem(sys.modules, "securesystemslib.signer", None)
    assert move(team) is not None
    monkeypatch.undo()
    set_rules(team, rules(ANNA))
    set_rules(team, rules(BEN), signer=ANNA)
    monkeypatch.setitem(sys.modules, "securesystemslib.signer", None)
    with pytest.raises(UsageError) as refused:
        move(team, "1.0.0")
    assert refused.value.code == "AD880"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"format": 2}, "format must be at most 1"),
        ({"threshold": 0}, "threshold must be at least 1"),
        ({"threshold": 1.5}, "threshold must be a whole number"),
        ({"keys": "a.pem"}, "keys must be a list"),
        ({"aliases": {"prod": {"metrics": [1]}}}, "aliases.prod.metrics[0] must be text"),
        ({"aliases": {"prod": {"foo": 1}}}, "unknown key 'foo' in aliases.prod"),
        ({"more": 1}, "unknown key 'more' in the rules"),
        (
            {"aliases": {"prod": {"signatures": {}}}},
            "missing key 'keys' in aliases.prod.signatures",
        ),
        (
            {"aliases": {"prod": {"signatures": {"keys": []}}}},
            "aliases.prod.signatures.keys must have at least 1 entry",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_in_rules_is_said_in_plain_words(data: Any, problem: str) -> None:
    with pytest.raises(InvalidRulesError) as caught:
        read_rules(json.dumps(data).encode())
    assert str(caught.value) == problem
