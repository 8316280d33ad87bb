"""Envelopes: a signature and what it signs.

An envelope is DSSE (https://github.com/secure-systems-lab/dsse), its payload an in-toto statement
(https://github.com/in-toto/attestation/tree/main/spec/v1): the kind, registry, path and SHA-256 of
one file. So a signature of one version, alias or registry cannot pass for one of another.

An envelope comes from whoever can write to the registry. It is read strictly and without the
libraries of the extra ``sign``; what is believed of it is parsed from the bytes that were verified.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..files.digests import PREFIX, is_digest
from ..records.entry import InvalidEntryError, parse_object
from ..records.series import canonical
from .keys import PublicKey, library_key, require_libraries
from .signer import Signer, failed

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
LIMIT = 64 << 10
"""Bytes of an envelope."""
MOST = 64
"""Signatures that are read, of one envelope and of one file."""


class InvalidEnvelopeError(ValueError):
    """The bytes are not an envelope that counts; the text says why."""


class Kind(str, Enum):
    """What kind of file is signed. The values are parts of predicate types: they never change."""

    ENTRY = "entry"
    ALIAS = "alias"
    MARK = "mark"
    RULES = "rules"

    @property
    def predicate(self) -> str:
        """The type of the statement's predicate."""
        return f"urn:adapterdock:registry:{self.value}:1"


@dataclass(frozen=True)
class SignedFile:
    """What is signed.

    Args:
        kind: Of the file.
        registry: The registry's id.
        path: In the registry: it has the adapter's name, and the version, or alias and number.
        digest: ``sha256:HEX`` of the file's bytes.
    """

    kind: Kind
    registry: str
    path: str
    digest: str

    @property
    def statement(self) -> bytes:
        """The bytes that are signed."""
        subject = {"name": self.path, "digest": {"sha256": self.digest.removeprefix(PREFIX)}}
        return canonical(
            {
                "_type": STATEMENT,
                "subject": [subject],
                "predicateType": self.kind.predicate,
                "predicate": {"registry": self.registry},
            }
        )


@dataclass(frozen=True)
class Signature:
    """One signature: who made it, as the envelope says, and its bytes."""

    key_id: str
    value: bytes


@dataclass(frozen=True)
class Envelope:
    """An envelope as read. Nothing in it is verified yet."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]

    @property
    def raw(self) -> bytes:
        """Its bytes, always in the same spelling."""
        signatures = [
            {"keyid": one.key_id, "sig": base64.b64encode(one.value).decode()}
            for one in self.signatures
        ]
        payload = base64.b64encode(self.payload).decode()
        return canonical(
            {"payload": payload, "payloadType": self.payload_type, "signatures": signatures}
        )


def read_envelope(raw: bytes) -> Envelope:
    """The envelope in these bytes. Unknown fields are ignored, as DSSE asks.

    Raises :class:`InvalidEnvelopeError` for anything else: more than :data:`LIMIT` bytes, repeated
    keys, a field that is missing or of another type, invalid base64, more than :data:`MOST`
    signatures, or none.
    """
    data = _object(raw)
    payload_type, signatures = data.get("payloadType"), data.get("signatures")
    if not isinstance(payload_type, str):
        raise InvalidEnvelopeError("payloadType is not text")
    if not isinstance(signatures, list) or not 1 <= len(signatures) <= MOST:
        raise InvalidEnvelopeError(f"signatures is not a list of 1 to {MOST}")
    return Envelope(
        _bytes(data, "payload"), payload_type, tuple(_signature(one) for one in signatures)
    )


def _object(raw: bytes) -> Mapping[str, Any]:
    if len(raw) > LIMIT:
        raise InvalidEnvelopeError(f"it has more than {LIMIT} bytes")
    try:
        return parse_object(raw)
    except InvalidEntryError as error:
        raise InvalidEnvelopeError(str(error)) from None


def _signature(data: object) -> Signature:
    if not isinstance(data, dict) or not isinstance(data.get("keyid"), str):
        raise InvalidEnvelopeError("a signature has no keyid")
    return Signature(data["keyid"], _bytes(data, "sig"))


def _bytes(data: Mapping[str, Any], field: str) -> bytes:
    text = data.get(field)
    if not isinstance(text, str):
        raise InvalidEnvelopeError(f"{field} is not text")
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise InvalidEnvelopeError(f"{field} is not base64") from None


def sign(file: SignedFile, signer: Signer) -> Envelope:
    """An envelope with one signature, which was verified.

    Raises :class:`UsageError` where the key, or the service that has it, refuses, and where its
    signature is not by the public key.
    """
    require_libraries()
    from securesystemslib.dsse import Envelope as LibraryEnvelope

    made = LibraryEnvelope(file.statement, PAYLOAD_TYPE, {})
    try:
        signature = made.sign(signer.library)
        found = Signature(signer.key.id, bytes.fromhex(signature.signature))
    except Exception as error:  # whatever the client of a service raises
        raise failed(signer.key.name, error) from error
    envelope = Envelope(file.statement, PAYLOAD_TYPE, (found,))
    try:
        signed = signers_of(envelope, file, [signer.key])
    except InvalidEnvelopeError as error:
        raise failed(signer.key.name, error) from error
    assert signed == {signer.key.id}
    return envelope


def signers_of(envelope: Envelope, file: SignedFile, keys: Iterable[PublicKey]) -> frozenset[str]:
    """The ids of those of ``keys`` that signed ``file`` in this envelope; each once.

    Signatures by other keys are ignored, and all but the first of each key. Without any by
    ``keys`` nothing of the envelope is believed, and there are none.

    Raises:
        InvalidEnvelopeError: One of ``keys`` is named, but did not make the signature; or it signed
            something else: another file, another kind, another payload type.
        UsageError: The libraries are missing.
    """
    known = {key.id: key for key in keys}
    # one of each key, so that a flood of signatures costs no more than a few
    ours = {one.key_id: one for one in reversed(envelope.signatures) if one.key_id in known}
    found = frozenset(id for id, one in ours.items() if is_good(envelope, one, known[id]))
    if ours and not found:
        names = ", ".join(known[id].name for id in sorted(ours))
        raise InvalidEnvelopeError(f"its signature by {names[:200]} is wrong")
    if found:
        _check_statement(envelope, file)
    return found


def is_good(envelope: Envelope, signature: Signature, key: PublicKey) -> bool:
    """Whether ``key`` made this signature of the envelope's payload and its type."""
    require_libraries()
    from securesystemslib.dsse import Envelope as LibraryEnvelope
    from securesystemslib.signer import Signature as LibrarySignature  # pyright: ignore[reportPrivateImportUsage]

    one = LibrarySignature(key.id, signature.value.hex())
    try:
        LibraryEnvelope(envelope.payload, envelope.payload_type, {key.id: one}).verify(
            [library_key(key)], 1
        )
    except Exception:  # the library's own, and what its parsers raise: it did not verify
        return False
    return True


def _check_statement(envelope: Envelope, file: SignedFile) -> None:
    """Raise where the payload, which was verified, is not about ``file``."""
    if envelope.payload_type != PAYLOAD_TYPE:
        raise InvalidEnvelopeError(f"its payload type is {envelope.payload_type[:100]!r}")
    data = _object(envelope.payload)
    if data.get("_type") != STATEMENT:
        raise InvalidEnvelopeError(f"its payload is not an in-toto statement of {STATEMENT}")
    if data.get("predicateType") != file.kind.predicate:
        found = str(data.get("predicateType"))[:100]
        raise InvalidEnvelopeError(f"its predicate type is {found!r}, not {file.kind.predicate!r}")
    predicate = data.get("predicate")
    if not isinstance(predicate, dict) or predicate.get("registry") != file.registry:
        raise InvalidEnvelopeError("it is of another registry")
    subject = data.get("subject")
    if not isinstance(subject, list) or len(subject) != 1 or not isinstance(subject[0], dict):
        raise InvalidEnvelopeError("its statement is not about one file")
    if subject[0].get("name") != file.path:
        raise InvalidEnvelopeError(f"it signs {str(subject[0].get('name'))[:200]!r}")
    digest = subject[0].get("digest")
    if not isinstance(digest, dict) or not is_digest(file.digest):
        raise InvalidEnvelopeError("its statement has no digest")
    if f"{PREFIX}{digest.get('sha256')}" != file.digest:
        raise InvalidEnvelopeError(f"it signs other bytes of {file.path}")
