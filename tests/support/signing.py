"""Keys for the tests of signatures, made in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adapterdock.registry.catalogue.keys import library_key, public_key_of
from adapterdock.registry.catalogue.signer import Signer
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
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
