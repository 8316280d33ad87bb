"""A set-up as an OCI artifact: deterministic, complete, and no harm from another's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.bounds import FOLDER_FILES
from adapterdock.registry.oci.artifact import Artifact
from adapterdock.registry.oci.layout import OciLayout, write_layout
from adapterdock.registry.oci.manifest import (
    Descriptor,
    InvalidManifestError,
    make_manifest,
    read_manifest,
)
from adapterdock.registry.oci.setup_artifact import (
    SETUP_CONFIG_TYPE,
    SETUP_TYPE,
    Content,
    Setup,
    UnpackableError,
    pack_setup,
    read_setup,
)

FILES = {
    "adapters.yaml": Content.of(b"version: 1\n"),
    "adapters.lock": Content.of(b"lock"),
    "adapters/tone/adapter_config.json": Content.of(b"{}"),
}
CONTENTS = [Content.of(b"weights"), Content.of(b"more")]


def moved(artifact: Artifact, folder: Path) -> Setup:
    write_layout(folder / "out.tar", {"setup": artifact})
    with OciLayout(folder / "out.tar") as layout:
        return read_setup(layout.manifest(layout.find("setup")), layout)


def test_a_set_up_is_read_as_it_was_packed(tmp_path: Path) -> None:
    setup = moved(pack_setup("adapters.yaml", FILES, CONTENTS), tmp_path)
    assert setup.manifest == "adapters.yaml"
    assert {p: one.digest for p, one in setup.files.items()} == {
        p: one.digest for p, one in FILES.items()
    }
    assert {one.digest for one in setup.contents} == {one.digest for one in CONTENTS}


def test_equal_set_ups_have_equal_manifests_whatever_the_order() -> None:
    one = pack_setup("adapters.yaml", FILES, CONTENTS)
    turned = pack_setup(
        "adapters.yaml", dict(reversed(FILES.items())), [*reversed(CONTENTS), CONTENTS[0]]
    )
    assert one.manifest.raw == turned.manifest.raw


def test_a_content_that_is_also_a_file_is_packed_once() -> None:
    packed = pack_setup("adapters.yaml", FILES, [FILES["adapters.lock"], *CONTENTS])
    assert packed.manifest.raw == pack_setup("adapters.yaml", FILES, CONTENTS).manifest.raw


@pytest.mark.parametrize(
    "path", ["../out", "/etc/passwd", "a//b", "a\\b", "adapters.yaml/below", ".git/config"]
)
def test_an_unsafe_path_is_not_packed(path: str) -> None:
    with pytest.raises(UnpackableError):
        pack_setup("adapters.yaml", {**FILES, path: Content.of(b"x")})


def test_more_files_than_an_artifact_can_have_are_not_packed() -> None:
    files = {f"{n:06}": Content.of(b"x") for n in range(FOLDER_FILES + 1)}
    with pytest.raises(UnpackableError):
        pack_setup("000000", files)


def foreign(data: Any, titles: list[str | None], **types: str) -> Artifact:
    raw = json.dumps(data).encode()
    made = make_manifest(
        types.get("artifact", SETUP_TYPE),
        Descriptor.of(types.get("config", SETUP_CONFIG_TYPE), raw),
        [Descriptor.of("text/plain", b"x", title) for title in titles],
    )
    layer = Descriptor.of("text/plain", b"x")
    return Artifact(read_manifest(made.raw), {made.config.digest: raw, layer.digest: b"x"})


GOOD = {"format": 1, "manifest": "a.yaml"}


@pytest.mark.parametrize(
    "artifact",
    [
        foreign(GOOD, ["a.yaml"], artifact="application/other"),
        foreign(GOOD, ["a.yaml"], config="application/other"),
        foreign({**GOOD, "format": 2}, ["a.yaml"]),
        foreign({**GOOD, "format": True}, ["a.yaml"]),
        foreign({"manifest": "a.yaml"}, ["a.yaml"]),
        foreign([], ["a.yaml"]),
        foreign(GOOD, ["b.yaml", None]),
        foreign({**GOOD, "manifest": 1}, ["a.yaml"]),
        foreign(GOOD, ["a.yaml", "../../etc/passwd"]),
        foreign(GOOD, ["a.yaml", "/etc/passwd"]),
        foreign(GOOD, ["a.yaml", "b/.git/config"]),
        foreign(GOOD, ["a.yaml", "a.yaml"]),
        foreign(GOOD, ["a.yaml", "a.yaml/b"]),
    ],
)
def test_an_artifact_that_is_no_set_up_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(InvalidManifestError):
        moved(artifact, tmp_path)


def test_the_smallest_set_up_of_another_tool_is_read(tmp_path: Path) -> None:
    assert moved(foreign(GOOD, ["a.yaml", None]), tmp_path).manifest == "a.yaml"
