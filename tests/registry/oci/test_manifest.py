"""Manifests of adapters: their bytes, and what is refused of others'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.oci.artifact import (
    Artifact,
    adapter_manifest,
    entry_of,
    pack_adapter,
    pack_signatures,
    read_adapter,
    read_signatures,
    signatures_tag,
)
from adapterdock.registry.oci.manifest import (
    MANIFEST_BYTES,
    TITLE,
    Descriptor,
    InvalidManifestError,
    read_index,
    read_manifest,
)
from adapterdock.registry.records.entry import InvalidEntryError
from hypothesis import given
from hypothesis import strategies as some
from support.oci_adapters import CONTENTS, FILES, artifact, entry_bytes


class InMemory:
    """Contents of an artifact, as :class:`Blobs`."""

    def __init__(self, packed: Artifact) -> None:
        self.packed = packed

    def read(self, descriptor: Descriptor) -> bytes:
        content = self.packed.contents[descriptor.digest]
        assert isinstance(content, bytes)
        return content

    def copy(self, descriptor: Descriptor, into: Path, on_bytes: Any = None) -> None:
        into.write_bytes(self.read(descriptor))


def test_the_config_is_the_entry_and_layers_are_its_files_by_path() -> None:
    raw = entry_bytes()
    data = json.loads(adapter_manifest(raw).raw)
    assert data["config"]["digest"] == sha256_bytes(raw)
    assert [layer["annotations"] for layer in data["layers"]] == [
        {TITLE: path} for path in sorted(FILES)
    ]
    assert {layer["annotations"][TITLE]: layer["mediaType"] for layer in data["layers"]} == {
        "adapter_config.json": "application/vnd.cncf.model.weight.config.v1.raw",
        "adapter_model.safetensors": "application/vnd.cncf.model.weight.v1.raw",
        "docs/README.md": "application/vnd.cncf.model.doc.v1.raw",
        "empty": "application/octet-stream",
    }


def test_the_manifest_of_an_entry_never_changes() -> None:
    manifest = adapter_manifest(entry_bytes())
    assert manifest == adapter_manifest(entry_bytes())
    assert manifest.digest == (
        "sha256:434f1db07655831f2e22d4865241b7447d3334544864483d6fe393aeded51841"
    )  # a digest of a manifest is written into locks


def test_a_manifest_reads_back_as_it_was_written() -> None:
    packed = artifact()
    found = read_manifest(packed.manifest.raw)
    assert found == packed.manifest
    entry, raw = read_adapter(found, InMemory(packed))
    assert (entry.name, entry.version, raw) == ("team/refunds", "2.1.0", entry_bytes())


def test_signatures_travel_as_an_artifact_of_their_own_in_any_order() -> None:
    subject = artifact().manifest
    packed = pack_signatures(subject, [b"two", b"one", b"one"])
    assert packed.manifest == pack_signatures(subject, [b"one", b"two"]).manifest
    manifest = read_manifest(packed.manifest.raw)
    assert manifest.subject is not None
    assert manifest.subject.digest == subject.digest
    found = read_signatures(manifest, subject.digest, InMemory(packed))
    assert sorted(found) == [b"one", b"two"]
    with pytest.raises(InvalidManifestError, match="another"):
        read_signatures(manifest, sha256_bytes(b"x"), InMemory(packed))
    with pytest.raises(InvalidManifestError, match="not signatures"):
        read_signatures(subject, subject.digest, InMemory(packed))
    assert signatures_tag("sha256:00") == "sha256-00"


@pytest.mark.parametrize("path", ["../out", "/out", "a/../../out", "a\\b", "docs/README.md/x", ""])
def test_an_entry_with_an_unsafe_path_is_no_artifact(path: str) -> None:
    files = [
        {"path": each, "size": 0, "sha256": sha256_bytes(b""), "role": "other"}
        for each in ("docs/README.md", path)
    ]
    with pytest.raises(InvalidEntryError, match="files"):
        adapter_manifest(entry_bytes(files=files))


@pytest.mark.parametrize(
    "fields", [{"name": "Team/refunds"}, {"name": "a/b/c/d"}, {"name": 1}, {"version": "2.1"}]
)
def test_an_entry_with_a_wrong_name_or_version_is_no_artifact(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidEntryError, match=next(iter(fields))):
        entry_of(entry_bytes(**fields))


def test_a_missing_file_is_noticed_before_anything_is_packed() -> None:
    with pytest.raises(InvalidEntryError, match="empty"):
        pack_adapter(entry_bytes(), {path: b"" for path in CONTENTS if path != "empty"})


def test_layers_other_than_the_entry_s_files_are_refused() -> None:
    packed = artifact()
    data = json.loads(packed.manifest.raw)
    for change in (
        lambda layers: layers.pop(),
        lambda layers: layers.append(layers[0]),
        lambda layers: layers[0].update(size=layers[0]["size"] + 1),
        lambda layers: layers[0].update(digest=layers[1]["digest"]),
        lambda layers: layers[0]["annotations"].update({TITLE: "../x"}),
        lambda layers: layers[0].pop("annotations"),
    ):
        changed = json.loads(json.dumps(data))
        change(changed["layers"])
        manifest = read_manifest(json.dumps(changed).encode())
        with pytest.raises(InvalidManifestError, match="files of its entry"):
            read_adapter(manifest, InMemory(packed))


def test_another_tool_s_artifact_is_not_an_adapter() -> None:
    data = json.loads(artifact().manifest.raw)
    data["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json"
    del data["artifactType"]
    manifest = read_manifest(json.dumps(data).encode())
    with pytest.raises(InvalidManifestError, match="not an adapter"):
        read_adapter(manifest, InMemory(artifact()))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"schemaVersion": 1}, "schemaVersion"),
        ({"schemaVersion": True}, "schemaVersion"),
        ({"mediaType": "text/plain"}, "mediaType"),
        ({"config": None}, "config"),
        ({"layers": {}}, "layers"),
        ({"layers": [1]}, "layers"),
        ({"layers": [{}] * 10_001}, "10000"),
        ({"artifactType": 1}, "artifactType"),
        ({"subject": []}, "subject"),
        ({"config": {"mediaType": "a/b", "digest": "sha256:0", "size": 1}}, "digest"),
        ({"config": {"mediaType": "a/b", "digest": sha256_bytes(b""), "size": -1}}, "size"),
        ({"config": {"mediaType": "a/b", "digest": sha256_bytes(b""), "size": True}}, "size"),
        ({"config": {"mediaType": "", "digest": sha256_bytes(b""), "size": 1}}, "mediaType"),
        ({"x": "y" * MANIFEST_BYTES}, "more than"),
    ],
)
def test_an_invalid_manifest_is_refused(fields: dict[str, Any], says: str) -> None:
    data = {**json.loads(artifact().manifest.raw), **fields}
    with pytest.raises(InvalidManifestError, match=says):
        read_manifest(json.dumps(data).encode())


_KEYS = some.sampled_from(
    [
        *("schemaVersion", "mediaType", "config", "layers", "subject", "manifests"),
        *("artifactType", "digest", "size", "annotations", TITLE),
    ]
)
_JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=10,
)


@given(some.dictionaries(_KEYS, _JSON, max_size=5), some.booleans())
def test_any_json_is_a_manifest_or_refused(fields: dict[str, Any], whole: bool) -> None:
    data = {**(json.loads(artifact().manifest.raw) if whole else {}), **fields}
    raw = json.dumps(data).encode()
    for read in (read_manifest, read_index):
        try:
            read(raw)
        except InvalidManifestError:
            continue


@given(some.binary(max_size=100))
def test_any_bytes_are_a_manifest_or_refused(raw: bytes) -> None:
    for read in (read_manifest, read_index):
        with pytest.raises(InvalidManifestError):
            read(raw)
