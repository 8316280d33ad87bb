"""What is refused of a registry that somebody else can write to, and what is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import IntegrityError
from adapterdock.manifests.language.selector import parse_selector
from adapterdock.registry.catalogue.catalogue import Catalogue, Resolved, Seen, open_catalogue
from adapterdock.registry.catalogue.promote import mark, promote
from adapterdock.registry.catalogue.publish import publish_entry
from adapterdock.registry.catalogue.sign import sign_selected
from adapterdock.registry.catalogue.trusted import Demand, verify_resolved
from adapterdock.registry.signatures.envelope import Envelope, Kind, Signature, sign
from adapterdock.registry.signatures.signatures import add_signature
from adapterdock.registry.signatures.signer import Signer
from adapterdock.registry.signatures.signing import add, entry_of
from adapterdock.registry.signatures.trust import requirement
from adapterdock.registry.storages.layout import alias_folder, entry_file, signatures_folder
from adapterdock.registry.storages.local_storage import LocalStorage
from support.published import Counted, contents, entry, registry
from support.signing import make_signer

ANNA, BEN, EVE = (make_signer(name=f"{name}.pub") for name in ("anna", "ben", "eve"))
ALL = frozenset({Kind.ENTRY, Kind.ALIAS, Kind.MARK})


def demand(*signers: Signer, threshold: int = 1, of: frozenset[Kind] = ALL) -> Demand:
    return Demand(of, requirement([one.key for one in signers], threshold))


class Team:
    """A registry on disk, which can be changed as somebody with write access would."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "registry"
        self.files = folder / "files"
        self.catalogue = registry(self.root)

    def put(self, version: str = "1.0.0", signer: Signer | None = ANNA) -> str:
        files = contents(self.files, f"weights of {version}")
        done = publish_entry(self.catalogue, entry(version, files), files, signer=signer)
        return done.resolved.digest

    def replace(self, path: str, raw: bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_bytes(raw)

    def resolve(self, text: str, seen: Seen | None = None) -> Resolved:
        selector = parse_selector(text)
        assert selector is not None
        return self.catalogue.resolve("refunds", selector, seen)

    def check(self, text: str, *demands: Demand) -> tuple[Sequence[str], list[str]]:
        """The keys that signed, and the codes of what is wrong."""
        found = verify_resolved(self.catalogue, self.resolve(text), demands, parse_selector(text))
        return found.keys, [finding.code for finding in found.findings]

    def passes(self, text: str, *demands: Demand) -> bool:
        return self.check(text, *demands)[1] == []


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(tmp_path)


def ids(*signers: Signer) -> tuple[str, ...]:
    return tuple(sorted(one.key.id for one in signers))


def test_signed_versions_aliases_and_marks_pass_and_the_keys_are_listed(team: Team) -> None:
    digest = team.put()
    promote(team.catalogue, "refunds", "1.0.0", "prod", signer=BEN)
    mark(team.catalogue, "refunds", "1.0.0", "deprecate", why="old", signer=ANNA)
    both = demand(ANNA, BEN)
    for text in ("1.0.0", "^1.0", digest):
        assert team.check(text, both) == (ids(ANNA), [])
    assert team.check("prod", both) == (ids(ANNA, BEN), [])


def test_without_demands_nothing_is_read(team: Team) -> None:
    team.put(signer=None)
    found = team.resolve("1.0.0")
    counted = Counted(team.catalogue.storage)
    catalogue = replace(team.catalogue, storage=counted)
    assert verify_resolved(catalogue, found, ()).keys == ()
    assert counted.calls == []


def test_a_changed_byte_of_the_entry_is_refused(team: Team) -> None:
    team.put()
    path = entry_file("refunds", "1.0.0")
    raw = (team.root / path).read_bytes()
    changed = raw.replace(b'"rank":8', b'"rank":9')
    assert changed != raw
    team.replace(path, changed)
    assert team.check("1.0.0", demand(ANNA)) == ((), ["AD884", "AD885"])


def test_a_changed_byte_of_a_signature_is_refused(team: Team) -> None:
    team.put()
    (path,) = (team.root / signatures_folder("refunds", "1.0.0")).iterdir()
    inside = path.relative_to(team.root).as_posix()
    data = json.loads(path.read_bytes())
    sig = data["signatures"][0]["sig"]
    data["signatures"][0]["sig"] = ("B" if sig[0] == "A" else "A") + sig[1:]
    team.replace(inside, json.dumps(data).encode())
    assert "AD885" in team.check("1.0.0", demand(ANNA))[1]


@pytest.mark.parametrize(("name", "version"), [("refunds", "2.0.0"), ("returns", "1.0.0")])
def test_an_entry_that_was_copied_to_another_name_or_version_is_refused(
    team: Team, name: str, version: str
) -> None:
    team.put()
    raw = (team.root / entry_file("refunds", "1.0.0")).read_bytes()
    for path in (team.root / signatures_folder("refunds", "1.0.0")).iterdir():
        inside = f"{signatures_folder(name, version)}/{path.name}"
        team.replace(inside, path.read_bytes())
    team.replace(entry_file(name, version), raw)
    with pytest.raises(IntegrityError) as refused:
        team.catalogue.entry(name, version)
    assert refused.value.code == "AD862"
    changed = {**json.loads(raw), "name": name, "version": version}
    team.replace(entry_file(name, version), json.dumps(changed).encode())
    found = verify_resolved(team.catalogue, team.catalogue.entry(name, version), [demand(ANNA)])
    assert [one.code for one in found.findings] == ["AD884", "AD885"]


def test_a_signature_by_another_key_is_refused(team: Team) -> None:
    team.put(signer=EVE)
    assert team.check("1.0.0", demand(ANNA)) == ((), ["AD885"])


def test_too_few_signatures_are_refused_until_a_second_person_signs(team: Team) -> None:
    team.put()
    two = demand(ANNA, BEN, threshold=2)
    assert team.check("1.0.0", two) == (ids(ANNA), ["AD885"])
    selector = parse_selector("1.0.0")
    assert selector is not None
    sign_selected(team.catalogue, "refunds", selector, BEN)
    assert team.check("1.0.0", two) == (ids(ANNA, BEN), [])


def test_one_key_under_two_ids_counts_once(team: Team) -> None:
    digest = team.put()
    file = entry_of(team.catalogue.id, "refunds", "1.0.0", digest).file
    value = sign(file, ANNA).signatures[0].value
    folder = signatures_folder("refunds", "1.0.0")
    for key_id in (BEN.key.id, "f" * 64):
        forged = Envelope(
            file.statement, "application/vnd.in-toto+json", (Signature(key_id, value),)
        )
        add_signature(team.catalogue.storage, folder, forged)
    assert "AD885" in team.check("1.0.0", demand(ANNA, BEN, threshold=2))[1]
    assert team.passes("1.0.0", demand(ANNA, BEN))


def test_a_signature_of_another_payload_type_is_refused(team: Team) -> None:
    from securesystemslib.dsse import Envelope as LibraryEnvelope

    digest = team.put(signer=None)
    file = entry_of(team.catalogue.id, "refunds", "1.0.0", digest).file
    made = LibraryEnvelope(file.statement, "text/plain", {}).sign(ANNA.library)
    value = bytes.fromhex(made.signature)
    envelope = Envelope(file.statement, "text/plain", (Signature(ANNA.key.id, value),))
    add_signature(team.catalogue.storage, signatures_folder("refunds", "1.0.0"), envelope)
    assert team.check("1.0.0", demand(ANNA)) == ((), ["AD884", "AD885"])


def test_a_signature_of_another_kind_or_registry_is_refused(team: Team, tmp_path: Path) -> None:
    digest = team.put(signer=None)
    folder = signatures_folder("refunds", "1.0.0")
    right = entry_of(team.catalogue.id, "refunds", "1.0.0", digest).file
    for file in (replace(right, kind=Kind.ALIAS), replace(right, registry="f" * 32)):
        add_signature(team.catalogue.storage, folder, sign(file, ANNA))
    assert team.check("1.0.0", demand(ANNA))[1] == ["AD884", "AD884", "AD885"]
    other = tmp_path / "copy"
    shutil.copytree(team.root, other)
    identity = json.loads((other / "registry.json").read_bytes())
    (other / "registry.json").unlink()
    (other / "registry.json").write_text(json.dumps({**identity, "id": "f" * 32}))
    add(team.catalogue.storage, entry_of(team.catalogue.id, "refunds", "1.0.0", digest), ANNA)
    assert team.passes("1.0.0", demand(ANNA))


def test_an_alias_that_is_not_signed_is_refused_though_its_version_is(team: Team) -> None:
    team.put()
    promote(team.catalogue, "refunds", "1.0.0", "prod")
    assert team.check("prod", demand(ANNA))[1] == ["AD885"]
    assert team.passes("prod", demand(ANNA, of=frozenset({Kind.ENTRY})))
    assert team.passes("1.0.0", demand(ANNA))
    promote(team.catalogue, "refunds", "1.0.0", "prod", signer=ANNA)
    assert team.passes("prod", demand(ANNA))


def test_an_alias_that_was_moved_back_by_somebody_without_a_key_is_refused(team: Team) -> None:
    for version in ("1.0.0", "1.1.0"):
        team.put(version)
        promote(team.catalogue, "refunds", version, "prod", signer=ANNA)
    assert team.passes("prod", demand(ANNA))
    promote(team.catalogue, "refunds", "1.0.0", "prod")
    assert team.check("prod", demand(ANNA))[1] == ["AD885"]


def test_the_signature_of_one_value_is_not_one_of_another_alias(team: Team) -> None:
    team.put()
    promote(team.catalogue, "refunds", "1.0.0", "staging", signer=ANNA)
    for part in ("aliases/staging", "signatures/aliases/staging"):
        source = team.root / "adapters/refunds" / part
        shutil.copytree(source, source.with_name("prod"))
    assert team.passes("staging", demand(ANNA))
    assert team.check("prod", demand(ANNA))[1] == ["AD884", "AD885"]


@pytest.mark.parametrize("how", ["rolled back", "forked"])
def test_an_alias_that_is_behind_or_beside_what_was_seen_is_refused(team: Team, how: str) -> None:
    for version in ("1.0.0", "1.1.0"):
        team.put(version)
        promote(team.catalogue, "refunds", version, "prod", signer=ANNA)
    seen = team.resolve("prod").alias
    (team.root / alias_folder("refunds", "prod") / "00000002.json").unlink()
    if how == "forked":
        team.put("1.2.0")
        promote(team.catalogue, "refunds", "1.2.0", "prod", signer=ANNA)
    assert team.passes("prod", demand(ANNA))  # a first reader cannot know
    with pytest.raises(IntegrityError) as refused:
        team.resolve("prod", seen)
    assert refused.value.code == "AD863"
    assert ("went back" in str(refused.value)) == (how == "rolled back")


def test_a_mark_that_is_not_signed_cannot_steer_a_range(team: Team) -> None:
    for version in ("1.0.0", "1.1.0"):
        team.put(version)
    assert team.resolve("^1.0").entry.version == "1.1.0"
    mark(team.catalogue, "refunds", "1.1.0", "yank", why="so that 1.0.0 is used")
    assert team.resolve("^1.0").entry.version == "1.0.0"
    assert team.check("^1.0", demand(ANNA))[1] == ["AD885"]
    assert team.passes("1.0.0", demand(ANNA))
    mark(team.catalogue, "refunds", "1.1.0", "yank", why="", signer=ANNA)
    assert team.passes("^1.0", demand(ANNA))
    mark(team.catalogue, "refunds", "1.1.0", "unyank")
    assert team.check("1.1.0", demand(ANNA))[1] == ["AD885"]


def test_an_entry_with_an_unknown_critical_field_is_refused_though_signed(team: Team) -> None:
    raw = (team.root / entry_file("refunds", team.put() and "1.0.0")).read_bytes()
    data = {**json.loads(raw), "critical": ["sandbox"], "sandbox": True}
    changed = json.dumps(data).encode()
    team.replace(entry_file("refunds", "1.0.0"), changed)
    from adapterdock.registry.files.digests import sha256_bytes

    signable = entry_of(team.catalogue.id, "refunds", "1.0.0", sha256_bytes(changed))
    add(team.catalogue.storage, signable, ANNA)
    with pytest.raises(IntegrityError) as refused:
        team.resolve("1.0.0")
    assert "sandbox" in str(refused.value)


def test_every_policy_must_be_satisfied_by_its_own_keys(team: Team) -> None:
    team.put()
    assert team.check("1.0.0", demand(ANNA), demand(BEN))[1] == ["AD885"]
    add(
        team.catalogue.storage,
        entry_of(team.catalogue.id, "refunds", "1.0.0", team.resolve("1.0.0").digest),
        BEN,
    )
    assert team.check("1.0.0", demand(ANNA), demand(BEN)) == (ids(ANNA, BEN), [])


def test_keys_are_rotated_by_signing_again_before_the_policy_changes(team: Team) -> None:
    team.put()
    old, both, new = demand(ANNA), demand(ANNA, BEN), demand(BEN)
    assert team.passes("1.0.0", both)
    assert not team.passes("1.0.0", new)
    selector = parse_selector("1.0.0")
    assert selector is not None
    sign_selected(team.catalogue, "refunds", selector, BEN)
    assert all(team.passes("1.0.0", one) for one in (old, both, new))


def test_signatures_by_strangers_and_junk_beside_good_ones_are_no_finding(team: Team) -> None:
    digest = team.put()
    add(team.catalogue.storage, entry_of(team.catalogue.id, "refunds", "1.0.0", digest), EVE)
    team.replace(f"{signatures_folder('refunds', '1.0.0')}/junk.json", b"{")
    wrong = entry_of(team.catalogue.id, "refunds", "1.0.0", "sha256:" + "0" * 64).file
    add_signature(team.catalogue.storage, signatures_folder("refunds", "1.0.0"), sign(wrong, ANNA))
    assert team.check("1.0.0", demand(ANNA)) == (ids(ANNA), [])


def test_a_copy_of_a_registry_verifies_like_the_registry(team: Team, tmp_path: Path) -> None:
    team.put()
    promote(team.catalogue, "refunds", "1.0.0", "prod", signer=ANNA)
    shutil.copytree(team.root, tmp_path / "mirror")
    mirror: Catalogue = open_catalogue(LocalStorage(tmp_path / "mirror"))
    selector = parse_selector("prod")
    assert selector is not None
    resolved = mirror.resolve("refunds", selector)
    assert verify_resolved(mirror, resolved, [demand(ANNA)], selector).findings == ()


def test_a_signed_value_that_selects_something_else_vouches_for_nothing(team: Team) -> None:
    for version in ("1.0.0", "2.0.0"):
        team.put(version)
    promote(team.catalogue, "refunds", "2.0.0", "prod", signer=ANNA)
    selector = parse_selector("prod")
    old = replace(team.resolve("1.0.0"), alias=team.resolve("prod").alias)
    for one in (old, team.resolve("1.0.0")):
        found = verify_resolved(team.catalogue, one, [demand(ANNA)], selector)
        assert [finding.code for finding in found.findings] == ["AD885"]
