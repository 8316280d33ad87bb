"""From the policies in force to the keys that must have signed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import AdapterdockError, PolicyError, UsageError
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.language.schema import Policy
from adapterdock.manifests.language.selector import parse_selector
from adapterdock.manifests.language.source import Source
from adapterdock.registry.access.demands import demands_of, require_trusted
from adapterdock.registry.catalogue.catalogue import Catalogue
from adapterdock.registry.catalogue.promote import promote
from adapterdock.registry.catalogue.publish import publish_entry
from adapterdock.registry.signatures.envelope import Kind
from support.published import contents, entry, registry
from support.signing import MAKE, WEAK, make_signer, public_pem

ANNA, BEN = make_signer(name="anna.pub"), make_signer(name="ben.pub")
WHERE = Where("adapters.yaml", ("adapters", "tone", "source"), 3, 5)


@pytest.fixture
def team(tmp_path: Path) -> Catalogue:
    made = registry(tmp_path / "registry")
    files = contents(tmp_path / "files", "weights")
    publish_entry(made, entry("1.0.0", files), files, signer=ANNA)
    promote(made, "refunds", "1.0.0", "prod")
    (tmp_path / "anna.pub").write_text(ANNA.key.pem)
    return made


def policy(**fields: object) -> Policy:
    return Policy.model_validate(fields, strict=False)


def keys(team: Catalogue, folder: Path, *policies: Policy, select: str = "1.0.0") -> object:
    selector = parse_selector(select)
    assert selector is not None
    resolved = team.resolve("refunds", selector)
    place = Source.parse("./registry")
    return require_trusted(team, place, resolved, policies, folder, WHERE, selector)


def refusal(team: Catalogue, folder: Path, *policies: Policy, select: str = "1.0.0") -> list[str]:
    with pytest.raises(AdapterdockError) as refused:
        keys(team, folder, *policies, select=select)
    return [finding.code for finding in refused.value.findings]


def test_keys_are_paths_or_pem_and_those_that_signed_are_returned(
    team: Catalogue, tmp_path: Path
) -> None:
    for key in ("anna.pub", str(tmp_path / "anna.pub"), ANNA.key.pem):
        rule = policy(require_signature={"keys": [key, BEN.key.pem]})
        assert keys(team, tmp_path, rule) == (ANNA.key.id,)
    assert keys(team, tmp_path, Policy()) == ()


def test_keys_of_an_allowed_registry_are_demanded_of_that_registry_alone(
    team: Catalogue, tmp_path: Path
) -> None:
    here = {"url": str(tmp_path / "registry")}
    signed = {**here, "id": team.id, "keys": [ANNA.key.pem]}
    elsewhere = {"url": "s3://b/r", "keys": [BEN.key.pem]}
    assert keys(team, tmp_path, policy(registries=[signed, elsewhere])) == (ANNA.key.id,)
    assert keys(team, tmp_path, policy(registries=[here])) == ()
    by_ben = policy(registries=[{**here, "keys": [BEN.key.pem]}])
    assert refusal(team, tmp_path, by_ben) == ["AD885"]
    assert refusal(team, tmp_path, policy(registries=[elsewhere])) == ["AD856"]
    assert refusal(team, tmp_path, policy(registries=[{**here, "id": "f" * 32}])) == ["AD856"]
    two = {**here, "keys": [ANNA.key.pem, BEN.key.pem], "threshold": 2}
    assert refusal(team, tmp_path, policy(registries=[two])) == ["AD885"]


def test_policies_are_intersected(team: Catalogue, tmp_path: Path) -> None:
    by_anna = policy(require_signature={"keys": [ANNA.key.pem]})
    by_ben = policy(require_signature={"keys": [BEN.key.pem]})
    assert keys(team, tmp_path, by_anna, Policy()) == (ANNA.key.id,)
    assert refusal(team, tmp_path, by_anna, by_ben) == ["AD885"]
    everything = policy(
        require_signature={"of": ["entries", "aliases", "marks"], "keys": [ANNA.key.pem]}
    )
    assert keys(team, tmp_path, everything) == (ANNA.key.id,)
    assert refusal(team, tmp_path, by_anna, everything, select="prod") == ["AD885"]


def test_each_word_of_a_policy_is_a_kind(team: Catalogue, tmp_path: Path) -> None:
    rule = policy(require_signature={"of": ["entries", "aliases", "marks"], "keys": [ANNA.key.pem]})
    (demand,) = demands_of([rule], Source.parse("./registry"), team.id, tmp_path, WHERE)
    assert demand.kinds == {Kind.ENTRY, Kind.ALIAS, Kind.MARK}


@pytest.mark.parametrize("kind", WEAK)
def test_a_weak_key_in_a_policy_is_refused_though_another_one_signed(
    team: Catalogue, tmp_path: Path, kind: str
) -> None:
    weak = public_pem(MAKE[kind]()).decode()
    rule = policy(require_signature={"keys": [ANNA.key.pem, weak]})
    assert refusal(team, tmp_path, rule) == ["AD882"]


@pytest.mark.parametrize(
    ("required", "code"),
    [
        ({"keys": ["missing.pub"]}, "AD881"),
        ({"keys": [ANNA.key.pem], "threshold": 2}, "AD887"),
        ({"keys": [ANNA.key.pem, "anna.pub"], "threshold": 2}, "AD887"),
        ({"keys": ["-----BEGIN PUBLIC KEY-----\nxx\n-----END PUBLIC KEY-----"]}, "AD881"),
    ],
)
def test_what_cannot_be_checked_is_refused(
    team: Catalogue, tmp_path: Path, required: dict[str, object], code: str
) -> None:
    assert refusal(team, tmp_path, policy(require_signature=required)) == [code]
    listed = {"url": str(tmp_path / "registry"), **required}
    assert refusal(team, tmp_path, policy(registries=[listed])) == [code]


def test_without_the_libraries_a_required_signature_is_an_error(
    team: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "securesystemslib.signer", None)
    rule = policy(require_signature={"keys": [ANNA.key.pem]})
    with pytest.raises(UsageError) as refused:
        keys(team, tmp_path, rule)
    assert refused.value.code == "AD880"
    assert keys(team, tmp_path, Policy()) == ()


def test_a_threshold_without_keys_is_refused(team: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as refused:
        keys(
            team, tmp_path, policy(registries=[{"url": str(tmp_path / "registry"), "threshold": 2}])
        )
    assert refused.value.code == "AD887"
