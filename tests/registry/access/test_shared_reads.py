"""What manifests that are checked together share, and what they must not."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapterdock.manifests.manifest import ManifestFile, read_manifest
from adapterdock.registry.access.access import Access
from adapterdock.registry.access.shared_reads import Reads, base_key
from adapterdock.registry.locks.project import policies_in_force


def manifest(**keys: object) -> ManifestFile:
    return read_manifest({"version": 1, "base": {"model": "./base"}, **keys})


def access(file: ManifestFile) -> Access:
    return Access(policies=policies_in_force(file, None))


def test_registries_are_shared_only_under_the_same_policies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MIRROR_URL", "https://mirror.example/")
    plain, same = manifest(), manifest(adapters={"a": {"source": "./a"}})
    strict = manifest(policy={"allow_sources": ["registry://team/*"]})
    chosen = manifest(mirrors={"hf://": "${MIRROR_URL}"})
    reads = Reads()
    opened = [reads.share(access(f), f).registries for f in (plain, same, strict, chosen)]
    assert opened[0] is opened[1]
    assert len({id(one) for one in opened}) == 3


def test_a_base_is_the_same_however_its_folder_is_written(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "base")
    keys = {
        base_key(file, access(file))
        for place in ("base", "base/../base", "link")
        for file in [manifest(base={"model": str(tmp_path / place)})]
    }
    assert len(keys) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"base": {"model": "./other"}},
        {"base": {"model": "./base", "trust_remote_code": True}},
        {"base": {"model": "./base", "storage_options": {"anon": True}}},
        {"mirrors": {"hf://": "s3://mirror/"}},
        {"policy": {"allow_bases": ["./base"]}},
    ],
)
def test_a_base_that_is_opened_in_another_way_is_another(change: dict[str, object]) -> None:
    first, second = manifest(), manifest(**change)
    assert base_key(first, access(first)) != base_key(second, access(second))
    offline = Access(offline=True, policies=access(first).policies)
    assert base_key(first, access(first)) != base_key(first, offline)
