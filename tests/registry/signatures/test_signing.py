"""Signing what is published: before it is written, or later."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    IntegrityError,
    PolicyError,
    SourceError,
    UsageError,
)
from adapterdock.manifests.language.selector import parse_selector
from adapterdock.registry.catalogue.catalogue import Catalogue, open_catalogue
from adapterdock.registry.catalogue.promote import mark, promote
from adapterdock.registry.catalogue.publish import publish_entry
from adapterdock.registry.catalogue.sign import Signed, sign_selected
from adapterdock.registry.signatures.envelope import MOST, Envelope, Signature
from adapterdock.registry.signatures.signatures import add_signature
from adapterdock.registry.signatures.signer import Signer
from adapterdock.registry.signatures.signing import add, entry_of
from adapterdock.registry.storages.layout import alias_folder, entry_file, signatures_folder
from support.published import Counted, contents, entry, registry
from support.signing import make_signer

ANNA, BEN = make_signer(name="anna.pub"), make_signer("rsa3072", name="ben.pub")


@pytest.fixture
def team(tmp_path: Path) -> Catalogue:
    return registry(tmp_path / "registry")


def put(team: Catalogue, folder: Path, version: str = "1.0.0", signer: Signer | None = ANNA) -> str:
    files = contents(folder, f"weights of {version}")
    return publish_entry(team, entry(version, files), files, signer=signer).resolved.digest


def signed(team: Catalogue, text: str, signer: Signer = BEN, *, mark: bool = False) -> Signed:
    selector = parse_selector(text)
    assert selector is not None
    return sign_selected(team, "refunds", selector, signer, mark=mark)


def signatures(team: Catalogue) -> list[str]:
    return sorted(path for path in team.storage.find("adapters") if "/signatures/" in path)


def test_a_signature_is_written_after_the_contents_and_before_the_entry(
    team: Catalogue, tmp_path: Path
) -> None:
    counted = Counted(team.storage)
    put(open_catalogue(counted), tmp_path / "files")
    created = [path.split("/")[0:3] for what, path in counted.calls if what == "create"]
    kinds = [parts[0] if parts[0] != "adapters" else parts[2] for parts in created]
    wanted = [kind for kind in kinds if kind in ("blobs", "signatures", "versions", "journal")]
    assert wanted == ["blobs", "signatures", "versions", "journal"]


@pytest.mark.parametrize("kind", ["alias", "mark"])
def test_a_value_is_signed_before_it_is_written(team: Catalogue, tmp_path: Path, kind: str) -> None:
    put(team, tmp_path / "files")
    counted = Counted(team.storage)
    if kind == "alias":
        promote(open_catalogue(counted), "refunds", "1.0.0", "prod", signer=ANNA)
    else:
        mark(open_catalogue(counted), "refunds", "1.0.0", "yank", why="bad", signer=ANNA)
    created = [path for what, path in counted.calls if what == "create" and "adapters" in path]
    assert ["/signatures/" in path for path in created] == [True, False]


def test_publishing_the_same_again_signs_what_is_there(team: Catalogue, tmp_path: Path) -> None:
    digest = put(team, tmp_path / "files", signer=None)
    assert signatures(team) == []
    assert put(team, tmp_path / "files") == digest
    assert put(team, tmp_path / "files") == digest
    assert len(signatures(team)) == 1
    assert not signed(team, "1.0.0", ANNA).new


def test_whoever_loses_a_version_leaves_no_signature(
    team: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = contents(tmp_path / "files", "ours")
    theirs = entry("1.0.0", contents(tmp_path / "files", "theirs"))
    create = team.storage.create

    def somebody_is_faster(_: object, path: str, content: bytes | Path) -> None:
        if path.endswith("versions/1.0.0.json"):
            monkeypatch.undo()
            publish_entry(team, theirs, contents(tmp_path / "files", "theirs"), signer=BEN)
        create(path, content)

    monkeypatch.setattr(type(team.storage), "create", somebody_is_faster)
    with pytest.raises(IntegrityError):
        publish_entry(team, entry("1.0.0", files), files, signer=ANNA)
    assert not signed(team, "1.0.0", BEN).new
    assert len(signatures(team)) == 1


def test_of_many_promotions_at_once_each_value_has_its_signature_and_no_other(
    team: Catalogue, tmp_path: Path
) -> None:
    versions = [f"1.0.{n}" for n in range(6)]
    for version in versions:
        put(team, tmp_path / "files", version, None)
    errors: list[AdapterdockError] = []

    def move(version: str) -> None:
        try:
            promote(team, "refunds", version, "prod", signer=ANNA)
        except AdapterdockError as error:
            errors.append(error)

    threads = [threading.Thread(target=move, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    folders = [path.split("/")[-2] for path in signatures(team)]
    assert folders == [f"{n:08d}" for n in range(1, 7)]
    assert not signed(team, "prod", ANNA).new


def test_a_second_person_signs_each_kind_later(team: Catalogue, tmp_path: Path) -> None:
    digest = put(team, tmp_path / "files")
    promote(team, "refunds", "1.0.0", "prod", signer=ANNA)
    mark(team, "refunds", "1.0.0", "deprecate", why="old", signer=ANNA)
    for text, is_mark in (("1.0.0", False), (digest, False), ("prod", False), ("1.0.0", True)):
        first, again = signed(team, text, mark=is_mark), signed(team, text, mark=is_mark)
        assert first.new == (text != digest)
        assert not again.new
    assert len(signatures(team)) == 6


def test_promoting_or_marking_again_with_a_key_signs_what_is_there(
    team: Catalogue, tmp_path: Path
) -> None:
    put(team, tmp_path / "files", signer=None)
    promote(team, "refunds", "1.0.0", "prod")
    mark(team, "refunds", "1.0.0", "yank", why="bad")
    assert promote(team, "refunds", "1.0.0", "prod", signer=BEN) is None
    assert mark(team, "refunds", "1.0.0", "yank", why="bad", signer=BEN) is None
    assert len(signatures(team)) == 2
    assert not signed(team, "prod").new
    assert not signed(team, "1.0.0", mark=True).new


@pytest.mark.parametrize(
    ("text", "is_mark", "error"),
    [
        ("^1.0", False, UsageError),
        ("prod", True, UsageError),
        ("2.0.0", False, SourceError),
        ("staging", False, SourceError),
        ("1.0.0", True, SourceError),
    ],
)
def test_what_names_no_single_file_is_not_signed(
    team: Catalogue, tmp_path: Path, text: str, is_mark: bool, error: type[AdapterdockError]
) -> None:
    put(team, tmp_path / "files", signer=None)
    promote(team, "refunds", "1.0.0", "prod")
    with pytest.raises(error):
        signed(team, text, mark=is_mark)
    assert signatures(team) == []


def test_a_broken_history_or_entry_is_not_signed(team: Catalogue, tmp_path: Path) -> None:
    put(team, tmp_path / "files", signer=None)
    put(team, tmp_path / "files", "1.1.0", signer=None)
    promote(team, "refunds", "1.0.0", "prod")
    promote(team, "refunds", "1.1.0", "prod")
    root = tmp_path / "registry"
    first = root / alias_folder("refunds", "prod") / "00000001.json"
    first.chmod(0o644)
    first.write_bytes(first.read_bytes().replace(b"1.0.0", b"1.1.0"))
    with pytest.raises(IntegrityError):
        signed(team, "prod")
    file = root / entry_file("refunds", "1.0.0")
    file.chmod(0o644)
    file.write_bytes(b"{}")
    with pytest.raises(IntegrityError):
        signed(team, "1.0.0")
    assert signatures(team) == []


def test_more_signatures_than_are_read_are_not_added(team: Catalogue, tmp_path: Path) -> None:
    digest = put(team, tmp_path / "files", signer=None)
    folder = signatures_folder("refunds", "1.0.0")
    for n in range(MOST):
        junk = Envelope(b"x", "y", (Signature(f"{n}", b"z"),))
        add_signature(team.storage, folder, junk)
    with pytest.raises(PolicyError) as refused:
        add(team.storage, entry_of(team.id, "refunds", "1.0.0", digest), ANNA)
    assert refused.value.code == "AD886"


def test_nothing_is_signed_in_a_mirror(team: Catalogue, tmp_path: Path) -> None:
    put(team, tmp_path / "files", signer=None)
    (tmp_path / "registry/mirror.json").write_text("{}")
    with pytest.raises(PolicyError):
        signed(team, "1.0.0")
