"""Signatures that policies demand: in validate, lock, pull and load; with a lock, and offline."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import adapterdock
import pytest
import yaml
from adapterdock.manifests.findings.errors import AdapterdockError
from adapterdock.manifests.language.selector import Selector, parse_selector
from adapterdock.registry.catalogue.catalogue import Catalogue
from adapterdock.registry.catalogue.promote import mark, promote
from adapterdock.registry.catalogue.sign import sign_selected
from adapterdock.registry.publishing import publish
from adapterdock.registry.signatures.signer import Signer
from adapterdock.registry.storages.layout import is_signature
from adapterdock.registry.store.store import Store
from support.project import Project, codes
from support.published import registry
from support.signing import make_signer
from support.web import WebServer

ANNA, BEN = make_signer(name="anna.pub"), make_signer(name="ben.pub")
EVERYTHING = ["entries", "aliases", "marks"]


def select(text: str) -> Selector:
    selector = parse_selector(text)
    assert selector is not None
    return selector


class Team:
    """A project with a signed adapter in its registry, and the policy of a platform."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.folder = project.folder
        self.place = project.folder / "registry"
        self.policy = project.folder / "platform" / "policy.yaml"
        self.policy.parent.mkdir()
        self.catalogue: Catalogue = registry(self.place)
        (self.policy.parent / "anna.pub").write_text(ANNA.key.pem)
        (self.policy.parent / "ben.pub").write_text(BEN.key.pem)
        project.base()
        self.publish("1.0.0", ANNA)
        self.use("1.0.0")

    def publish(self, version: str, signer: Signer | None = None, rank: int = 8) -> None:
        folder = self.project.adapter(f"v{version}", r=rank)
        manifest = self.folder / "publish.yaml"
        manifest.write_text(
            "version: 1\nbase: {model: ./base, aliases: [org/base]}\n"
            "registries: {team: ./registry}\n"
        )
        publish(folder, f"team/refunds@{version}", manifest=manifest, sign=signer)
        shutil.rmtree(folder)

    def use(self, selector: str, **sections: Any) -> None:
        tables: dict[str, Any] = {"registries": {"team": "./registry"}, **sections}
        self.project.write({"tone": f"registry://team/refunds@{selector}"}, **tables)

    def demand(self, *keys: str, **more: Any) -> None:
        rule = {"keys": list(keys or ["anna.pub"]), **more}
        self.policy.write_text(yaml.safe_dump({"require_signature": rule}))

    def sign(self, text: str, signer: Signer) -> None:
        sign_selected(self.catalogue, "refunds", select(text), signer)

    def validate(self, **options: Any) -> list[str]:
        report = adapterdock.validate(self.project.manifest, policy=self.policy, **options)
        return codes(report.errors)

    def lock(self, **options: Any) -> Any:
        done = adapterdock.lock(self.project.manifest, policy=self.policy, **options)
        return done.adapters["tone"].registry

    def pull(self, **options: Any) -> Any:
        return adapterdock.pull(self.project.manifest, policy=self.policy, **options)


@pytest.fixture
def team(project: Project) -> Team:
    return Team(project)


def refused(act: Callable[[], object]) -> list[str]:
    with pytest.raises(AdapterdockError) as caught:
        act()
    return [finding.code for finding in caught.value.findings]


def test_a_signed_version_is_used_and_the_lock_records_the_keys(team: Team) -> None:
    team.demand("anna.pub", "ben.pub")
    assert team.validate() == []
    assert team.lock().keys == (ANNA.key.id,)
    assert team.pull().adapters["tone"]
    assert "keys" in team.project.lock_file.read_text()
    assert team.lock().keys == (ANNA.key.id,)


def test_an_unsigned_version_is_refused_everywhere(team: Team) -> None:
    team.publish("2.0.0")
    team.use("2.0.0")
    team.demand()
    assert team.validate() == ["AD885"]
    assert refused(team.lock) == ["AD885"]
    assert refused(team.pull) == ["AD885"]


def test_a_lock_and_a_cache_do_not_replace_a_signature(team: Team) -> None:
    team.publish("2.0.0")
    team.use("2.0.0")
    adapterdock.lock(team.project.manifest)
    adapterdock.pull(team.project.manifest)
    team.demand()
    assert refused(team.pull) == ["AD885"]
    assert team.validate() == ["AD885"]
    assert refused(team.lock) == ["AD885"]
    team.sign("2.0.0", ANNA)
    assert team.pull().adapters["tone"]


def test_what_was_verified_is_used_offline_and_without_its_registry(team: Team) -> None:
    team.demand()
    team.lock()
    team.pull()
    team.place.rename(team.folder / "away")
    assert team.pull(offline=True).adapters["tone"]
    team.demand("ben.pub")
    assert refused(lambda: team.pull(offline=True)) != []
    (team.folder / "away").rename(team.place)
    assert refused(team.pull) == ["AD885"]
    team.sign("1.0.0", BEN)
    assert team.pull().adapters["tone"]


def test_signatures_that_were_kept_are_verified_again(team: Team) -> None:
    team.demand()
    team.lock()
    team.pull()
    kept = list((Store.default().root / "registries").rglob("signatures/**/*.json"))
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes().replace(b'"sig":"', b'"sig":"AAAA'))
    team.place.rename(team.folder / "away")
    assert refused(team.pull) != []


@pytest.mark.parametrize("selector", ["1.0.0", "^1.0", "prod"])
def test_a_lock_that_pins_other_files_than_the_signed_entry_is_refused(
    team: Team, selector: str
) -> None:
    """Whoever writes a manifest could else name a signed entry, and files of another."""
    promote(team.catalogue, "refunds", "1.0.0", "prod", signer=ANNA)
    team.publish("0.9.0", rank=4)
    team.use("0.9.0")
    unsigned = adapterdock.lock(team.project.manifest).adapters["tone"]
    adapterdock.pull(team.project.manifest)
    team.use(selector)
    team.demand(of=EVERYTHING)
    signed = adapterdock.lock(team.project.manifest, policy=team.policy).adapters["tone"]
    team.pull()
    text = team.project.lock_file.read_text()
    for path, file in signed.files.items():
        text = text.replace(str(file.sha256), str(unsigned.files[path].sha256))
        text = text.replace(f"size: {file.size}", f"size: {unsigned.files[path].size}")
    assert text != team.project.lock_file.read_text()
    team.project.lock_file.write_text(text.replace(str(signed.digest), str(unsigned.digest)))
    found = refused(team.pull)
    assert found and not {"AD885"} & {*found}


def test_an_alias_must_be_signed_too_where_a_policy_says_so(team: Team) -> None:
    promote(team.catalogue, "refunds", "1.0.0", "prod")
    team.use("prod")
    team.demand()
    assert team.validate() == []
    team.demand(of=EVERYTHING)
    assert team.validate() == ["AD885"]
    team.sign("prod", ANNA)
    assert team.lock().keys == (ANNA.key.id,)
    team.pull()
    team.place.rename(team.folder / "away")
    assert team.pull(offline=True).adapters["tone"]


def test_a_lock_that_names_a_signed_value_and_another_signed_version_is_refused(
    team: Team,
) -> None:
    team.publish("2.0.0", ANNA, rank=4)
    promote(team.catalogue, "refunds", "2.0.0", "prod", signer=ANNA)
    team.demand(of=EVERYTHING)
    team.lock()
    old = yaml.safe_load(team.project.lock_file.read_text())["adapters"]["tone"]
    team.use("prod")
    team.lock()
    lock = yaml.safe_load(team.project.lock_file.read_text())
    new = lock["adapters"]["tone"]
    mixed = {**old["registry"], "alias": new["registry"]["alias"]}
    kept = {key: new[key] for key in ("declared", "options") if key in new}
    lock["adapters"]["tone"] = {**old, **kept, "registry": mixed}
    team.project.lock_file.write_text(yaml.safe_dump(lock))
    assert refused(team.pull) == ["AD885"]
    team.demand()
    assert team.pull().adapters["tone"]


def test_a_mark_without_a_signature_cannot_steer_a_range_but_breaks_no_lock(team: Team) -> None:
    team.publish("1.1.0", ANNA, rank=4)
    team.use("^1.0")
    team.demand(of=EVERYTHING)
    assert team.lock().version == "1.1.0"
    mark(team.catalogue, "refunds", "1.1.0", "yank", why="so that 1.0.0 is used")
    assert team.pull().adapters["tone"]
    team.project.lock_file.unlink()
    assert team.validate() == ["AD885"]


def test_a_mark_without_a_signature_says_nothing_of_a_locked_version(team: Team) -> None:
    team.demand(of=EVERYTHING)
    team.lock()

    def warnings() -> list[str]:
        report = adapterdock.validate(team.project.manifest, policy=team.policy)
        assert report.errors == ()
        return [one.code for one in report.findings if one.code in ("AD869", "AD894")]

    assert warnings() == []
    mark(team.catalogue, "refunds", "1.0.0", "deprecate", why="use mine")
    assert warnings() == ["AD894"]
    mark(team.catalogue, "refunds", "1.0.0", "deprecate", signer=ANNA)
    assert warnings() == ["AD869"]


def test_a_registry_is_allowed_by_its_url_and_id_and_signed_by_its_keys(team: Team) -> None:
    def allow(**row: Any) -> None:
        team.policy.write_text(yaml.safe_dump({"registries": [{"url": "../registry", **row}]}))

    allow()
    assert team.validate() == []
    allow(id=team.catalogue.id, keys=["anna.pub"])
    assert team.lock().keys == (ANNA.key.id,)
    team.pull()
    allow(id="f" * 32)
    assert team.validate() == ["AD856"]
    assert refused(team.pull) == ["AD856"]
    allow(keys=["ben.pub"])
    assert refused(team.pull) == ["AD885"]
    shutil.copytree(team.place, team.folder / "other")
    team.use("1.0.0", registries={"team": "./other"})
    allow()
    assert team.validate() == ["AD856"]
    team.policy.write_text(yaml.safe_dump({"registries": []}))
    assert team.validate() == ["AD856"]


def test_the_manifests_own_policy_holds_too(team: Team) -> None:
    rule = {"require_signature": {"keys": ["./platform/ben.pub"]}}
    team.use("1.0.0", policy=rule)
    team.demand()
    assert team.validate() == ["AD885"]
    team.sign("1.0.0", BEN)
    assert team.lock().keys == tuple(sorted([ANNA.key.id, BEN.key.id]))


def test_signatures_are_verified_over_a_web_server_which_lists_nothing(
    team: Team, web: WebServer
) -> None:
    promote(team.catalogue, "refunds", "1.0.0", "prod")
    mark(team.catalogue, "refunds", "1.0.0", "deprecate", why="old", signer=ANNA)
    team.demand("anna.pub", "ben.pub", threshold=2, of=EVERYTHING)

    def serve() -> None:
        for path in team.place.rglob("*"):
            if path.is_file():
                web.files[f"/registry/{path.relative_to(team.place)}"] = path.read_bytes()

    for selector in ("1.0.0", "prod"):
        team.use(selector, registries={"team": f"{web.url}/registry"})
        serve()
        assert "AD885" in team.validate()
    for text in ("1.0.0", "prod"):
        team.sign(text, BEN)
    team.sign("prod", ANNA)
    sign_selected(team.catalogue, "refunds", select("1.0.0"), BEN, mark=True)
    serve()
    for selector in ("1.0.0", "^1.0", "prod"):
        team.use(selector, registries={"team": f"{web.url}/registry"})
        assert team.lock().keys == tuple(sorted([ANNA.key.id, BEN.key.id]))


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("1.0.0/" + "a" * 64, True),
        ("aliases/prod/00000001/" + "a" * 64, True),
        ("marks/1.0.0-rc.1/00000001/" + "a" * 64, True),
        ("../" + "a" * 64, False),
        ("1.0.0/../../../registry", False),
        ("1.0.0/" + "A" * 64, False),
        ("aliases/prod/1/" + "a" * 64, False),
    ],
)
def test_a_journal_names_signatures_of_its_own_name_only(path: str, good: bool) -> None:
    start = "adapters/refunds/signatures/"
    assert is_signature("refunds", f"{start}{path}.json") == good
    assert not is_signature("returns", f"{start}{path}.json")


def test_without_a_key_that_can_be_read_nothing_is_used(team: Team) -> None:
    team.demand("missing.pub")
    assert team.validate() == ["AD881"]
    team.demand(threshold=2)
    assert team.validate() == ["AD887"]
