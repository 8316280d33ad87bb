"""Public keys: one id for each, and which are refused."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import UsageError
from adapterdock.manifests.findings.finding import Where
from adapterdock.registry.signatures.keys import (
    LIMIT,
    distinct,
    library_key,
    load_public_key,
    parse_public_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from support.signing import ACCEPTED, MAKE, WEAK, private_pem, public_pem

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("kind", ACCEPTED)
def test_the_id_is_the_sha256_of_the_der_and_the_library_uses_it(kind: str) -> None:
    pem = public_pem(MAKE[kind]())
    key = parse_public_key(pem, "k.pub")
    der = load_pem_public_key(pem).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key.id == hashlib.sha256(der).hexdigest() == library_key(key).keyid


@pytest.mark.parametrize("kind", WEAK)
def test_a_weak_or_unknown_kind_of_key_is_refused(kind: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_public_key(public_pem(MAKE[kind]()), "k.pub")
    assert refused.value.code == "AD882"
    assert "k.pub" in str(refused.value)


def test_one_key_in_two_spellings_is_one_key(tmp_path: Path) -> None:
    pem = public_pem(MAKE["p256"]())
    (tmp_path / "a.pub").write_bytes(pem)
    (tmp_path / "b.pub").write_bytes(b"a comment\r\n" + pem.replace(b"\n", b"\r\n"))
    keys = [load_public_key(text, tmp_path) for text in ("a.pub", "b.pub", pem.decode())]
    assert len({key.id for key in keys}) == len(distinct(keys)) == 1
    assert len({key.pem for key in keys}) == 1


def test_a_compressed_point_is_the_same_key() -> None:
    import base64

    private = MAKE["p256"]()
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    header = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    body = base64.b64encode(header + point).decode()
    pem = f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n".encode()
    assert parse_public_key(pem, "short") == parse_public_key(public_pem(private), "long")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not PEM"),
        (b"hello", "not PEM"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a public key"),
        (b"-----BEGIN PUBLIC KEY-----\n", "not a public key"),
        (b"x" * (LIMIT + 1), "more than"),
        (private_pem(MAKE["ed25519"]()), "private key"),
        (public_pem(MAKE["ed25519"]()) * 2, "2 PEM blocks"),
    ],
    ids=["empty", "text", "der", "cut", "large", "private", "two"],
)
def test_what_is_not_one_public_key_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "k.pub").write_bytes(content)
    with pytest.raises(UsageError, match=says) as refused:
        load_public_key("k.pub", tmp_path, Where("adapters.yaml", line=3))
    assert refused.value.code == "AD881"
    assert refused.value.findings[0].where.line == 3


@pytest.mark.parametrize("text", ["missing.pub", ".", "a\0b", "~nobody-here/k.pub", "x" * 5000])
def test_a_path_without_a_key_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_public_key(text, tmp_path)
    assert refused.value.code == "AD881"


def test_a_pipe_in_place_of_a_key_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "k.pub")
    with pytest.raises(UsageError, match="not a file"):
        load_public_key("k.pub", tmp_path)


@SLOW
@given(some.binary(max_size=100))
def test_any_bytes_are_a_key_or_refused(raw: bytes) -> None:
    block = b"-----BEGIN PUBLIC KEY-----\n" + raw + b"\n-----END PUBLIC KEY-----\n"
    for pem in (raw, block):
        with pytest.raises(UsageError):
            parse_public_key(pem, "k.pub")


def test_without_the_extra_a_key_is_refused_clearly() -> None:
    code = """
import sys
sys.modules["cryptography"] = None
from adapterdock.manifests.findings.errors import UsageError
from adapterdock.registry.signatures import signatures, trust
from adapterdock.registry.signatures.keys import parse_public_key
from adapterdock.registry.signatures.signer import new_pair, open_signer
for act in (lambda: parse_public_key(b"", "k"), lambda: open_signer("k"), lambda: new_pair("k")):
    try:
        act()
    except UsageError as error:
        print(error.code, error.findings[0].hint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split("\n")[:3] == ["AD880 Run `pip install 'adapterdock[sign]'`."] * 3, (
        done.stderr
    )


def test_importing_the_rooms_of_signatures_imports_no_library() -> None:
    code = (
        "import sys; from adapterdock.registry.signatures import signatures, signer, trust; "
        "print({'cryptography', 'securesystemslib'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
