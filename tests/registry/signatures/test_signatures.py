"""Signatures in a registry: written once, read within bounds."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import IntegrityError
from adapterdock.registry.records.series import numbers_in
from adapterdock.registry.signatures.envelope import (
    LIMIT,
    MOST,
    Envelope,
    InvalidEnvelopeError,
    Kind,
    Signature,
    SignedFile,
    sign,
)
from adapterdock.registry.signatures.signatures import (
    add_signature,
    read_signatures,
    signature_file,
)
from adapterdock.registry.signatures.trust import requirement, verify
from adapterdock.registry.storages.layout import (
    alias_folder,
    rules_signatures_folder,
    signatures_folder,
    value_signatures_folder,
)
from adapterdock.registry.storages.local_storage import LocalStorage
from support.signing import make_signer

FILE = SignedFile(Kind.ENTRY, "r1", "adapters/a/versions/1.0.0.json", "sha256:" + "1" * 64)
FOLDER = signatures_folder("a", "1.0.0")
SIGNER = make_signer()


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def test_a_second_person_adds_the_signature_that_a_threshold_needs(storage: LocalStorage) -> None:
    other = make_signer()
    required = [requirement([SIGNER.key, other.key], 2)]
    add_signature(storage, FOLDER, sign(FILE, SIGNER))
    found = read_signatures(storage, FOLDER, storage.find("adapters"))
    assert [f.code for f in verify(FILE, found, required).findings] == ["AD885"]
    add_signature(storage, FOLDER, sign(FILE, other))
    found = read_signatures(storage, FOLDER, storage.find("adapters"))
    assert verify(FILE, found, required).findings == ()


def test_the_same_envelope_is_written_once(storage: LocalStorage) -> None:
    envelope = sign(FILE, SIGNER)
    path = add_signature(storage, FOLDER, envelope)
    assert add_signature(storage, FOLDER, envelope) == path
    assert [*storage.find(FOLDER)] == [path]


def test_a_file_in_the_place_of_an_envelope_is_refused(storage: LocalStorage) -> None:
    envelope = sign(FILE, SIGNER)
    storage.create(signature_file(FOLDER, envelope.raw), b"other")
    with pytest.raises(IntegrityError):
        add_signature(storage, FOLDER, envelope)


def test_files_that_are_not_envelopes_are_reasons_and_others_are_ignored(
    storage: LocalStorage,
) -> None:
    good = add_signature(storage, FOLDER, sign(FILE, SIGNER))
    storage.create(f"{FOLDER}/renamed.json", sign(FILE, make_signer()).raw)
    for content in (b"{", b"x" * (LIMIT + 10)):
        storage.create(signature_file(FOLDER, content), content)
    storage.create(f"{FOLDER}/note.txt", b"")
    storage.create(f"{FOLDER}/deep/{'0' * 64}.json", b"")
    storage.create(f"{FOLDER}-rc.1/{'0' * 64}.json", b"")
    found = read_signatures(storage, FOLDER, storage.find("adapters"))
    assert len(found) == 4
    assert [p for p, one in found.items() if not isinstance(one, InvalidEnvelopeError)] == [good]


def test_a_signature_that_is_listed_and_gone_is_absent(storage: LocalStorage) -> None:
    assert read_signatures(storage, FOLDER, [f"{FOLDER}/{'0' * 64}.json"]) == {}


def test_at_most_64_envelopes_are_read(storage: LocalStorage) -> None:
    for number in range(MOST + 6):
        add_signature(storage, FOLDER, Envelope(b"", "x", (Signature(str(number), b""),)))
    reads: list[str] = []

    class Counting(LocalStorage):
        def read(self, path: str, limit: int) -> bytes:
            reads.append(path)
            return super().read(path, limit)

    paths = storage.find("adapters")
    assert len(read_signatures(Counting(Path(storage.url)), FOLDER, paths)) == len(reads) == MOST


def test_signatures_of_values_and_rules_have_places_that_no_series_reads() -> None:
    series = alias_folder("team/a", "prod")
    place = value_signatures_folder("team/a", series, 7)
    assert place == "adapters/team/a/signatures/aliases/prod/00000007"
    assert numbers_in(series, [f"{place}/x.json", f"{series}/00000001.json"]) == [1]
    rules = rules_signatures_folder(2)
    assert numbers_in("rules", ["rules/00000001.json", f"{rules}/00000002.json"]) == [1]
