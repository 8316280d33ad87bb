"""Private keys: made, opened, and used to sign.

A private key is a PEM file of ours, or is in a key management service that securesystemslib
speaks to. Nothing here asks for a passphrase: it comes from a file.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import UsageError
from ..files.disk import sync_folder
from .keys import (
    PublicKey,
    check_single,
    library_key,
    public_key_of,
    read_key_file,
    require_libraries,
    unreadable,
)

SERVICES = {
    "awskms": "awskms",
    "gcpkms": "gcpkms",
    "azurekms": "azurekms",
    "hv": "vault",
    "hsm": "hsm",
}
"""Schemes of keys that are not files, and the extra of securesystemslib that each needs."""
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would else write other line breaks
PUBLIC = ".pub"
LONGEST_PASSPHRASE = 1023
"""Bytes; OpenSSL takes no more."""


@dataclass(frozen=True)
class Signer:
    """Something that signs with one key. ``library`` is securesystemslib's."""

    key: PublicKey
    library: Any


def is_service(key: str) -> bool:
    """Whether ``--key`` names a key in a service, not a file."""
    return key.partition(":")[0] in SERVICES


def open_signer(
    key: str, passphrase: bytes | None = None, public: PublicKey | None = None
) -> Signer:
    """What signs with a key.

    Args:
        key: The path of a PEM file, or the URI of a key in a service (``awskms:...``).
        passphrase: Of the file.
        public: The public key that is expected; needed for a service.

    Raises:
        UsageError: The key cannot be read or used, is weak, or does not belong to ``public``; the
            libraries are missing.
    """
    require_libraries()
    found = _in_service(key, public) if is_service(key) else _in_file(Path(key), passphrase)
    if public is not None and found.key != public:
        raise unreadable(key, f"it does not belong to the public key {public.name}")
    return found


def _in_file(path: Path, passphrase: bytes | None) -> Signer:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner  # pyright: ignore[reportPrivateImportUsage]

    pem = read_key_file(path)
    check_single(pem, str(path))
    if b"PRIVATE KEY-----" not in pem:
        raise unreadable(str(path), "it is not a private key in PEM")
    try:
        private: Any = load_pem_private_key(pem, passphrase)
    except UnsupportedAlgorithm as error:
        raise unreadable(str(path), "its kind or encryption is unknown") from error
    except TypeError as error:  # the library's answer to a passphrase too many or too few
        why = "it is encrypted, and no --passphrase-file is given"
        if passphrase is not None:
            why = "it is not encrypted, and a --passphrase-file is given"
        raise unreadable(str(path), why) from error
    except Exception as error:  # the library's own, and what its parsers raise
        why = "it is not a private key in PEM"
        if passphrase is not None:
            why = "the passphrase is wrong, or it is not a private key in PEM"
        raise unreadable(str(path), why) from error
    key = public_key_of(private.public_key(), str(path))
    return Signer(key, CryptoSigner(private, library_key(key)))


def _in_service(uri: str, public: PublicKey | None) -> Signer:
    from securesystemslib.exceptions import UnsupportedLibraryError
    from securesystemslib.signer import Signer as LibrarySigner  # pyright: ignore[reportPrivateImportUsage]

    if public is None:
        raise unreadable(uri, "the public key of a key in a service must be given too")
    try:
        return Signer(public, LibrarySigner.from_priv_key_uri(uri, library_key(public)))
    except UnsupportedLibraryError as error:
        extra = SERVICES[uri.partition(":")[0]]
        raise UsageError(
            codes.SIGNING_UNAVAILABLE.finding(
                f"The key {uri} needs more packages",
                found=error,
                hint=f"pip install 'securesystemslib[{extra}]'",
            )
        ) from error
    except Exception as error:  # whatever the client of the service raises
        raise failed(uri, error) from error


def failed(name: str, error: Exception) -> UsageError:
    """The finding for what a library or a service raised."""
    reason = f"{type(error).__name__}: {error}"[:300]
    return UsageError(codes.SIGNING_FAILED.finding(f"Cannot sign with {name}", found=reason))


def read_passphrase(path: Path) -> bytes:
    """The passphrase in a file, without the line break at its end. Raises :class:`UsageError`."""
    raw = read_key_file(path)
    passphrase = raw.removesuffix(b"\n").removesuffix(b"\r")
    if not passphrase or len(passphrase) > LONGEST_PASSPHRASE:
        raise UsageError(
            codes.KEY_UNREADABLE.finding(
                f"Invalid passphrase in {path}",
                found=f"{len(passphrase)} bytes",
                expected=f"1 to {LONGEST_PASSPHRASE} bytes",
                hint="Write the passphrase into the file.",
            )
        )
    return passphrase


def new_pair(path: Path, passphrase: bytes | None = None) -> PublicKey:
    """Write a new Ed25519 key to ``path`` (mode 600) and its public key to ``path.pub``: both or
    neither, and over nothing that exists.

    Raises:
        UsageError: One of them exists or cannot be written; the libraries are missing.
    """
    require_libraries()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    if os.path.lexists(path):
        raise _unwritten(path, FileExistsError())
    private = Ed25519PrivateKey.generate()
    beside = path.with_name(path.name + PUBLIC) if path.name else path
    key = public_key_of(private.public_key(), str(beside))
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    _create(beside, key.pem.encode(), 0o644)
    try:
        _create(path, secret, 0o600)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    sync_folder(path.parent)
    return key


def _create(path: Path, content: bytes, mode: int) -> None:
    """Write a file that does not exist; if that fails, none is left."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, mode)
    except (OSError, ValueError) as error:
        raise _unwritten(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        with suppress(OSError):
            path.unlink()
        if isinstance(error, OSError):
            raise _unwritten(path, error) from error
        raise


def _unwritten(path: Path, error: Exception) -> UsageError:
    what = getattr(error, "strerror", None) or str(error)
    if isinstance(error, FileExistsError):
        return UsageError(codes.KEY_UNWRITTEN.finding(f"{path} exists, and is not overwritten"))
    return UsageError(codes.KEY_UNWRITTEN.finding(f"Cannot write {path}: {what}"))
