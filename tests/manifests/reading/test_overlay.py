"""``extends``: what is replaced, what is removed, and where each value is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.bounds import OVERLAYS
from adapterdock.manifests.manifest import read_manifest
from adapterdock.manifests.reading.memory import from_python
from adapterdock.manifests.reading.nodes import Map, plain_data
from adapterdock.manifests.reading.overlay import overlay
from hypothesis import given, settings
from hypothesis import strategies as st
from support.manifest_files import HEADER, Desk

BASE = HEADER + (
    "base: {model: ./model, dtype: float32, float32_modules: ['*norm*', lm_head]}\n"
    "adapters:\n"
    "  tone: {source: ./tone, owner: us}\n"
    "  legal: {source: ./legal}\n"
    "active: tone\n"
)


def test_mappings_are_merged_lists_and_scalars_replaced_and_null_removes(desk: Desk) -> None:
    desk.write(BASE, "base.yaml")
    manifest = desk.read(
        "extends: base.yaml\n"
        "base: {dtype: bfloat16, float32_modules: ['*ln*']}\n"
        "adapters:\n"
        "  tone: {owner: them}\n"
        "  legal: null\n"
        "  new: {source: ./new}\n"
        "active:\n"
    ).manifest
    assert manifest.base.dtype == "bfloat16"
    assert str(manifest.base.model) == "./model"
    assert manifest.base.float32_modules == ("*ln*",)
    assert list(manifest.adapters) == ["tone", "new"]
    assert (str(manifest.adapters["tone"].source), manifest.adapters["tone"].owner) == (
        "./tone",
        "them",
    )
    assert manifest.active is None


def test_every_value_knows_its_file_and_line(desk: Desk) -> None:
    base = desk.write(BASE, "base.yaml")
    read = desk.read("extends: base.yaml\nbase:\n  dtype: bfloat16\n")
    dtype, model = read.where(("base", "dtype")), read.where(("base", "model"))
    assert (dtype.file, dtype.line) == (str(desk.folder / "adapters.yaml"), 3)
    assert (model.file, model.line) == (str(base), 2)
    assert read.manifest.base.float32_modules[1] == "lm_head"
    assert read.files == (desk.folder / "adapters.yaml", base)
    assert read.where(("adapters", "tone", "owner")).line == 4


def test_an_error_in_the_extended_file_is_shown_there(desk: Desk) -> None:
    desk.write(HEADER + "base: {dtype: fp16}\n", "base.yaml")
    finding = desk.findings("extends: base.yaml\nname: My Desk\n")[1]
    assert (finding.code, finding.where.line) == ("AD123", 2)
    assert finding.where.file == str(desk.folder / "base.yaml")


def test_a_source_is_relative_to_the_file_that_it_is_written_in(desk: Desk) -> None:
    desk.write(
        HEADER
        + "base: {model: ../model}\n"
        + "adapters: {a: {source: '${DIR:-./a}/'}, b: {source: /b}, c: {source: hf://o/c}}\n"
        + "registries: {r: ./r}\nmirrors: {'hf://': ./m/}\n",
        "common/base.yaml",
    )
    read = desk.read("extends: common/base.yaml\nadapters: {d: {source: ./d}}\n")
    manifest = read.manifest
    sources = {name: str(adapter.source) for name, adapter in manifest.adapters.items()}
    assert sources == {"a": "./common/a", "b": "/b", "c": "hf://o/c", "d": "./d"}
    assert str(manifest.base.model) == "./model"
    assert str(manifest.registries["r"]) == "./common/r"
    assert manifest.mirrors == {"hf://": "./common/m/"}
    assert read.directory == desk.folder


def test_an_archive_is_relative_to_the_file_that_it_is_written_in(desk: Desk) -> None:
    desk.write(
        HEADER
        + "adapters: {a: {source: 'oci-archive:out.tar:team/a:1.0'},"
        + " b: {source: 'oci-archive:../out.tar'}, c: {source: 'oci-archive:/out.tar'}}\n"
        + "registries: {r: 'oci-archive:./out.tar'}\n",
        "common/base.yaml",
    )
    manifest = desk.read("extends: common/base.yaml\n").manifest
    assert {name: str(adapter.source) for name, adapter in manifest.adapters.items()} == {
        "a": "oci-archive:./common/out.tar:team/a:1.0",
        "b": "oci-archive:./out.tar",
        "c": "oci-archive:/out.tar",
    }
    assert str(manifest.registries["r"]) == "oci-archive:./common/out.tar"


def test_a_chain_is_followed_from_folder_to_folder(desk: Desk) -> None:
    desk.write(HEADER + "adapters: {a: {source: ./a}}\n", "one/one.yaml")
    desk.write("extends: ../one/one.yaml\nadapters: {b: {source: ./b}}\n", "two/two.yaml")
    manifest = desk.read("extends: two/two.yaml\n").manifest
    assert {n: str(a.source) for n, a in manifest.adapters.items()} == {
        "a": "./one/a",
        "b": "./two/b",
    }


def test_files_are_named_in_the_same_way_as_the_manifest(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.write(HEADER + "name: desk\n", "base.yaml")
    desk.write("extends: ../base.yaml\n", "envs/prod.yaml")
    monkeypatch.chdir(desk.folder)
    read = read_manifest("envs/prod.yaml", environ={})
    assert read.file == "envs/prod.yaml"
    assert read.where(("name",)).file == "base.yaml"


def test_cycles_and_long_chains_are_refused(desk: Desk) -> None:
    desk.write("extends: ./adapters.yaml\n", "other.yaml")
    assert [f.code for f in desk.findings(HEADER + "extends: other.yaml\n")] == ["AD141"]
    (desk.folder / "link.yaml").symlink_to(desk.folder / "adapters.yaml")
    assert [f.code for f in desk.findings(HEADER + "extends: link.yaml\n")] == ["AD141"]
    for index in range(OVERLAYS + 3):
        desk.write(HEADER + f"extends: f{index + 1}.yaml\n", f"f{index}.yaml")
    assert [f.code for f in desk.findings("extends: f0.yaml\n")] == ["AD141"]


@pytest.mark.parametrize(
    "text", ["1", "true", "{a: b}", "''", "'${HOME}/a.yaml'", "hf://a/b", '"a\\0b"']
)
def test_extends_takes_one_local_path(text: str, desk: Desk) -> None:
    assert next(f.code for f in desk.findings(HEADER + f"extends: {text}\n")) == "AD142"


def test_an_extended_file_must_be_readable(desk: Desk) -> None:
    (desk.folder / "folder").mkdir()
    os.mkfifo(desk.folder / "pipe")
    for name in ("nowhere.yaml", "folder", "pipe"):
        finding = desk.findings(HEADER + f"extends: {name}\n")[0]
        assert (finding.code, finding.where.line) == ("AD140", 2)


def test_errors_of_both_files_are_reported_together(desk: Desk) -> None:
    desk.write("base: {}\na: 1\na: 2\n", "base.yaml")
    found = desk.findings(HEADER + "extends: base.yaml\nname: My Desk\n")
    assert {f.code for f in found} == {"AD111", "AD120", "AD124"}


def test_removing_an_unknown_name_is_an_error_with_the_nearest_name(desk: Desk) -> None:
    desk.write(BASE, "base.yaml")
    finding = desk.findings("extends: base.yaml\nadapters:\n  legl: null\n")[0]
    assert (finding.code, finding.where.line, finding.where.column) == ("AD143", 3, 3)
    assert finding.hint == "Did you mean 'legal'?"


def test_a_null_for_a_missing_key_of_the_schema_is_allowed(desk: Desk) -> None:
    desk.write(BASE, "base.yaml")
    assert desk.read("extends: base.yaml\nbase: {quantization: null}\n").manifest.base.model


def test_a_mapping_in_memory_extends_from_the_current_folder(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.write(BASE, "base.yaml")
    monkeypatch.chdir(desk.folder)
    read = read_manifest({"extends": "base.yaml", "adapters": {"legal": None}}, environ={})
    assert list(read.manifest.adapters) == ["tone"]
    assert read.where(("adapters", "tone")).file == "base.yaml"


TREES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.integers(0, 3), st.text("ab", max_size=2), st.lists(st.integers(0, 3))),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)
MAPS = st.dictionaries(st.sampled_from("abc"), TREES, max_size=3)


def laid(base: Any, over: Any) -> Any:
    lower, upper = from_python(base), from_python(over)
    assert isinstance(lower, Map)
    assert isinstance(upper, Map)
    return plain_data(overlay(lower, upper))


def rfc_7386(target: Any, patch: Any) -> Any:
    """The algorithm of RFC 7386, as the oracle."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = rfc_7386(target.get(name), value)
    return target


@settings(deadline=None)
@given(MAPS, MAPS)
def test_an_overlay_is_a_merge_patch(base: Any, over: Any) -> None:
    assert laid(base, over) == rfc_7386(base, over)


@settings(deadline=None)
@given(MAPS, MAPS)
def test_applying_an_overlay_twice_changes_nothing(base: Any, over: Any) -> None:
    once = laid(base, over)
    assert laid(once, over) == once


@settings(deadline=None)
@given(MAPS)
def test_an_empty_overlay_changes_nothing(base: Any) -> None:
    assert laid(base, {}) == base


def test_the_folder_of_a_linked_manifest_is_that_of_the_link(desk: Desk, tmp_path: Path) -> None:
    desk.write(HEADER + "adapters: {a: {source: ./a}}\n", "real/m.yaml")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "real" / "m.yaml")
    assert read_manifest(tmp_path / "link.yaml", environ={}).directory == tmp_path


def test_names_that_an_unreadable_file_may_declare_are_not_reported(desk: Desk) -> None:
    text = "extends: gone.yaml\nadapters: {a: {sorce: ./a}}\nactive: tone\n"
    assert [f.code for f in desk.findings(text)] == ["AD140", "AD120"]
