"""Folders of links: the right files under the right names, and never outside."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import StoreError
from adapterdock.registry.files.digests import folder_digest, path_problem, sha256_bytes
from adapterdock.registry.files.facts import FileFact
from adapterdock.registry.store import link_trees
from adapterdock.registry.store.link_trees import materialise
from adapterdock.registry.store.maintenance import collect, size
from adapterdock.registry.store.store import Store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.cache import files, put


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def contents(tree: Path) -> dict[str, bytes]:
    return {p.relative_to(tree).as_posix(): p.read_bytes() for p in tree.rglob("*") if p.is_file()}


def test_a_tree_holds_just_the_named_files_and_is_named_by_them(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "blob").write_bytes(b"{}")
    (tmp_path / "link").symlink_to(tmp_path / "blob")  # as in the Hub's snapshots
    weights = put(store, b"weights")
    tree = materialise(store, {"nested/deep/w.bin": weights, "config.json": tmp_path / "link"})
    assert contents(tree) == {"nested/deep/w.bin": b"weights", "config.json": b"{}"}
    facts = [
        FileFact("config.json", 2, sha256_bytes(b"{}")),
        FileFact("nested/deep/w.bin", 7, weights),
    ]
    assert tree == store.trees / folder_digest(facts).removeprefix("sha256:")
    assert (
        materialise(store, {"config.json": tmp_path / "blob", "nested/deep/w.bin": weights}) == tree
    )
    assert tree.stat().st_mode & 0o222 == 0
    assert (tree / "nested").stat().st_mode & 0o222 == 0


def test_a_tree_costs_no_second_hashing_of_its_objects(store: Store) -> None:
    weights = put(store, b"weights")
    materialise(store, {"a": weights})
    hashed: list[int] = []
    assert Store(store.root).find(weights, on_bytes=hashed.append)
    assert hashed == []


def test_a_cache_may_be_moved_with_its_trees(store: Store, tmp_path: Path) -> None:
    tree = materialise(store, {"a/b": put(store, b"weights")})
    store.root.rename(tmp_path / "moved")
    assert contents(tmp_path / "moved" / "trees" / tree.name) == {"a/b": b"weights"}
    moved = Store(tmp_path / "moved")
    assert materialise(moved, {"a/b": sha256_bytes(b"weights")}) == moved.trees / tree.name


@pytest.mark.parametrize(
    "damage",
    [
        lambda tree: (tree / "a").unlink(),
        lambda tree: (tree / "extra").write_text("x"),
        lambda tree: ((tree / "a").unlink(), (tree / "a").write_bytes(b"forgery")),
        lambda tree: shutil.rmtree(tree),
        lambda tree: (shutil.rmtree(tree), tree.write_text("a file")),
    ],
    ids=["file gone", "file more", "file replaced", "tree gone", "a file instead"],
)
def test_a_modified_tree_is_made_again(store: Store, damage) -> None:
    weights = put(store, b"weights")
    tree = materialise(store, {"a": weights})
    tree.chmod(0o755)
    damage(tree)
    assert materialise(store, {"a": weights}) == tree
    assert contents(tree) == {"a": b"weights"}
    assert list(store.tmp.iterdir()) == []


def test_a_tree_follows_a_file_that_moved(store: Store, tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place).write_bytes(b"same")
    tree = materialise(store, {"a": tmp_path / "one"})
    (tmp_path / "one").unlink()
    assert materialise(store, {"a": tmp_path / "two"}) == tree
    assert contents(tree) == {"a": b"same"}


def test_a_sound_tree_that_another_process_made_meanwhile_stays_in_its_place(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"a/b": put(store, b"weights")}
    build, made = link_trees._build, []

    def build_second(new: Path, tree: Path, placed: list[tuple[FileFact, Path]]) -> None:
        build(new, tree, placed)
        if not made:
            made.append(tree)
            materialise(Store(store.root), weights)
            made.append(tree.stat().st_ino)

    monkeypatch.setattr(link_trees, "_build", build_second)
    tree = materialise(store, weights)
    assert [tree, tree.stat().st_ino] == made, "its reader would miss files if it were replaced"


@pytest.mark.parametrize("missing", [("symlink_to",), ("symlink_to", "hardlink_to")])
def test_without_links_on_the_file_system_there_are_others_or_copies(
    store: Store, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]
) -> None:
    def refuse(self: Path, target: object) -> None:
        raise OSError(95, "Operation not supported", str(self))

    weights = put(store, b"weights")
    for name in missing:
        monkeypatch.setattr(Path, name, refuse)
    tree = materialise(store, {"x/a": weights, "x/b": weights})
    assert contents(tree) == {"x/a": b"weights", "x/b": b"weights"}
    assert materialise(store, {"x/a": weights, "x/b": weights}) == tree
    assert size(store) == (7 if len(missing) == 1 else 21)
    assert collect(store, 0, grace=0).digests == (weights,)
    assert files(store.root) == set()


def test_all_bad_names_and_missing_objects_are_reported_at_once(store: Store) -> None:
    there = put(store, b"x")
    with pytest.raises(StoreError) as caught:
        materialise(store,
            {"../a": there, "/b": there, "c": sha256_bytes(b"y"), "d": "sha256:no", "x/y": there,
             "x": there}
        )  # fmt: skip
    codes = sorted(finding.code for finding in caught.value.findings)
    assert codes == ["AD620", "AD620", "AD620", "AD621", "AD622"]
    assert not store.trees.exists()


def test_names_that_are_equal_on_this_file_system_are_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a file system that does not tell a from A.
    real = os.path.lexists
    monkeypatch.setattr(
        os.path, "lexists", lambda path: real(path) or real(path.with_name(path.name.upper()))
    )
    weights = put(store, b"x")
    with pytest.raises(StoreError) as caught:
        materialise(store, {"A": weights, "a": weights, "n/A": weights})
    assert caught.value.code == "AD620"


steps = st.sampled_from(
    ["a", "b", "..", ".", "", "c:", "x\\y", "é", "\n", "~", "...", "-", "\udc80"]
)
names = st.lists(steps, min_size=1, max_size=4).map("/".join)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
@given(wanted=st.lists(names, min_size=1, max_size=4, unique=True))
def test_whatever_the_names_nothing_is_written_outside_the_tree(
    store: Store, tmp_path: Path, wanted: list[str]
) -> None:
    outside = {p for p in tmp_path.iterdir() if p != store.root}
    weights = put(store, b"weights")
    try:
        tree = materialise(store, dict.fromkeys(wanted, weights))
    except StoreError as error:
        assert {f.code for f in error.findings} == {"AD620"}
    else:
        assert all(path_problem(name) is None for name in wanted)
        assert contents(tree) == dict.fromkeys(wanted, b"weights")
        assert {p.parent for p in store.trees.iterdir()} == {store.trees}
    assert {p for p in tmp_path.iterdir() if p != store.root} == outside
    assert {p.name for p in store.root.iterdir()} <= {
        "objects", "trees", "tmp", "notes", "verified", "CACHEDIR.TAG",
    }  # fmt: skip
