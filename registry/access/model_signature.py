"""``model.sig``: OpenSSF's signature of a model's folder, verified by content.

It is a Sigstore bundle whose DSSE envelope has an in-toto statement with the digest of each file
(https://github.com/sigstore/model-transparency). Its own library reads the folder itself, as a
whole, and imports 900 modules; here the digests are compared with those of the files in use, which
the lock or the cache has. So nothing is read twice, and a file that is not used does not matter.

Signatures by keys on P-256, P-384 and P-521 are verified, over files hashed with SHA-256 (the
library's defaults).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..files.digests import PREFIX
from ..files.facts import FileFact
from ..records.entry import InvalidEntryError, parse_object
from ..signatures.envelope import MOST, PAYLOAD_TYPE, STATEMENT, Envelope, Signature, is_good
from ..signatures.keys import PublicKey

FILE = "model.sig"
LIMIT = 1 << 20
"""Bytes of a ``model.sig``."""
BUNDLE = re.compile(
    r"application/vnd\.dev\.sigstore\.bundle(\.v0\.3\+json|\+json;version=0\.[1-3])"
)
PREDICATE = "https://model_signing/signature/v1.0"
_HEX = re.compile(r"[0-9a-f]{64}\Z")


class InvalidModelSignatureError(ValueError):
    """It is not a signature that counts; the text says why."""


@dataclass(frozen=True)
class SignedModel:
    """What trusted keys signed: the SHA-256 of each file, by path."""

    keys: frozenset[str]
    files: Mapping[str, str]

    def problem(self, files: Iterable[FileFact], *, complete: bool = True) -> str | None:
        """What is wrong with these files, which are in use. Where they are not ``complete``, one
        whose digest is not known yet is only looked for."""
        for file in files:
            signed = self.files.get(file.path)
            if signed is None:
                return f"{file.path} is not signed"
            if file.sha256 != signed and (complete or file.sha256 is not None):
                return f"{file.path} is not the one that was signed"
        return None


def read_model_signature(raw: bytes, keys: Iterable[PublicKey]) -> SignedModel:
    """What those of ``keys`` signed that made a signature in these bytes.

    Raises:
        InvalidModelSignatureError: None of them did, or the bytes are something else.
        UsageError: The libraries are missing.
    """
    envelope = _envelope(raw)
    found = frozenset(
        key.id
        for key in keys
        if any(is_good(envelope, Signature(key.id, one.value), key) for one in envelope.signatures)
    )
    if not found:
        raise InvalidModelSignatureError("it is not signed by a trusted key")
    return SignedModel(found, _signed_files(envelope))


def _envelope(raw: bytes) -> Envelope:
    data = _object(raw)
    if BUNDLE.fullmatch(str(data.get("mediaType"))) is None:
        raise InvalidModelSignatureError("it is not a Sigstore bundle")
    inner = data.get("dsseEnvelope")
    signatures = inner.get("signatures") if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or not isinstance(signatures, list):
        raise InvalidModelSignatureError("it has no DSSE envelope")
    if not 1 <= len(signatures) <= MOST:
        raise InvalidModelSignatureError(f"it does not have 1 to {MOST} signatures")
    values = (_decoded(one.get("sig") if isinstance(one, dict) else None) for one in signatures)
    return Envelope(
        _decoded(inner.get("payload")),
        str(inner.get("payloadType")),
        tuple(Signature("", value) for value in values),
    )


def _signed_files(envelope: Envelope) -> Mapping[str, str]:
    """The digests in the payload, which was verified."""
    data = _object(envelope.payload)
    if envelope.payload_type != PAYLOAD_TYPE or data.get("_type") != STATEMENT:
        raise InvalidModelSignatureError("its payload is not an in-toto statement")
    if data.get("predicateType") != PREDICATE:
        found = str(data.get("predicateType"))[:100]
        raise InvalidModelSignatureError(f"its predicate type is {found!r}, not {PREDICATE!r}")
    predicate = data.get("predicate")
    resources = predicate.get("resources") if isinstance(predicate, dict) else None
    how = predicate.get("serialization") if isinstance(predicate, dict) else None
    if not isinstance(resources, list) or not isinstance(how, dict):
        raise InvalidModelSignatureError("it does not list files")
    if how.get("method") != "files" or how.get("hash_type") != "sha256":
        raise InvalidModelSignatureError("its files are not hashed as a whole with SHA-256")
    files: dict[str, str] = {}
    for one in resources:
        name, digest = (one.get("name"), one.get("digest")) if isinstance(one, dict) else (0, 0)
        if not isinstance(name, str) or not isinstance(digest, str) or name in files:
            raise InvalidModelSignatureError("it lists a file twice, or without its digest")
        if one.get("algorithm") != "sha256" or _HEX.match(digest) is None:
            raise InvalidModelSignatureError(f"{name[:200]} has no SHA-256")
        files[name] = PREFIX + digest
    return files


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        return parse_object(raw, LIMIT)
    except InvalidEntryError as error:
        raise InvalidModelSignatureError(str(error)) from None


def _decoded(text: object) -> bytes:
    if not isinstance(text, str):
        raise InvalidModelSignatureError("a part of it is not text")
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise InvalidModelSignatureError("a part of it is not base64") from None
