"""The page on the layout of a registry says what the code does: paths, fields, limits; and a reader
that is written from the page alone reads a registry."""

from __future__ import annotations

import gzip
import hashlib
import inspect
import json
import re
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import adapterdock
import pytest
from adapterdock.manifests.language import published_names, versions
from adapterdock.manifests.language.selector import parse_selector
from adapterdock.registry.catalogue.catalogue import Catalogue
from adapterdock.registry.catalogue.collect import collect
from adapterdock.registry.catalogue.hold import DELETE, KEEP, held
from adapterdock.registry.catalogue.mirror import mirror
from adapterdock.registry.catalogue.promote import demote, mark, promote
from adapterdock.registry.catalogue.rules import Gate, Rules, Signers
from adapterdock.registry.catalogue.rules_series import set_rules
from adapterdock.registry.catalogue.sign import sign_selected
from adapterdock.registry.catalogue.take_snapshot import take_snapshot
from adapterdock.registry.records import series
from adapterdock.registry.records.entry import (
    DEPTH,
    LIMIT,
    Entry,
    EntryBase,
    EntryFile,
    EntryMethod,
    Provenance,
    Role,
)
from adapterdock.registry.records.marks import ACTIONS
from adapterdock.registry.records.thin_row import COLUMNS
from adapterdock.registry.signatures import envelope
from adapterdock.registry.signatures.envelope import Envelope, Kind, Signature, SignedFile
from adapterdock.registry.signatures.signer import new_pair, open_signer
from adapterdock.registry.storages import layout
from adapterdock.registry.storages.local_storage import LocalStorage
from support.published import publish, registry

PAGE = Path(adapterdock.__file__).parent / "docs" / "reference" / "registry.md"
TEXT = PAGE.read_text(encoding="utf-8")

SERIES = {
    "rules": layout.RULES,
    "journal": layout.JOURNAL,
    "aliases": layout.alias_folder("NAME", "ALIAS"),
    "marks": layout.marks_folder("NAME", "VERSION"),
}


def section(title: str) -> str:
    """The text below a heading."""
    return re.split(rf"^## {title}$", TEXT, flags=re.M)[1].split("\n## ")[0]


def tables(title: str) -> list[list[set[str]]]:
    """The tables of a section: of each row, the names in the first cell."""
    found: list[list[set[str]]] = []
    before = ""
    for line in section(title).splitlines():
        if line.startswith("| ") and before.startswith("|"):
            found[-1].append(set(re.findall(r"`([^`]+)`", line.split("|")[1])))
        elif line.startswith("| "):
            found.append([])
        before = line
    return found


def fields(title: str, number: int = 0) -> set[str]:
    return set().union(*tables(title)[number])


def paths_of_the_layout() -> set[str]:
    """Every path that the layout gives, with the page's placeholders."""
    found = {layout.IDENTITY, layout.MIRROR, layout.PROBE}
    found |= {f"{folder}/NUMBER.json" for folder in SERIES.values()}
    found |= {f"{layout.SNAPSHOTS}/NUMBER.jsonl.gz", layout.hold_file("ID")}
    runs = [
        layout.gc_file(7),
        layout.gc_mark(7, "sha256:HEX"),
        layout.gc_removed(7, "sha256:HEX"),
        layout.gc_closed(7),
    ]
    found |= {path.replace("00000007", "NUMBER") for path in runs}
    found |= {layout.blob_file("sha256:HEX"), layout.entry_file("NAME", "VERSION")}
    folders = [
        layout.signatures_folder("NAME", "VERSION"),
        *(layout.value_signatures_folder("NAME", SERIES[one], 7) for one in ("aliases", "marks")),
        layout.rules_signatures_folder(7),
    ]
    return found | {f"{folder.replace('00000007', 'NUMBER')}/HEX.json" for folder in folders}


def test_every_path_of_the_layout_is_in_the_table() -> None:
    assert fields("Files") == paths_of_the_layout()
    functions = {n for n, one in vars(layout).items() if isinstance(one, FunctionType)}
    named = set(re.findall(r"layout\.(\w+)\(", inspect.getsource(sys.modules[__name__])))
    others = {"adapter_folder", "versions_folder", "versions_in", "names_in", "is_signature"}
    assert functions - named == others


@pytest.mark.parametrize(
    ("title", "number", "model"),
    [
        ("Entry", 0, Entry),
        ("Entry", 1, EntryFile),
        ("Entry", 2, EntryMethod),
        ("Entry", 3, EntryBase),
        ("Entry", 4, Provenance),
        ("Rules", 1, Gate),
    ],
)
def test_every_field_of_an_entry_and_of_rules_is_in_its_table(
    title: str, number: int, model: Any
) -> None:
    assert fields(title, number) == set(model.model_fields)


def test_limits_and_kinds_are_those_of_the_code() -> None:
    assert LIMIT == 1 << 20 and "1 MiB" in section("Entry") and f"{DEPTH} levels" in TEXT
    assert series.LIMIT == 64 << 10 and "64 KiB" in section("Series")
    assert series.DIGITS == 8 and "8 digits" in section("Series")
    assert envelope.LIMIT == 64 << 10 and "64 KiB" in section("Envelope")
    assert envelope.MOST == 64 and "the first 64" in section("Envelope")
    assert f"at most {published_names.LONGEST} characters" in " ".join(section("Names").split())
    assert f"1 to {published_names.MOST_SEGMENTS} segments" in section("Names")
    assert versions.LONGEST == 64 and "at most 64 characters" in " ".join(section("Names").split())
    row = next(line for line in section("Entry").splitlines() if line.startswith("| `role`"))
    assert set(re.findall(r"`(\w+)`", row)) - {"role"} == set(Role.__args__)  # type: ignore[attr-defined]


def test_an_envelope_has_the_fields_of_the_page() -> None:
    file = SignedFile(Kind.ENTRY, "0" * 32, "adapters/refunds/versions/1.0.0.json", "sha256:00")
    made = Envelope(file.statement, envelope.PAYLOAD_TYPE, (Signature("key", b"s"),))
    data = json.loads(made.raw)
    assert set(data) == fields("Envelope", 0)
    assert set(data["signatures"][0]) <= set(re.findall(r"`(\w+)`", section("Envelope")))
    statement = json.loads(file.statement)
    assert set(statement) == fields("Envelope", 1)
    for value in (envelope.PAYLOAD_TYPE, envelope.STATEMENT, Kind.ENTRY.predicate):
        assert f"`{value}`" in TEXT
    for kind in Kind:
        assert f"`{kind.value}`" in section("Envelope") or kind is Kind.ENTRY


@pytest.fixture
def team(tmp_path: Path) -> Catalogue:
    catalogue = registry(tmp_path / "registry", "Team")
    said = {"by": "ada", "why": "better"}
    for version in ("1.0.0", "1.1.0"):
        publish(catalogue, tmp_path / "files", version)
        promote(catalogue, "refunds", version, "prod", **said)
    demote(catalogue, "refunds", "old", **said)
    promote(catalogue, "refunds", "1.0.0", "old", **said)
    demote(catalogue, "refunds", "old", **said)
    for action in ACTIONS:
        mark(catalogue, "refunds", "1.0.0", action, **said)
    new_pair(tmp_path / "ada.key")
    signer = open_signer(str(tmp_path / "ada.key"))
    selector = parse_selector("1.0.0")
    assert selector is not None
    sign_selected(catalogue, "refunds", selector, signer)
    lines = len(catalogue.storage.find("journal"))
    catalogue.storage.create(f"snapshots/{lines:08}.jsonl.gz", b"damaged")
    take_snapshot(catalogue)
    pem = signer.key.pem
    gate = Gate(
        metrics=("accuracy>=0.9",),
        licences=("MIT",),
        signatures=Signers(keys=(pem,), threshold=1),
        promoters=(pem,),
    )
    set_rules(catalogue, Rules(keys=(pem,), threshold=1, aliases={"next": gate}), by="ada")
    return catalogue


def written(catalogue: Catalogue, folder: str) -> list[dict[str, Any]]:
    paths = sorted(catalogue.storage.find(folder))
    return [json.loads(catalogue.storage.read(path, 1 << 20)) for path in paths]


def test_files_of_series_have_the_fields_of_their_tables(team: Catalogue) -> None:
    for title, folder in (
        ("Value of an alias", "adapters/refunds/aliases"),
        ("Mark", "adapters/refunds/marks"),
        ("Journal", "journal"),
    ):
        found = written(team, folder)
        assert set().union(*found) == fields(title), title
    lines = written(team, "journal")
    rules = json.loads(team.storage.read("rules/00000001.json", 1 << 16))
    assert set(rules) | {"threshold"} == fields("Rules")
    row = next(line for line in section("Journal").splitlines() if line.startswith("| `what`"))
    assert {line["what"] for line in lines} == set(re.findall(r"`(\w+)`", row)) - {"what"}
    assert set(json.loads(team.storage.read("registry.json", 1000))) == fields("Identity")


def test_a_mirror_says_what_the_page_says(team: Catalogue, tmp_path: Path) -> None:
    mirror(team, LocalStorage(tmp_path / "mirror"), local=True)
    data = json.loads((tmp_path / "mirror/mirror.json").read_bytes())
    assert set(data) == fields("Mirror")
    found = foreign_resolve(tmp_path / "mirror", "refunds", "prod")
    assert found == {"file0": b"weights of 1.1.0"}


def test_a_snapshot_has_the_columns_of_the_page(team: Catalogue) -> None:
    assert fields("Snapshot") == set(COLUMNS)
    path = max(team.storage.find("snapshots"))
    head = json.loads(gzip.decompress(team.storage.read(path, 1 << 20)).splitlines()[0])
    assert set(head) <= set(re.findall(r"`(\w+)`", section("Snapshot")))


def test_files_of_a_gc_and_of_holds_have_the_fields_of_the_page(team: Catalogue) -> None:
    named = set(re.findall(r"`(\w+)`", section("Removing contents")))
    with held(team.storage, ["sha256:" + "0" * 64]):
        (hold,) = written(team, "holds")
        team.storage.create("blobs/sha256/" + "1" * 64, b"orphan")
        collect(team)
        (run,) = (one for one in written_json(team, "gc"))
    assert set(hold) - {"nonce"} <= named
    assert set(run) - {"nonce"} <= named
    assert {KEEP, DELETE} <= named


def written_json(catalogue: Catalogue, folder: str) -> list[dict[str, Any]]:
    paths = [path for path in catalogue.storage.find(folder) if path.endswith(".json")]
    return [json.loads(catalogue.storage.read(path, 1 << 20)) for path in paths]


def digest(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def foreign_resolve(folder: Path, name: str, alias: str) -> dict[str, bytes]:
    """The files of what an alias selects, read by what the page says, without the package."""
    assert json.loads((folder / "registry.json").read_bytes())["format"] == 1
    values = sorted((folder / "adapters" / name / "aliases" / alias).iterdir())
    previous, value = None, {}
    for number, path in enumerate(values, 1):
        assert path.name == f"{number:08}.json"
        raw = path.read_bytes()
        value = json.loads(raw)
        again = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert raw == f"{again}\n".encode()
        assert value["previous"] == previous
        previous = digest(raw)
    raw = (folder / "adapters" / name / "versions" / f"{value['version']}.json").read_bytes()
    assert digest(raw) == value["entry"]
    entry = json.loads(raw)
    assert (entry["name"], entry["version"]) == (name, value["version"])
    contents: dict[str, bytes] = {}
    for file in entry["files"]:
        content = (folder / "blobs" / "sha256" / file["sha256"].partition(":")[2]).read_bytes()
        assert digest(content) == file["sha256"]
        contents[file["path"]] = content
    return contents


def test_a_reader_written_from_the_page_reads_a_registry(team: Catalogue, tmp_path: Path) -> None:
    found = foreign_resolve(tmp_path / "registry", "refunds", "prod")
    assert found == {"file0": b"weights of 1.1.0"}


def test_the_digest_of_a_folder_is_computed_as_the_page_says() -> None:
    from adapterdock.registry.files.digests import folder_digest
    from adapterdock.registry.files.facts import FileFact

    facts = [FileFact("b", 2, digest(b"xy")), FileFact("a.json", 1, digest(b"z"))]
    lines = sorted(f"{one.sha256} {one.size} {one.path}\n".encode() for one in facts)
    assert folder_digest(facts) == digest(b"".join(lines))
