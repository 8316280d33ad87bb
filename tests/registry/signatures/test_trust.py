"""Whether enough trusted keys signed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from adapterdock.manifests.findings.errors import PolicyError
from adapterdock.manifests.findings.finding import Where
from adapterdock.registry.signatures.envelope import (
    Envelope,
    InvalidEnvelopeError,
    Kind,
    Signature,
    SignedFile,
    sign,
)
from adapterdock.registry.signatures.keys import parse_public_key
from adapterdock.registry.signatures.trust import Requirement, decide, requirement, verify
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from support.signing import make_signer

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

FILE = SignedFile(Kind.ENTRY, "r1", "adapters/a/versions/1.0.0.json", "sha256:" + "1" * 64)
ANNA, BEN, CLEO = (make_signer(name=f"{name}.pub") for name in ("anna", "ben", "cleo"))
KEYS = [signer.key for signer in (ANNA, BEN, CLEO)]


def envelopes(*signers: object) -> Mapping[str, Envelope]:
    return {f"{n}.json": sign(FILE, one) for n, one in enumerate(signers)}  # type: ignore[arg-type]


def codes(
    required: list[Requirement], found: Mapping[str, Envelope | InvalidEnvelopeError]
) -> list[str]:
    return [finding.code for finding in verify(FILE, found, required).findings]


def test_enough_signatures_satisfy_and_the_keys_are_listed() -> None:
    result = verify(FILE, envelopes(ANNA, BEN), [requirement(KEYS, 2)])
    assert result.findings == ()
    assert result.keys == tuple(sorted([ANNA.key.id, BEN.key.id]))


def test_too_few_signatures_are_refused_and_the_missing_keys_named() -> None:
    where = Where("policy.yaml", line=7)
    (finding,) = verify(FILE, envelopes(ANNA), [requirement(KEYS, 3, where)]).findings
    assert (finding.code, finding.where) == ("AD885", where)
    assert "has 1 of 3 required signatures" in finding.message
    assert "ben.pub" in str(finding.expected)
    assert "anna.pub" not in str(finding.expected)


def test_no_signature_and_one_by_another_key_are_refused() -> None:
    assert codes([requirement([ANNA.key])], {}) == ["AD885"]
    assert codes([requirement([ANNA.key])], envelopes(BEN)) == ["AD885"]


def test_one_key_that_signed_twice_or_under_two_ids_counts_once() -> None:
    first = sign(FILE, ANNA)
    value = first.signatures[0].value
    renamed = replace(first, signatures=(Signature("f" * 64, value),))
    both = replace(first, signatures=(*first.signatures, Signature("f" * 64, value)))
    found = {"1": first, "2": first, "3": renamed, "4": both}
    assert codes([requirement([ANNA.key, BEN.key], 2)], found) == ["AD885"]


def test_one_key_that_signs_in_the_name_of_another_does_not_count() -> None:
    first = sign(FILE, ANNA)
    stolen = replace(first, signatures=(Signature(BEN.key.id, first.signatures[0].value),))
    found = {"1": first, "2": stolen}
    assert codes([requirement([ANNA.key, BEN.key], 2)], found) == ["AD884", "AD885"]


@pytest.mark.parametrize("threshold", [-1, 0, 2, 3])
def test_a_threshold_that_no_different_keys_reach_is_refused(threshold: int) -> None:
    again = parse_public_key(ANNA.key.pem.encode() + b"\n", "copy.pub")
    with pytest.raises(PolicyError) as refused:
        requirement([ANNA.key, ANNA.key, again], threshold)
    assert refused.value.code == "AD887"


def test_a_requirement_without_keys_is_refused() -> None:
    with pytest.raises(PolicyError):
        requirement([])


def test_a_file_that_changed_after_it_was_signed_is_not_to_be_signed_again() -> None:
    changed = replace(FILE, digest="sha256:" + "2" * 64)
    _, finding = verify(changed, envelopes(ANNA), [requirement([ANNA.key])]).findings
    assert "1 more does not count: it signs other bytes" in str(finding.found)
    assert "only if you made the change" in str(finding.hint)
    _, finding = verify(FILE, {}, [requirement([ANNA.key]), requirement([BEN.key])]).findings
    assert "adapterdock sign" in str(finding.hint)


def test_every_policy_in_force_must_be_satisfied() -> None:
    manifest, platform = requirement([ANNA.key, BEN.key]), requirement([CLEO.key])
    assert codes([manifest, platform], envelopes(ANNA)) == ["AD885"]
    assert codes([manifest, platform], envelopes(CLEO)) == ["AD885"]
    assert codes([manifest, platform], envelopes(ANNA, CLEO)) == []


def test_a_signature_that_does_not_count_is_a_warning_beside_good_ones() -> None:
    other = replace(FILE, path="adapters/a/versions/2.0.0.json")
    found = {
        "good": sign(FILE, ANNA),
        "copied": sign(other, ANNA),
        "broken": InvalidEnvelopeError("it is not valid JSON"),
    }
    result = verify(FILE, found, [requirement([ANNA.key])])
    assert [finding.code for finding in result.findings] == ["AD884", "AD884"]
    assert {finding.severity.value for finding in result.findings} == {"warning"}
    assert "copied does not count" in result.findings[0].message
    assert codes([requirement([ANNA.key])], {"copied": found["copied"]}) == ["AD884", "AD885"]


def test_without_a_policy_nothing_is_verified() -> None:
    found = {"broken": InvalidEnvelopeError("x")}
    result = verify(FILE, found, [])
    assert (result.keys, result.findings) == ((), ())


@SLOW
@given(some.sets(some.sampled_from(KEYS)), some.lists(some.sampled_from(KEYS)), some.integers(1, 3))
def test_the_decision_counts_different_trusted_keys(
    trusted: set[object], signed: list[object], threshold: int
) -> None:
    required = Requirement(tuple(key for key in KEYS if key in trusted), threshold)
    ids = [key.id for key in KEYS if key in signed] * 2
    enough = len(trusted & set(signed)) >= threshold
    assert (decide("x", required, ids) is None) == enough
