"""Private keys: made, opened, refused."""

from __future__ import annotations

import os
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.findings.errors import UsageError
from adapterdock.registry.signatures import signer as module
from adapterdock.registry.signatures.envelope import Kind, SignedFile, sign, signers_of
from adapterdock.registry.signatures.keys import load_public_key
from adapterdock.registry.signatures.signer import new_pair, open_signer, read_passphrase
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME
from support.signing import ACCEPTED, MAKE, WEAK, make_signer, private_pem

FILE = SignedFile(Kind.ENTRY, "r1", "adapters/a/versions/1.0.0.json", "sha256:" + "1" * 64)


@pytest.mark.parametrize("passphrase", [None, b"open sesame"])
def test_a_new_pair_signs_and_verifies(tmp_path: Path, passphrase: bytes | None) -> None:
    path = tmp_path / "team.key"
    made = new_pair(path, passphrase)
    assert path.stat().st_mode & 0o777 == 0o600
    public = load_public_key("team.key.pub", tmp_path)
    assert public == made
    signer = open_signer(str(path), passphrase, public)
    assert signers_of(sign(FILE, signer), FILE, [public]) == {public.id}


@pytest.mark.parametrize("name", ["team.key", "team.key.pub"])
def test_a_pair_overwrites_nothing_and_is_written_completely_or_not(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match="is not overwritten") as refused:
        new_pair(tmp_path / "team.key")
    assert refused.value.code == "AD883"
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "mine")]


def test_where_the_private_key_cannot_be_written_no_public_one_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    calls: list[int] = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        new_pair(tmp_path / "team.key")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("path", ["missing/team.key", "x" * 300, "a\0b"])
def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UsageError) as refused:
        new_pair(tmp_path / path)
    assert refused.value.code == "AD883"


@pytest.mark.parametrize("kind", ACCEPTED)
def test_any_accepted_pem_signs(tmp_path: Path, kind: str) -> None:
    (tmp_path / "k").write_bytes(private_pem(MAKE[kind](), b"x"))
    signer = open_signer(str(tmp_path / "k"), b"x")
    assert signers_of(sign(FILE, signer), FILE, [signer.key]) == {signer.key.id}


@pytest.mark.parametrize("kind", WEAK)
def test_a_weak_private_key_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "k").write_bytes(private_pem(MAKE[kind]()))
    with pytest.raises(UsageError) as refused:
        open_signer(str(tmp_path / "k"))
    assert refused.value.code == "AD882"


def test_an_openssl_key_with_its_curve_before_it_signs(tmp_path: Path) -> None:
    old = MAKE["p256"]().private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    curve = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    (tmp_path / "k").write_bytes(curve + old)
    assert sign(FILE, open_signer(str(tmp_path / "k"))).signatures


def test_an_openssl_key_signs(tmp_path: Path) -> None:
    private = MAKE["rsa3072"]()
    old = private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (tmp_path / "k").write_bytes(old)
    assert sign(FILE, open_signer(str(tmp_path / "k"))).signatures


@pytest.mark.parametrize(
    ("locked", "given", "says"),
    [
        (b"right", None, "no --passphrase-file"),
        (b"right", b"wrong", "passphrase is wrong"),
        (None, b"needless", "not encrypted"),
    ],
)
def test_a_wrong_passphrase_is_named_without_being_shown(
    tmp_path: Path, locked: bytes | None, given: bytes | None, says: str
) -> None:
    (tmp_path / "k").write_bytes(private_pem(MAKE["ed25519"](), locked))
    with pytest.raises(UsageError, match=says) as refused:
        open_signer(str(tmp_path / "k"), given)
    assert refused.value.code == "AD881"
    assert "needless" not in str(refused.value)


@pytest.mark.parametrize(
    "content", [b"", b"text", b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"]
)
def test_what_is_not_a_private_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "k").write_bytes(content)
    with pytest.raises(UsageError) as refused:
        open_signer(str(tmp_path / "k"))
    assert refused.value.code == "AD881"


def test_a_public_key_does_not_sign(tmp_path: Path) -> None:
    new_pair(tmp_path / "k")
    with pytest.raises(UsageError, match="not a private key"):
        open_signer(str(tmp_path / "k.pub"))


def test_a_private_key_that_does_not_belong_to_the_public_one_is_refused(tmp_path: Path) -> None:
    new_pair(tmp_path / "k")
    other = new_pair(tmp_path / "other")
    with pytest.raises(UsageError, match="does not belong"):
        open_signer(str(tmp_path / "k"), public=other)


@pytest.mark.parametrize(
    ("content", "passphrase"),
    [(b"open sesame\n", b"open sesame"), (b"a b\r\n", b"a b"), (b"x", b"x"), (b" x \n", b" x ")],
)
def test_a_passphrase_is_the_file_without_its_last_line_break(
    tmp_path: Path, content: bytes, passphrase: bytes
) -> None:
    (tmp_path / "p").write_bytes(content)
    assert read_passphrase(tmp_path / "p") == passphrase


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 1024])
def test_an_empty_or_too_long_passphrase_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(UsageError, match="Invalid passphrase"):
        read_passphrase(tmp_path / "p")


class Service:
    """A key management service, as the library calls it."""

    answer: Any = None

    @classmethod
    def from_priv_key_uri(cls, uri: str, public: Any, secrets: Any = None) -> Any:
        if isinstance(cls.answer, Exception) and "locked" in uri:
            raise cls.answer
        return cls()

    def sign(self, data: bytes) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer.sign(data)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> type[Service]:
    assert set(SIGNER_FOR_URI_SCHEME) >= set(module.SERVICES)
    monkeypatch.setitem(SIGNER_FOR_URI_SCHEME, "awskms", Service)
    return Service


def test_a_key_in_a_service_signs(service: type[Service]) -> None:
    real = make_signer()
    service.answer = real.library
    signer = open_signer("awskms:alias/team", public=real.key)
    assert signers_of(sign(FILE, signer), FILE, [real.key]) == {real.key.id}


@pytest.mark.parametrize("answer", [RuntimeError("denied"), make_signer().library, None])
def test_a_service_that_refuses_or_signs_with_another_key_is_a_finding(
    service: type[Service], answer: Any
) -> None:
    service.answer = answer
    with pytest.raises(UsageError) as refused:
        sign(FILE, open_signer("awskms:alias/team", public=make_signer().key))
    assert refused.value.code == "AD886"


def test_a_service_that_cannot_be_opened_is_a_finding(service: type[Service]) -> None:
    service.answer = RuntimeError("no credentials")
    with pytest.raises(UsageError, match="AD886"):
        open_signer("awskms:locked", public=make_signer().key)


def test_a_service_whose_client_is_not_installed_says_what_to_install(
    service: type[Service],
) -> None:
    service.answer = UnsupportedLibraryError("Signing with AWS KMS requires aws-kms")
    with pytest.raises(UsageError) as refused:
        open_signer("awskms:locked", public=make_signer().key)
    assert refused.value.code == "AD880"
    assert refused.value.findings[0].hint == "pip install 'securesystemslib[awskms]'"
    offered = set(metadata("securesystemslib").get_all("Provides-Extra") or ())
    assert set(module.SERVICES.values()) <= offered


def test_a_key_in_a_service_needs_its_public_key(service: type[Service]) -> None:
    with pytest.raises(UsageError, match="public key"):
        open_signer("awskms:alias/team")
