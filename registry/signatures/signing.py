"""What can be signed in a registry, and adding a signature to it.

A signature is written before what it signs, so nothing is ever there without it. Where something
else was written instead, the signature is removed again: it would sign bytes that nobody has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import PolicyError
from ...manifests.findings.finding import Where
from ..records.journal import now
from ..records.noted import Told, log_warning, noted
from ..records.series import Value, file_of
from ..storages.layout import (
    RULES,
    entry_file,
    rules_signatures_folder,
    signatures_folder,
    value_signatures_folder,
)
from ..storages.storage import Storage
from .envelope import MOST, Envelope, InvalidEnvelopeError, Kind, SignedFile, sign, signers_of
from .signatures import add_signature, read_signatures, signature_files
from .signer import Signer


@dataclass(frozen=True)
class Signable:
    """A file of a registry, and the folder that has its signatures."""

    file: SignedFile
    folder: str


def entry_of(registry: str, name: str, version: str, digest: str) -> Signable:
    """The entry of a version. ``registry`` is the registry's id, ``digest`` the entry's."""
    path = entry_file(name, version)
    return Signable(
        SignedFile(Kind.ENTRY, registry, path, digest), signatures_folder(name, version)
    )


def value_of(
    registry: str, kind: Kind, name: str, series: str, number: int, digest: str
) -> Signable:
    """One value of an alias, or one mark; ``series`` is its folder."""
    path = f"{series}/{file_of(number)}"
    folder = value_signatures_folder(name, series, number)
    return Signable(SignedFile(kind, registry, path, digest), folder)


def rules_of(registry: str, value: Value) -> Signable:
    """One file of the registry's rules."""
    path = f"{RULES}/{file_of(value.number)}"
    folder = rules_signatures_folder(value.number)
    return Signable(SignedFile(Kind.RULES, registry, path, value.digest), folder)


def envelopes_of(
    storage: Storage, signable: Signable
) -> dict[str, Envelope | InvalidEnvelopeError]:
    """The signatures that are there, by path. One listing, and a read for each."""
    return dict(read_signatures(storage, signable.folder, storage.find(signable.folder)))


def add(storage: Storage, signable: Signable, signer: Signer) -> str | None:
    """Sign a file; the new signature's path, or ``None`` where the key has signed it already.

    Raises:
        UsageError: The key, or the service that has it, refuses.
        PolicyError: There are as many signatures as are ever read.
    """
    paths = storage.find(signable.folder)
    for envelope in read_signatures(storage, signable.folder, paths).values():
        if _is_by(envelope, signable.file, signer):
            return None
    if len(signature_files(signable.folder, paths)) >= MOST:
        raise PolicyError(
            codes.SIGNING_FAILED.finding(
                f"{signable.file.path} has {MOST} signatures already",
                Where(file=storage.url),
                expected=f"fewer than {MOST}: no more are read",
                hint="Publish another version, or promote again.",
            )
        )
    return add_signature(storage, signable.folder, sign(signable.file, signer))


def add_later(
    storage: Storage,
    name: str,
    signable: Signable,
    signer: Signer | None,
    told: Told = log_warning,
) -> bool:
    """Sign what is there already, and say so in the journal: a web server lists no signatures.
    Whether there is a new signature."""
    path = None if signer is None else add(storage, signable, signer)
    if path is not None:
        line = {"what": "sign", "name": name, "signature": path, "at": now()}
        noted(storage, line, f"{signable.file.path} is signed", told)
    return path is not None


@dataclass
class SigningFirst:
    """For a series: signs each value before it is written. What that returns takes it back.

    Args:
        storage: The registry.
        signer: Without one, nothing is signed.
        signable: What a value is.
        path: Of the last signature.
    """

    storage: Storage
    signer: Signer | None
    signable: Callable[[Value], Signable]
    path: str | None = None

    def __call__(self, value: Value) -> Callable[[], None]:
        if self.signer is not None:
            self.path = add(self.storage, self.signable(value), self.signer)
        path = self.path
        return lambda: None if path is None else self.storage.remove(path)


def _is_by(envelope: Envelope | InvalidEnvelopeError, file: SignedFile, signer: Signer) -> bool:
    if isinstance(envelope, InvalidEnvelopeError):
        return False
    try:
        return bool(signers_of(envelope, file, [signer.key]))
    except InvalidEnvelopeError:
        return False
