"""A load does each thing once: it opens, parses and proves nothing twice on its way."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import adapterdock
import pytest
from adapterdock.loader.base.load_base import load_base
from adapterdock.loader.load import attach, load
from adapterdock.loader.weights.tensors import read_file
from adapterdock.registry.checks.check_adapter import check_adapter
from adapterdock.registry.files.adapter import read_adapter
from adapterdock.registry.files.header import parse_header
from adapterdock.registry.locks.project import open_manifest, policies_in_force
from adapterdock.registry.methods.config_file import parse_adapter_config
from adapterdock.registry.read_facts import gather_base
from adapterdock.registry.sources.fetch import fetch_all
from adapterdock.registry.sources.open import open_source
from support.counted import counted
from support.shelf import Shelf, manifest_of, shelf_model

ADAPTERS = ("one", "two")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return counted(
        monkeypatch,
        open_manifest,
        policies_in_force,
        open_source,
        parse_adapter_config,
        read_adapter,
        check_adapter,
        gather_base,
        load_base,
        fetch_all,
        read_file,
        parse_header,
    )


EACH = {
    name: len(ADAPTERS)
    for name in ("parse_adapter_config", "read_adapter", "check_adapter", "read_file")
}
"""Each adapter's config and header are read once, and its shapes are proved once."""
ONCE = {"open_manifest": 1, "policies_in_force": 1}


def test_a_load_under_a_lock_reads_and_proves_each_adapter_once(
    shelf: Shelf, tmp_path: Path, calls: Counter[str]
) -> None:
    manifest = manifest_of(shelf, tmp_path)
    adapterdock.lock(manifest)
    calls.clear()
    load(manifest)
    base_header = 1
    assert calls == ONCE | EACH | {
        "open_source": 1 + len(ADAPTERS),
        "load_base": 1,
        "fetch_all": 1,
        "parse_header": base_header + len(ADAPTERS),
    }


def test_a_load_without_a_lock_hands_on_what_it_read_to_decide_the_fit(
    shelf: Shelf, tmp_path: Path, calls: Counter[str]
) -> None:
    load(manifest_of(shelf, tmp_path))
    base_header = 2  # before the base is fetched, and of the file that is loaded
    assert calls == ONCE | EACH | {
        "open_source": 1 + len(ADAPTERS),
        "gather_base": 1,
        "load_base": 1,
        "fetch_all": 2,  # to be locked, then to be loaded: nothing is transferred twice
        "parse_header": base_header + len(ADAPTERS),
    }


@pytest.mark.parametrize("locked", [False, True])
def test_attaching_reads_and_proves_each_adapter_once(
    shelf: Shelf, tmp_path: Path, calls: Counter[str], locked: bool
) -> None:
    manifest = manifest_of(shelf, tmp_path, base={})
    if locked:
        adapterdock.lock(manifest, accept=unchecked(manifest))
    base = shelf_model()
    calls.clear()
    attach(base, manifest)
    assert calls == ONCE | EACH | {
        "open_source": len(ADAPTERS),
        "fetch_all": 1 if locked else 2,
        "parse_header": len(ADAPTERS),
    }


def test_a_lazy_adapter_without_a_lock_is_read_once_until_it_is_used(
    shelf: Shelf, tmp_path: Path, calls: Counter[str]
) -> None:
    lazily = {name: {"source": getattr(shelf, name), "lazy": True} for name in ADAPTERS}
    model = load(manifest_of(shelf, tmp_path, adapters=lazily))
    lazy = {**EACH, "parse_header": 2 + len(ADAPTERS)}
    del lazy["read_file"]
    assert {name: calls[name] for name in lazy} == lazy
    assert not calls["read_file"]
    model.set_adapter("two")
    assert calls["read_file"] == 1


def test_load_adapter_reads_and_proves_an_adapter_once(shelf: Shelf, calls: Counter[str]) -> None:
    model = adapterdock.AdaptedModel(shelf_model())
    model.load_adapter(shelf.one.folder, "one")
    assert calls == {"open_source": 1, **dict.fromkeys((*EACH, "parse_header"), 1)}


def test_load_adapter_with_a_digest_reads_and_proves_an_adapter_once(
    shelf: Shelf, tmp_path: Path, calls: Counter[str]
) -> None:
    digest = adapterdock.lock(manifest_of(shelf, tmp_path)).adapters["one"].digest
    model = adapterdock.AdaptedModel(shelf_model())
    calls.clear()
    model.load_adapter(shelf.one.folder, "one", sha256=digest)
    assert {name: calls[name] for name in (*EACH, "parse_header")} == dict.fromkeys(
        (*EACH, "parse_header"), 1
    )


def unchecked(manifest: Path) -> list[str]:
    report: Any = adapterdock.validate(manifest)
    return sorted({f.code for f in report.findings if f.severity.name == "UNCHECKED"})
