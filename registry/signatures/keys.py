"""Public keys: which are accepted, and one id for each.

The id is the SHA-256 of the key itself (DER, SubjectPublicKeyInfo). It is always computed here and
never read from a file, so one key cannot pass for two. The libraries are imported only when a key
is read: they need 0.2 s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import UsageError
from ...manifests.findings.finding import Where

SMALLEST_RSA, LARGEST_RSA = 3072, 16384
"""Bits. A larger key would only make verifying slow."""
LIMIT = 64 << 10
"""Bytes of a file with a key."""
BEGIN = "-----BEGIN "
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


@dataclass(frozen=True)
class PublicKey:
    """A key of an accepted kind. Two of them are equal if they are the same key.

    Args:
        id: 64 hexadecimal digits, the SHA-256 of its DER.
        kind: Such as ``Ed25519``, ``ECDSA P-256``, ``RSA 3072``.
        pem: In one spelling, whatever file it was read from.
        name: Where it was read from, for messages.
    """

    id: str
    kind: str = field(compare=False)
    pem: str = field(compare=False)
    name: str = field(compare=False)


def require_libraries() -> None:
    """Raise :class:`UsageError` where the extra ``sign`` is not installed."""
    try:
        import_module("cryptography.hazmat.primitives.serialization")
        import_module("securesystemslib.signer")
    except ImportError as error:
        raise UsageError(
            codes.SIGNING_UNAVAILABLE.finding(
                "Signatures need the packages securesystemslib and cryptography", found=str(error)
            )
        ) from error


def load_public_key(text: str, folder: Path, where: Where = Where()) -> PublicKey:  # noqa: B008
    """The public key that a policy or an option names: PEM, or the path of a PEM file.

    Args:
        text: PEM where it contains ``-----BEGIN``, else a path.
        folder: What a relative path is relative to.
        where: The place of ``text``.

    Raises:
        UsageError: It cannot be read, or is too weak; the libraries are missing.
    """
    if BEGIN in text:
        return parse_public_key(text.encode(errors="replace"), "the PEM text", where)
    try:
        path = folder / Path(text).expanduser()
        special = path.exists() and not path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL, or an unknown ~user
        raise unreadable(repr(text[:200]), "it is not a path", where) from error
    if special:  # reading a pipe may never end
        raise unreadable(str(path), "it is not a file", where)
    return parse_public_key(read_key_file(path, where), str(path), where)


def read_key_file(path: Path, where: Where = Where()) -> bytes:  # noqa: B008 - frozen
    """The bytes of a key's file. Raises :class:`UsageError`."""
    try:
        with path.open("rb") as file:
            raw = file.read(LIMIT + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise unreadable(
            repr(path)[:300] if "\0" in str(path) else str(path), why, where
        ) from error
    if len(raw) > LIMIT:
        raise unreadable(str(path), f"it has more than {LIMIT} bytes", where)
    return raw


def parse_public_key(
    pem: bytes,
    name: str,
    where: Where = Where(),  # noqa: B008 - frozen
) -> PublicKey:
    """The public key in this PEM. ``name`` is for messages. Raises :class:`UsageError`."""
    require_libraries()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    check_single(pem, name, where)
    if b"PRIVATE KEY-----" in pem:
        raise unreadable(name, "it is a private key, and a public one is expected", where)
    try:
        key = load_pem_public_key(pem)
    except UnsupportedAlgorithm as error:
        raise weak(name, "its kind is unknown", where) from error
    except Exception as error:  # the library's own, and what its parsers raise
        raise unreadable(name, "it is not a public key in PEM", where) from error
    return public_key_of(key, name, where)


def check_single(pem: bytes, name: str, where: Where = Where()) -> None:  # noqa: B008 - frozen
    """Raise :class:`UsageError` for a file that does not contain exactly one key: only the first
    would be read."""
    parameters = pem.count(b"-----BEGIN EC PARAMETERS-----")  # openssl puts them before the key
    count = pem.count(BEGIN.encode()) - parameters
    if count != 1:
        what = "it is not PEM" if count == 0 else f"it has {count} PEM blocks, and one is expected"
        raise unreadable(name, what, where)


def public_key_of(
    key: Any,
    name: str,
    where: Where = Where(),  # noqa: B008 - frozen
) -> PublicKey:
    """The :class:`PublicKey` of a key of ``cryptography``. Raises :class:`UsageError` for a weak
    one."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    kind, problem = _kind(key)
    if problem is not None:
        raise weak(name, problem, where)
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return PublicKey(hashlib.sha256(der).hexdigest(), kind, pem, name)


def _kind(key: Any) -> tuple[str, str | None]:
    """Its kind, and what is wrong with it."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    if isinstance(key, Ed25519PublicKey):
        return "Ed25519", None
    if isinstance(key, EllipticCurvePublicKey):
        curve = _CURVES.get(key.curve.name)
        if curve is None:
            return "ECDSA", f"it is ECDSA on {key.curve.name}"
        return f"ECDSA {curve}", None
    if isinstance(key, RSAPublicKey):
        size = key.key_size
        fine = SMALLEST_RSA <= size <= LARGEST_RSA
        return f"RSA {size}", None if fine else f"it is RSA with {size} bits"
    return "", f"it is {type(key).__name__.removesuffix('PublicKey')}"


def library_key(key: PublicKey) -> Any:
    """The same key as securesystemslib's, under our id."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey  # pyright: ignore[reportPrivateImportUsage]

    return SSlibKey.from_crypto(load_pem_public_key(key.pem.encode()), keyid=key.id)


def distinct(keys: Iterable[PublicKey]) -> tuple[PublicKey, ...]:
    """Each key once, however often and under whatever name it is listed."""
    return tuple({key.id: key for key in keys}.values())


def unreadable(name: str, why: str, where: Where = Where()) -> UsageError:  # noqa: B008 - frozen
    return UsageError(codes.KEY_UNREADABLE.finding(f"Cannot read the key {name}: {why}", where))


def weak(name: str, why: str, where: Where = Where()) -> UsageError:  # noqa: B008 - frozen
    return UsageError(
        codes.KEY_WEAK.finding(
            f"Refused the key {name}: {why}",
            where,
            expected=f"Ed25519, ECDSA on P-256, P-384 or P-521, or RSA with at least "
            f"{SMALLEST_RSA} bits",
        )
    )
