"""``model.sig``: what OpenSSF's library wrote is verified, and nothing else passes for it.

``model_signatures.json`` was written by ``model-signing`` 1.1.1 (``use_elliptic_key_signer``) for a
folder of :data:`FILES`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import yaml
from adapterdock.manifests.findings.errors import AdapterdockError
from adapterdock.registry.access.model_signature import (
    LIMIT,
    InvalidModelSignatureError,
    read_model_signature,
)
from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.files.facts import FileFact
from adapterdock.registry.signatures.keys import PublicKey, parse_public_key
from hypothesis import given, settings
from hypothesis import strategies as some
from support.hub_server import HubServer
from support.project import Project, codes, files_of
from support.signing import make_signer, model_signature, model_statement

FILES = {
    "adapter_config.json": b'{"peft_type": "LORA"}',
    "adapter_model.safetensors": b"weights",
    "sub/y.txt": b"x",
}
WRITTEN: dict[str, dict[str, str]] = json.loads(
    Path(__file__).with_name("model_signatures.json").read_text("utf-8")
)
ANNA, BEN = make_signer("p256", "anna.pub"), make_signer("p384", "ben.pub")


def facts(files: Mapping[str, bytes] = FILES) -> list[FileFact]:
    return [FileFact(path, len(raw), sha256_bytes(raw)) for path, raw in files.items()]


def key_of(kind: str) -> PublicKey:
    return parse_public_key(WRITTEN[kind]["public"].encode(), f"{kind}.pub")


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_the_library_wrote_is_verified(kind: str) -> None:
    key = key_of(kind)
    signed = read_model_signature(WRITTEN[kind]["signature"].encode(), [key, ANNA.key])
    assert signed.keys == {key.id}
    assert signed.problem(facts()) is None
    assert signed.problem(facts()[:1]) is None


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_changed_byte_of_what_the_library_wrote_is_refused(kind: str) -> None:
    data = json.loads(WRITTEN[kind]["signature"])
    envelope = data["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"]).replace(b"sub/y.txt", b"sub/z.txt")
    envelope["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(InvalidModelSignatureError, match="trusted key"):
        read_model_signature(json.dumps(data).encode(), [key_of(kind)])


def test_a_file_that_is_changed_or_not_signed_is_a_problem() -> None:
    signed = read_model_signature(model_signature(FILES, ANNA), [ANNA.key])
    changed = signed.problem(facts({**FILES, "adapter_model.safetensors": b"other"}))
    assert changed == "adapter_model.safetensors is not the one that was signed"
    assert signed.problem(facts({**FILES, "new.txt": b""})) == "new.txt is not signed"
    unknown = [FileFact("adapter_model.safetensors", 7)]
    assert signed.problem(unknown, complete=False) is None
    assert signed.problem(unknown) is not None


def test_only_trusted_keys_count_and_each_once() -> None:
    raw = model_signature(FILES, ANNA, ANNA, BEN)
    assert read_model_signature(raw, [ANNA.key, BEN.key]).keys == {ANNA.key.id, BEN.key.id}
    assert read_model_signature(model_signature(FILES, ANNA, ANNA), [ANNA.key, BEN.key]).keys == {
        ANNA.key.id
    }
    with pytest.raises(InvalidModelSignatureError, match="trusted key"):
        read_model_signature(raw, [make_signer("p256").key])


NO_PREDICATE: dict[str, Any] = {"predicate": {"serialization": {"method": "files"}}}
SHARDS: dict[str, Any] = {
    "predicate": {"serialization": {"method": "shards", "hash_type": "sha256"}, "resources": []}
}
TWICE: dict[str, Any] = model_statement(FILES)
TWICE["predicate"]["resources"] *= 2
BLAKE: dict[str, Any] = model_statement(FILES)
BLAKE["predicate"]["resources"][0]["algorithm"] = "blake2b"


@pytest.mark.parametrize(
    "raw",
    [
        model_signature(FILES, ANNA, payload_type="text/plain"),
        model_signature(FILES, ANNA, predicateType="https://model_signing/Digests/v0.1"),
        model_signature(FILES, ANNA, _type="other"),
        model_signature(FILES, ANNA, **NO_PREDICATE),
        model_signature(FILES, ANNA, **SHARDS),
        model_signature(FILES, ANNA, payload=json.dumps(TWICE).encode()),
        model_signature(FILES, ANNA, payload=json.dumps(BLAKE).encode()),
        model_signature(FILES, ANNA, payload=b"[]"),
        model_signature(FILES, ANNA).replace(b"bundle.v0.3", b"bundle.v9.9"),
        model_signature(FILES, *[ANNA] * 65),
        model_signature(FILES),
        b"{}",
        b"",
        b" " * (LIMIT + 1),
    ],
)
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidModelSignatureError):
        read_model_signature(raw, [ANNA.key])


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(max_size=5),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(
            some.sampled_from(["mediaType", "dsseEnvelope", "payload", "signatures", "sig"]), inner
        )
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100)
@given(JSON)
def test_no_input_gives_another_exception(data: Any) -> None:
    base = {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "dsseEnvelope": data}
    for raw in (json.dumps(data).encode(), json.dumps(base).encode()):
        with pytest.raises(InvalidModelSignatureError):
            read_model_signature(raw, [ANNA.key])


@pytest.fixture
def signed(project: Project) -> Project:
    """A project whose adapter is signed, with a platform's policy that requires it."""
    project.base()
    folder = project.adapter("tone")
    project.write({"tone": "./tone"})
    (folder / "model.sig").write_bytes(model_signature(files_of(folder), ANNA))
    demand(project, [ANNA.key.pem])
    return project


def demand(project: Project, keys: list[str], threshold: int = 1) -> None:
    rule = {"require_model_signature": {"keys": keys, "threshold": threshold}}
    (project.folder / "policy.yaml").write_text(yaml.safe_dump(rule))


def validate(project: Project) -> list[str]:
    policy = project.folder / "policy.yaml"
    return codes(adapterdock.validate(project.manifest, policy=policy).errors)


def lock(project: Project) -> object:
    return adapterdock.lock(project.manifest, policy=project.folder / "policy.yaml")


def pull(project: Project, **options: Any) -> Any:
    return adapterdock.pull(
        project.manifest, policy=project.folder / "policy.yaml", with_base=False, **options
    )


def refused(act: Callable[[], object]) -> list[str]:
    with pytest.raises(AdapterdockError) as caught:
        act()
    return [finding.code for finding in caught.value.findings]


def test_a_signed_adapter_is_used(signed: Project) -> None:
    assert validate(signed) == []
    lock(signed)
    assert pull(signed).adapters["tone"]
    (signed.folder / "tone/notes.txt").write_text("not used, so not signed")
    assert pull(signed).adapters["tone"]


def test_a_changed_adapter_is_refused(signed: Project) -> None:
    signed.adapter("tone", seed=1)
    assert refused(lambda: lock(signed)) == ["AD850"]
    assert refused(lambda: pull(signed)) == ["AD850"]


def test_an_adapter_without_a_signature_is_refused_with_a_lock_too(signed: Project) -> None:
    adapterdock.lock(signed.manifest)
    adapterdock.pull(signed.manifest)
    signature = signed.folder / "tone/model.sig"
    raw = signature.read_bytes()
    signature.unlink()
    assert validate(signed) == ["AD850"]
    assert refused(lambda: pull(signed)) == ["AD850"]
    signature.write_bytes(raw)
    pull(signed)
    signature.unlink()
    assert pull(signed).adapters["tone"]  # the cache has the signature of these bytes
    signed.adapter("tone", seed=1)
    adapterdock.lock(signed.manifest, upgrade_all=True)
    assert refused(lambda: pull(signed)) == ["AD850"]


def test_every_policy_has_its_own_keys_and_threshold(signed: Project) -> None:
    demand(signed, [BEN.key.pem])
    assert validate(signed) == ["AD850"]
    demand(signed, [ANNA.key.pem, BEN.key.pem], threshold=2)
    assert validate(signed) == ["AD885"]
    folder = signed.folder / "tone"
    files = {path: raw for path, raw in files_of(folder).items() if path != "model.sig"}
    (folder / "model.sig").write_bytes(model_signature(files, ANNA, BEN))
    assert validate(signed) == []
    rule = {"require_model_signature": {"keys": [make_signer("p256").key.pem]}}
    signed.write({"tone": "./tone"}, policy=rule)
    assert validate(signed) == ["AD885"]


def test_what_cannot_be_checked_is_refused(signed: Project) -> None:
    demand(signed, ["missing.pub"])
    assert validate(signed) == ["AD881"]
    demand(signed, [ANNA.key.pem], threshold=2)
    assert validate(signed) == ["AD887"]
    demand(signed, [ANNA.key.pem])
    (signed.folder / "tone/model.sig").write_bytes(b"{" * (LIMIT + 10))
    assert validate(signed) == ["AD850"]


def test_an_adapter_of_the_hub_is_verified_and_used_offline_later(
    signed: Project, hub: HubServer
) -> None:
    hub.commit("acme/tone", files_of(signed.folder / "tone"))
    signed.write({"tone": "hf://acme/tone"})
    assert validate(signed) == []
    lock(signed)
    pull(signed)
    hub.requests.clear()
    assert pull(signed, offline=True).adapters["tone"]
    assert hub.requests == []
    demand(signed, [BEN.key.pem])
    assert refused(lambda: pull(signed)) == ["AD850"]
