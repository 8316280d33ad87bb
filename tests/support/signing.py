"""Keys for the tests of signatures, made in memory."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from adapterdock.registry.access.model_signature import PREDICATE
from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.signatures.envelope import PAYLOAD_TYPE
from adapterdock.registry.signatures.keys import library_key, public_key_of
from adapterdock.registry.signatures.signer import Signer
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

MAKE: dict[str, Callable[[], Any]] = {
    "ed25519": Ed25519PrivateKey.generate,
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "k256": lambda: ec.generate_private_key(ec.SECP256K1()),
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa3072": lambda: rsa.generate_private_key(65537, 3072),
    "dsa": lambda: dsa.generate_private_key(1024),
}
ACCEPTED = ("ed25519", "p256", "p384", "p521", "rsa3072")
WEAK = ("k256", "rsa1024", "rsa2048", "dsa")


def private_pem(private: Any, passphrase: bytes | None = None) -> bytes:
    """PKCS#8, encrypted where there is a passphrase."""
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def public_pem(private: Any) -> bytes:
    """SubjectPublicKeyInfo."""
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def make_signer(kind: str = "ed25519", name: str = "team.pub") -> Signer:
    """Signs with a new key."""
    private = MAKE[kind]()
    key = public_key_of(private.public_key(), name)
    return Signer(key, CryptoSigner(private, library_key(key)))


def model_statement(files: Mapping[str, bytes], **changes: Any) -> dict[str, Any]:
    """What a ``model.sig`` signs."""
    resources = [
        {"name": path, "algorithm": "sha256", "digest": sha256_bytes(raw)[7:]}
        for path, raw in sorted(files.items())
    ]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": "0" * 64}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": resources,
        },
        **changes,
    }


def model_signature(
    files: Mapping[str, bytes],
    *signers: Signer,
    payload_type: str = PAYLOAD_TYPE,
    payload: bytes | None = None,
    **changes: Any,
) -> bytes:
    """A ``model.sig`` as OpenSSF's library writes it, with a signature by each signer."""
    raw = json.dumps(model_statement(files, **changes)).encode() if payload is None else payload
    made = Envelope(raw, payload_type, {})
    values = [bytes.fromhex(made.sign(signer.library).signature) for signer in signers]
    signatures = [{"sig": base64.b64encode(value).decode(), "keyid": ""} for value in values]
    return json.dumps(
        {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": "ignored"}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(raw).decode(),
                "payloadType": payload_type,
                "signatures": signatures,
            },
        }
    ).encode()
