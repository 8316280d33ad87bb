"""Mirrors change where bytes come from, and nothing else."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
from adapterdock.manifests.findings.errors import SourceError
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.language.source import Source
from adapterdock.registry.files.facts import FileFact
from adapterdock.registry.sources.mirrors import mirror_for
from adapterdock.registry.sources.open import open_source

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MIRROR = {"hf://": "s3://airgap/hf/"}


def place(text: str, mirrors: dict[str, str], revision: str | None = None) -> str | None:
    found = mirror_for(Source.parse(text), mirrors, revision=revision, where=Where())
    return None if found is None else str(found[1])


@pytest.mark.parametrize(
    ("source", "mirrors", "expected"),
    [
        (f"hf://acme/tone@{COMMIT}/sub", MIRROR, f"s3://airgap/hf/acme/tone/{COMMIT}/sub"),
        ("hf://acme/tone", MIRROR, "s3://airgap/hf/acme/tone/main"),
        ("hf://acme/tone@v2/a/b", MIRROR, "s3://airgap/hf/acme/tone/v2/a/b"),
        ("hf://acme/tone@refs/pr/1", MIRROR, "s3://airgap/hf/acme/tone/refs%2Fpr%2F1"),
        ("hf://acme/tone", {"hf://acme": "/mnt/acme"}, "/mnt/acme/tone/main"),
        ("hf://acme/tone", {"hf://acm": "/mnt/x"}, None),
        ("hf://acme/tone-lora", {"hf://acme/tone": "/mnt/x"}, None),
        ("hf://acme/tone", {"hf://acme/tone": "./mirror"}, "./mirror/main"),
        ("hf://acme/tone@v2", {"hf://acme/tone@v2": "./m"}, "./m"),
        ("hf://acme/tone@v3", {"hf://acme/tone@v2": "./m"}, None),
        ("hf://acme/tone@v3", {"hf://acme": "hf://acme-mirror"}, "hf://acme-mirror/tone@v3"),
        ("s3://team/a/b", {"s3://team/": "s3://copy/team"}, "s3://copy/team/a/b"),
        ("s3://team2/a", {"s3://team": "s3://copy"}, None),
        ("s3://team/a", {"S3://team": "memory://m"}, "memory://m/a"),
        ("https://x.org/a/b", {"https://x.org": "http://proxy/x"}, "http://proxy/x/a/b"),
        ("s3://team/a", MIRROR, None),
        ("./local", {"file://": "s3://x", "./": "s3://x"}, None),
    ],
)
def test_a_prefix_matches_whole_steps(
    source: str, mirrors: dict[str, str], expected: str | None
) -> None:
    assert place(source, mirrors) == expected


def test_the_longest_prefix_wins_in_any_order() -> None:
    rows = {"hf://": "/all", "hf://acme/tone": "/tone", "hf://acme": "/acme"}
    for mirrors in (rows, dict(reversed(rows.items()))):
        assert place("hf://acme/tone", mirrors) == "/tone/main"
        assert place("hf://acme/other", mirrors) == "/acme/other/main"
        assert place("hf://other/tone", mirrors) == "/all/other/tone/main"


def test_the_locked_commit_names_the_folder_in_the_mirror() -> None:
    assert place("hf://acme/tone@v2", MIRROR, COMMIT) == f"s3://airgap/hf/acme/tone/{COMMIT}"


@pytest.mark.parametrize("row", [{"hf": "s3://x"}, {"hf://": "x"}, {"s3://b": "hf://acme/x"}])
def test_an_invalid_row_is_reported(row: dict[str, str]) -> None:
    with pytest.raises(SourceError) as caught:
        place("hf://acme/tone", row)
        place("s3://b/c/d", row)
    assert caught.value.code == "AD235"


def test_the_name_and_the_pins_stay_those_of_the_declared_source(tmp_path: Path) -> None:
    there = tmp_path / "m" / "acme" / "tone" / COMMIT
    there.mkdir(parents=True)
    (there / "w.bin").write_bytes(b"123")
    declared = Source.parse("hf://acme/tone@v1")
    pins = {"w.bin": FileFact("w.bin", 3, sha256="sha256:" + "0" * 64, version="the-hub's")}
    folder = open_source(
        declared,
        directory=tmp_path,
        mirrors={"hf://": "./m"},
        revision=COMMIT,
        files=pins,
        offline=True,
    )
    assert folder.source == declared
    assert folder.pinned == declared.at(COMMIT)
    assert folder.revision == COMMIT
    assert folder.files()["w.bin"] == FileFact("w.bin", 3, sha256="sha256:" + "0" * 64)
    assert folder.read("w.bin") == b"123"
    assert folder.local("w.bin") == there / "w.bin"


def test_a_mirror_that_lacks_the_folder_is_an_error_and_not_a_way_around(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(SourceError) as caught:
        open_source(
            Source.parse("hf://acme/tone"), directory=tmp_path, mirrors={"hf://": "./m"}
        ).files()
    assert caught.value.code == "AD201"
    assert "m/acme/tone/main" in str(caught.value)


def test_the_versions_of_the_declared_source_do_not_apply_to_a_mirror(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/mirrored/acme/tone/main/w.bin", b"123")
    folder = open_source(
        Source.parse("hf://acme/tone"),
        directory=tmp_path,
        mirrors={"hf://": "memory://mirrored"},
        files={"w.bin": FileFact("w.bin", 3, version="the-hub's")},
    )
    assert folder.read("w.bin") == b"123"
    assert folder.files()["w.bin"].version is None


def test_options_go_to_a_mirror_of_the_same_scheme_only(tmp_path: Path) -> None:
    (tmp_path / "m" / "b").mkdir(parents=True)
    folder = open_source(
        Source.parse("s3://a/b"),
        directory=tmp_path,
        mirrors={"s3://a": "./m"},
        storage_options={"anon": True},
    )
    assert dict(folder.files()) == {}
    with pytest.raises(SourceError) as caught:
        open_source(
            Source.parse("hf://a/b"),
            directory=tmp_path,
            mirrors={"hf://a": "hf://c"},
            storage_options={"anon": True},
        )
    assert caught.value.code == "AD232"


@pytest.mark.parametrize("mirror", ["./mirror/", "memory://no-mirror/"])
def test_a_source_that_a_mirror_lacks_is_said_to_be_missing_there(
    tmp_path: Path, mirror: str
) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(
            Source.parse("hf://acme/tone"), directory=tmp_path, mirrors={"hf://": mirror}
        ).files()
    (finding,) = caught.value.findings
    assert finding.code == "AD201"
    assert finding.message == f"The mirror {mirror} does not have hf://acme/tone"
    assert "`adapterdock mirror --hub" in str(finding.hint)
