"""Which files count as manifests, in folders, in globs and by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from adapterdock import UsageError
from adapterdock.manifests.find import find_manifests, is_manifest, names_several


def put(folder: Path, name: str, text: str = "version: 1\nbase: {}\n") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nbase: {model: ./base}\n",
        "# ours\n---\nextends: ../base.yaml\nversion: 1\n",
        '"version": 1\n"base": {}\n',
        "{version: 1, base: {model: ./base}}\n",
        '{"version": 1,\n "base": {}}\n',
        "\ufeffversion: 1\r\nbase: {}\r\n",
        "version: 1\nbase:\n\tmodel: ./base\n",  # broken, and still one
        "  version: 1\n  base: {}\n",
        "version: 1\rbase: {}\r",
        "--- {version: 1, base: {}}\n",
        "%YAML 1.2\n---\n{version: 1, base: {}}\n",
        "&all {version: 1, base: {}}\n",
        "!!map {version: 1, base: {}}\n",
        "? version\n: 1\n? base\n: {}\n",
    ],
)
def test_a_yaml_file_with_version_and_base_or_extends_is_a_manifest(
    text: str, tmp_path: Path
) -> None:
    assert is_manifest(put(tmp_path, "a.yaml", text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version: 1\nservices: {}\n",
        "base: {model: ./base}\n",
        "job:\n  version: 1\n  base: x\n",
        "{job: {version: 1, base: x}}\n",
        "- version: 1\n- base: x\n",
        "--- {job: {version: 1, base: x}}\n",
        "notes: |\n  version: 1\n  base: x\n",
        "allow_sources: ['./*']\n",
    ],
)
def test_another_yaml_file_is_not(text: str, tmp_path: Path) -> None:
    assert not is_manifest(put(tmp_path, "a.yaml", text))


def test_one_in_utf_16_is_a_manifest_so_that_it_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("version: 1\nbase: {}\n", encoding="utf-16")
    assert is_manifest(path)
    path.write_text("services: {}\n", encoding="utf-16")
    assert not is_manifest(path)


def test_folders_are_searched_recursively_and_other_files_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "b/adapters.yaml")
    put(tmp_path, "a.yml")
    put(tmp_path, "b/compose.yaml", "services: {}\n")
    put(tmp_path, "b/notes.txt")
    for hidden in (".git/x.yaml", ".x.yaml", "node_modules/x/y.yaml"):
        put(tmp_path, hidden)
    put(tmp_path, "venv/pyvenv.cfg", "")
    put(tmp_path, "venv/lib/x.yaml")
    found = find_manifests([tmp_path])
    assert [Path(one).relative_to(tmp_path).as_posix() for one in found.manifests] == [
        "a.yml",
        "b/adapters.yaml",
    ]
    assert found.skipped == (str(tmp_path / "b/compose.yaml"),)


def test_a_linked_folder_is_not_followed_and_a_linked_file_is(tmp_path: Path) -> None:
    place = tmp_path / "here"
    put(tmp_path, "there/a.yaml")
    place.mkdir()
    (place / "loop").symlink_to(place)
    (place / "b.yaml").symlink_to(tmp_path / "there" / "a.yaml")
    assert find_manifests([place]).manifests == (str(place / "b.yaml"),)


def test_two_links_to_one_file_are_two_manifests_and_two_ways_to_one_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "shared/adapters.yaml")
    for team in ("one", "two"):
        (tmp_path / team).mkdir()
        (tmp_path / team / "adapters.yaml").symlink_to("../shared/adapters.yaml")
    (tmp_path / "way").symlink_to("one")
    monkeypatch.chdir(tmp_path)
    found = find_manifests([Path("one"), Path("two"), Path("way"), Path("one/../one")])
    assert found.manifests == ("one/adapters.yaml", "two/adapters.yaml")


def test_a_link_that_leads_nowhere_is_found_and_a_pipe_is_not(tmp_path: Path) -> None:
    (tmp_path / "gone.yaml").symlink_to("nothing.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    found = find_manifests([tmp_path])
    assert found.manifests == (str(tmp_path / "gone.yaml"), str(tmp_path / "loop.yaml"))
    assert found.skipped == ()


def test_globs_find_files_and_folders_and_each_file_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one/adapters.yaml", "two/adapters.yaml", "two/notes.md"):
        put(tmp_path, name)
    monkeypatch.chdir(tmp_path)
    both = ("one/adapters.yaml", "two/adapters.yaml")
    assert find_manifests([Path("*/adapters.yaml")]).manifests == both
    assert find_manifests([Path("t*"), Path("**/*"), Path("one/adapters.yaml")]).manifests == (
        "two/adapters.yaml",
        "one/adapters.yaml",
    )


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    path = put(tmp_path, "a[1].yaml")
    assert not names_several(path)
    assert find_manifests([path]).manifests == (str(path),)


def test_everything_that_does_not_exist_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        find_manifests([tmp_path / "none.yaml", tmp_path / "no*.yaml"])
    assert [finding.code for finding in error.value.findings] == ["AD901", "AD920"]
