"""Digests are part of every lock: what they are must never change."""

from __future__ import annotations

import hashlib
import io
import subprocess
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import IntegrityError
from adapterdock.registry.files.digests import (
    check_paths,
    folder_digest,
    git_blob_sha1,
    is_digest,
    parse_digest,
    path_problem,
    sha256_bytes,
    sha256_file,
    sha256_stream,
)
from adapterdock.registry.files.facts import FileFact
from hypothesis import given
from hypothesis import strategies as st

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ABC = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2


def test_bytes_have_the_digest_of_the_standard() -> None:
    assert sha256_bytes(b"") == EMPTY
    assert sha256_bytes(b"abc") == sha256_bytes(memoryview(bytearray(b"abc"))) == ABC


def test_a_file_is_hashed_in_pieces_and_every_byte_is_reported(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000  # more than two chunks
    (tmp_path / "f").write_bytes(content)
    seen: list[int] = []
    assert sha256_file(tmp_path / "f", seen.append) == sha256_bytes(content)
    assert sum(seen) == len(content)
    assert len(seen) > 1


def test_hashing_ends_when_the_listener_raises() -> None:
    def stop(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sha256_stream(io.BytesIO(b"abc"), stop)


def test_golden_a_folder_of_two_files() -> None:
    files = [
        FileFact("adapter_model.safetensors", 0, EMPTY),
        FileFact("adapter_config.json", 3, ABC),
    ]
    golden = "sha256:e94812445a5bc67d76d2f65fc20f08cc39783868dd78ca99236278f72a256583"
    assert folder_digest(files) == folder_digest(reversed(files)) == golden
    lines = f"{ABC} 3 adapter_config.json\n{EMPTY} 0 adapter_model.safetensors\n"
    assert golden == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def test_golden_an_empty_folder_and_nested_unicode_names() -> None:
    assert folder_digest([]) == EMPTY
    assert (
        folder_digest([FileFact("ü/模型 x.bin", 3, ABC)])
        == "sha256:cb64910507bcc9fc4ed6f8199d332d57824b6efaef5f80ad1fd5032b580cc040"
    )


def test_a_folders_digest_ignores_the_versions_of_files() -> None:
    assert folder_digest([FileFact("a", 3, ABC, "v1")]) == folder_digest([FileFact("a", 3, ABC)])


facts = st.builds(
    FileFact,
    st.sampled_from(["a", "b", "c/d", "c/e", "x y"]),
    st.integers(0, 5),
    st.sampled_from([EMPTY, ABC]),
)


@given(st.lists(facts, unique_by=lambda f: f.path), st.lists(facts, unique_by=lambda f: f.path))
def test_folders_that_differ_have_different_digests(
    one: list[FileFact], other: list[FileFact]
) -> None:
    assert (folder_digest(one) == folder_digest(other)) == (set(one) == set(other))


def test_a_name_cannot_forge_a_line() -> None:
    with pytest.raises(IntegrityError) as caught:
        folder_digest([FileFact(f"a\n{ABC} 3 b", 3, ABC)])
    assert caught.value.code == "AD620"


def test_all_errors_of_a_folder_are_reported_at_once() -> None:
    files = [FileFact("a", 1), FileFact("b", 1, "md5:1"), FileFact("../c", 1, ABC)]
    with pytest.raises(IntegrityError) as caught:
        folder_digest(files)
    assert [f.code for f in caught.value.findings] == ["AD620", "AD621", "AD621"]


@pytest.mark.parametrize(
    "text", ["", ABC[7:], ABC.upper(), ABC[:-1], ABC + "0", ABC + "\n", "sha1:" + ABC[7:]]
)
def test_an_invalid_digest_is_refused(text: str) -> None:
    assert not is_digest(text)
    with pytest.raises(IntegrityError) as caught:
        parse_digest(text)
    assert caught.value.code == "AD621"


def test_a_digest_is_its_64_digits() -> None:
    assert parse_digest(ABC) == ABC[7:]


def test_a_git_blob_id_is_gits_own(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'{"r": 8}\n')
    git = subprocess.run(
        ["git", "hash-object", path], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert git_blob_sha1(path) == git


@pytest.mark.parametrize(
    "path",
    [
        "", "/etc/passwd", "..", "../x", "a/../b", "a/./b", ".", "a//b", "a/", "a\\b", "C:/x",
        "a\nb", "a\0b", "a\x7f", "a\x85b", "a\u2028b", "bad\udcff",
    ],
)  # fmt: skip
def test_a_path_that_could_leave_its_folder_is_refused(path: str) -> None:
    assert path_problem(path) is not None
    assert [f.code for f in check_paths([path])] == ["AD620"]


@pytest.mark.parametrize(
    "path", ["a", "a/b/c.bin", "..a", "a..", ".gitattributes", "a b", "ü", "-x"]
)
def test_a_plain_path_is_good(path: str) -> None:
    assert path_problem(path) is None


def test_a_name_is_not_a_file_and_a_folder() -> None:
    assert [f.code for f in check_paths(["a/b/c", "a"])] == ["AD620"]
    assert [f.code for f in check_paths(["a", "a"])] == ["AD620"]
    assert check_paths(["a/b", "a/c", "ab"]) == []
