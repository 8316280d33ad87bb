"""Envelopes: what is read, what verifies, and what is refused."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from adapterdock.registry.records.series import canonical
from adapterdock.registry.signatures.envelope import (
    LIMIT,
    MOST,
    PAYLOAD_TYPE,
    Envelope,
    InvalidEnvelopeError,
    Kind,
    Signature,
    SignedFile,
    read_envelope,
    sign,
    signers_of,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from securesystemslib.dsse import Envelope as LibraryEnvelope
from support.signing import ACCEPTED, make_signer

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

DIGEST = "sha256:" + "1" * 64
FILE = SignedFile(Kind.ENTRY, "registry-1", "adapters/team/refunds/versions/2.1.0.json", DIGEST)
SIGNER = make_signer()
SIGNED = sign(FILE, SIGNER)


def signed_payload(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """A valid signature by ``SIGNER`` over any payload."""
    made = LibraryEnvelope(payload, payload_type, {})
    value = bytes.fromhex(made.sign(SIGNER.library).signature)
    return Envelope(payload, payload_type, (Signature(SIGNER.key.id, value),))


def with_statement(change: Callable[[dict[str, Any]], object]) -> Envelope:
    statement = json.loads(FILE.statement)
    change(statement)
    return signed_payload(canonical(statement))


def test_an_envelope_reads_back_as_it_was_written() -> None:
    assert read_envelope(SIGNED.raw) == SIGNED
    assert read_envelope(SIGNED.raw).raw == SIGNED.raw


def test_the_statement_never_changes_its_spelling() -> None:
    assert FILE.statement == (
        b'{"_type":"https://in-toto.io/Statement/v1","predicate":{"registry":"registry-1"},'
        b'"predicateType":"urn:adapterdock:registry:entry:1","subject":[{"digest":{"sha256":"'
        + b"1" * 64
        + b'"},"name":"adapters/team/refunds/versions/2.1.0.json"}]}\n'
    )


@pytest.mark.parametrize("kind", ACCEPTED)
def test_the_library_verifies_what_we_sign_and_we_what_it_signs(kind: str) -> None:
    signer = make_signer(kind)
    envelope = sign(FILE, signer)
    library = LibraryEnvelope.from_dict(json.loads(envelope.raw))
    assert [*library.verify([signer.library.public_key], 1)] == [signer.key.id]
    theirs = LibraryEnvelope(FILE.statement, PAYLOAD_TYPE, {})
    theirs.sign(signer.library)
    read = read_envelope(json.dumps(theirs.to_dict()).encode())
    assert signers_of(read, FILE, [signer.key]) == {signer.key.id}


@pytest.mark.parametrize(
    "file",
    [
        replace(FILE, digest="sha256:" + "2" * 64),
        replace(FILE, path="adapters/team/refunds/versions/2.1.1.json"),
        replace(FILE, path="adapters/team/others/versions/2.1.0.json"),
        replace(FILE, registry="registry-2"),
        replace(FILE, kind=Kind.MARK),
    ],
    ids=["changed byte", "another version", "another name", "another registry", "another kind"],
)
def test_a_signature_of_one_file_does_not_count_for_another(file: SignedFile) -> None:
    with pytest.raises(InvalidEnvelopeError):
        signers_of(SIGNED, file, [SIGNER.key])


def test_a_signed_value_of_one_alias_does_not_count_for_another() -> None:
    folder = "adapters/team/refunds/aliases"
    staging = SignedFile(Kind.ALIAS, "r", f"{folder}/staging/00000001.json", DIGEST)
    envelope = sign(staging, SIGNER)
    assert signers_of(envelope, staging, [SIGNER.key])
    for path in (f"{folder}/prod/00000001.json", f"{folder}/staging/00000002.json"):
        with pytest.raises(InvalidEnvelopeError, match="staging"):
            signers_of(envelope, replace(staging, path=path), [SIGNER.key])


def test_a_changed_byte_of_the_payload_or_signature_does_not_verify() -> None:
    for at in range(0, len(SIGNED.payload), 20):
        payload = bytearray(SIGNED.payload)
        payload[at] ^= 1
        with pytest.raises(InvalidEnvelopeError, match="is wrong"):
            signers_of(replace(SIGNED, payload=bytes(payload)), FILE, [SIGNER.key])
    value = SIGNED.signatures[0].value
    for other in (b"", value[:-1], value + b"\0", bytes(64), value[::-1]):
        changed = replace(SIGNED, signatures=(Signature(SIGNER.key.id, other),))
        with pytest.raises(InvalidEnvelopeError, match=r"team\.pub is wrong"):
            signers_of(changed, FILE, [SIGNER.key])


def test_another_payload_type_is_refused_signed_or_not() -> None:
    relabelled = replace(SIGNED, payload_type="text/plain")
    with pytest.raises(InvalidEnvelopeError, match="is wrong"):
        signers_of(relabelled, FILE, [SIGNER.key])
    with pytest.raises(InvalidEnvelopeError, match="payload type is 'text/plain'"):
        signers_of(signed_payload(FILE.statement, "text/plain"), FILE, [SIGNER.key])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"), "in-toto"),
        (lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"), "predicate type"),
        (lambda s: s.update(predicateType=Kind.ALIAS.predicate), "predicate type"),
        (lambda s: s.pop("predicateType"), "predicate type"),
        (lambda s: s.pop("predicate"), "another registry"),
        (lambda s: s.update(predicate=[]), "another registry"),
        (lambda s: s.update(subject=[]), "one file"),
        (lambda s: s.update(subject=s["subject"] * 2), "one file"),
        (lambda s: s.update(subject={"0": s["subject"][0]}), "one file"),
        (lambda s: s.update(subject=["x"]), "one file"),
        (lambda s: s["subject"][0].pop("digest"), "no digest"),
        (lambda s: s["subject"][0].update(digest={"sha512": "1" * 64}), "other bytes"),
        (lambda s: s["subject"][0].update(digest={"sha256": None}), "other bytes"),
        (lambda s: s["subject"][0].pop("name"), "it signs"),
    ],
)
def test_a_signed_statement_of_another_shape_is_refused(
    change: Callable[[dict[str, Any]], object], says: str
) -> None:
    with pytest.raises(InvalidEnvelopeError, match=says):
        signers_of(with_statement(change), FILE, [SIGNER.key])


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"_type":1,"_type":2}', b"\xff", b"{" * 9999])
def test_a_signed_payload_that_is_not_a_statement_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidEnvelopeError):
        signers_of(signed_payload(payload), FILE, [SIGNER.key])


def test_a_signature_by_another_key_is_ignored_unless_it_takes_a_trusted_name() -> None:
    other = make_signer(name="other.pub")
    assert signers_of(SIGNED, FILE, [other.key]) == frozenset()
    named = Signature(other.key.id, SIGNED.signatures[0].value)
    with pytest.raises(InvalidEnvelopeError, match=r"other\.pub"):
        signers_of(replace(SIGNED, signatures=(named,)), FILE, [other.key])


def test_a_key_counts_once_however_often_and_under_whatever_id_it_signed() -> None:
    one = SIGNED.signatures[0]
    renamed = Signature("0" * 64, one.value)
    upper = Signature(one.key_id.upper(), one.value)
    many = replace(SIGNED, signatures=(one, one, renamed, upper))
    assert signers_of(many, FILE, [SIGNER.key, SIGNER.key]) == {SIGNER.key.id}


def test_a_wrong_signature_of_one_key_does_not_hide_a_right_one_of_another() -> None:
    other = make_signer()
    wrong = Signature(SIGNER.key.id, bytes(64))
    theirs = sign(FILE, other).signatures[0]
    both = replace(SIGNED, signatures=(wrong, theirs))
    assert signers_of(both, FILE, [SIGNER.key, other.key]) == {other.key.id}


def test_a_flood_of_signatures_of_one_key_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[Signature] = []

    def count(envelope: Envelope, signature: Signature, key: object) -> bool:
        verified.append(signature)
        return False

    monkeypatch.setattr("adapterdock.registry.signatures.envelope.is_good", count)
    many = tuple(Signature(SIGNER.key.id, bytes([n])) for n in range(MOST))
    with pytest.raises(InvalidEnvelopeError):
        signers_of(replace(SIGNED, signatures=many), FILE, [SIGNER.key])
    assert verified == [many[0]]


PLAIN = json.loads(SIGNED.raw)
ONE = PLAIN["signatures"][0]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {**PLAIN, "payload": None},
        {**PLAIN, "payload": "*"},
        {**PLAIN, "payload": "é"},
        {**PLAIN, "payload": [1]},
        {**PLAIN, "payload": "QQ"},
        {**PLAIN, "payloadType": 1},
        {**PLAIN, "signatures": []},
        {**PLAIN, "signatures": {}},
        {**PLAIN, "signatures": None},
        {**PLAIN, "signatures": [ONE] * (MOST + 1)},
        {**PLAIN, "signatures": [None]},
        {**PLAIN, "signatures": [{"sig": ONE["sig"]}]},
        {**PLAIN, "signatures": [{"keyid": 1, "sig": ONE["sig"]}]},
        {**PLAIN, "signatures": [{"keyid": ONE["keyid"]}]},
        {**PLAIN, "signatures": [{**ONE, "sig": 1}]},
        {**PLAIN, "signatures": [{**ONE, "sig": "\ud800"}]},
    ],
)
def test_json_that_is_not_an_envelope_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(InvalidEnvelopeError):
        read_envelope(json.dumps(data).encode())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[" * 100_000,
        SIGNED.raw[:-3],
        b"\xff" + SIGNED.raw,
        SIGNED.raw.replace(b"{", b'{"payload":"",', 1),
        b'{"x":"' + b"x" * LIMIT + b'",' + SIGNED.raw[1:],
    ],
)
def test_bytes_that_are_not_one_small_json_object_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidEnvelopeError):
        read_envelope(raw)


def test_unknown_fields_are_ignored() -> None:
    data = {**PLAIN, "x": 1, "signatures": [{**ONE, "cert": "y"}]}
    assert read_envelope(json.dumps(data).encode()) == SIGNED


_JSON = some.recursive(
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats()
    | some.text(max_size=6)
    | some.sampled_from([PLAIN["payload"], ONE["sig"], ONE["keyid"], PAYLOAD_TYPE]),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(some.sampled_from([*PLAIN, *ONE, "x"]), inner, max_size=4)
    ),
)


@SLOW
@given(some.dictionaries(some.sampled_from([*PLAIN, "x"]), _JSON, max_size=4))
def test_any_json_is_an_envelope_or_refused_and_never_trusted_by_chance(
    fields: dict[str, Any],
) -> None:
    data = {**copy.deepcopy(PLAIN), **fields}
    try:
        envelope = read_envelope(json.dumps(data).encode())
        found = signers_of(envelope, FILE, [SIGNER.key])
    except InvalidEnvelopeError:
        return
    assert read_envelope(envelope.raw) == envelope
    assert not found or envelope.payload == SIGNED.payload


@SLOW
@given(some.binary(max_size=300))
def test_any_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidEnvelopeError):
        read_envelope(raw)


@SLOW
@given(some.integers(0, len(SIGNED.raw) - 1), some.integers(0, 255))
def test_an_envelope_with_a_changed_byte_says_the_same_or_is_refused(at: int, byte: int) -> None:
    raw = bytearray(SIGNED.raw)
    raw[at] = byte
    try:
        envelope = read_envelope(bytes(raw))
        found = signers_of(envelope, FILE, [SIGNER.key])
    except InvalidEnvelopeError:
        return
    # the key's id may be another, which then is not trusted; unused bits of base64 may differ
    assert not found or (envelope.payload, envelope.payload_type) == (FILE.statement, PAYLOAD_TYPE)


@SLOW
@given(_JSON)
def test_any_signed_statement_is_about_the_file_or_refused(predicate: Any) -> None:
    statement = {**json.loads(FILE.statement), "subject": predicate}
    envelope = signed_payload(json.dumps(statement).encode())
    with pytest.raises(InvalidEnvelopeError):
        signers_of(envelope, FILE, [SIGNER.key])


@SLOW
@given(some.binary(max_size=200), some.text(max_size=20), some.lists(some.binary(max_size=80)))
def test_any_envelope_reads_back(payload: bytes, kind: str, values: list[bytes]) -> None:
    signatures = tuple(Signature(str(n), value) for n, value in enumerate(values[:MOST], 1))
    envelope = Envelope(payload, kind, signatures or (Signature("", b""),))
    assert base64.b64encode(payload) in envelope.raw
    assert read_envelope(envelope.raw) == envelope
