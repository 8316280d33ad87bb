"""The signatures that lie in a registry beside what they sign."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...manifests.findings.errors import IntegrityError
from ...manifests.findings.store import WRONG_DIGEST
from ..files.digests import PREFIX, sha256_bytes
from ..storages.storage import Storage, write_once
from .envelope import LIMIT, MOST, Envelope, InvalidEnvelopeError, read_envelope

_END = ".json"


def read_signatures(
    storage: Storage, folder: str, paths: Iterable[str]
) -> Mapping[str, Envelope | InvalidEnvelopeError]:
    """By path, each envelope in ``folder``, or why it is not one. At most :data:`MOST` are read,
    the first ones by name.

    Args:
        storage: The registry.
        folder: Such as ``adapters/team/refunds/signatures/2.1.0``.
        paths: Files of the registry, those of other folders too.
    """
    found: dict[str, Envelope | InvalidEnvelopeError] = {}
    for path in signature_files(folder, paths)[:MOST]:
        try:
            raw = storage.read(path, LIMIT + 1)
            if len(raw) <= LIMIT and path != signature_file(folder, raw):
                raise InvalidEnvelopeError("its name is not the digest of its bytes")
            found[path] = read_envelope(raw)
        except FileNotFoundError:
            continue
        except InvalidEnvelopeError as error:
            found[path] = error
    return found


def signature_files(folder: str, paths: Iterable[str]) -> list[str]:
    """The envelopes in ``folder`` among ``paths``, sorted."""
    start = f"{folder}/"
    return sorted(
        path
        for path in paths
        if path.startswith(start) and path.endswith(_END) and "/" not in path.removeprefix(start)
    )


def signature_file(folder: str, raw: bytes) -> str:
    """Where an envelope with these bytes lies: under their digest."""
    return f"{folder}/{sha256_bytes(raw).removeprefix(PREFIX)}{_END}"


def add_signature(storage: Storage, folder: str, envelope: Envelope) -> str:
    """Write an envelope, and return its path. One that is there already stays.

    Raises:
        IntegrityError: The registry has another file under this name.
    """
    raw = envelope.raw
    path = signature_file(folder, raw)
    if not write_once(storage, path, raw):
        raise IntegrityError(
            WRONG_DIGEST.finding(f"{path} has other bytes than its name says", expected=path)
        )
    return path
