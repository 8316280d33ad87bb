"""A published adapter as a folder: what every opened folder promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import SourceError
from adapterdock.manifests.language.source import Source
from adapterdock.registry.access.opening import Opening
from adapterdock.registry.access.published import PublishedFolder, open_folder
from adapterdock.registry.catalogue.publish import publish_entry
from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.records.entry import Entry
from support.published import entry, registry
from support.s3_server import S3Server
from support.web import WebServer

WEIGHTS = bytes(range(256)) * 1024
FILES = {
    "adapter_config.json": b'{"peft_type": "LORA"}',
    "adapter_model.safetensors": WEIGHTS,
    "a/README.md": b"",
}
Opener = Callable[[], PublishedFolder]


@pytest.fixture(params=["local", "s3", "http", "http without ranges"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens a published adapter with FILES, in a registry of the kind that the parameter names."""
    place, kind = tmp_path / "registry", str(request.param)
    team, contents = registry(place), dict[str, Path]()
    (tmp_path / "files").mkdir()
    for number, content in enumerate(FILES.values()):
        path = tmp_path / f"files/{number}"
        path.write_bytes(content)
        contents[sha256_bytes(content)] = path
    rows = [
        {"path": path, "size": len(content), "sha256": sha256_bytes(content), "role": "other"}
        for path, content in FILES.items()
    ]
    made = Entry.model_validate({**entry().model_dump(), "files": rows}, strict=False)
    publish_entry(team, made, contents)
    url = str(place)
    files = {p.relative_to(place).as_posix(): p for p in place.rglob("*") if p.is_file()}
    if kind == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        bucket = s3.bucket()
        for name, path in files.items():
            s3.put(bucket, f"registry/{name}", path.read_bytes())
        url = f"s3://{bucket}/registry"
    elif kind != "local":
        web: WebServer = request.getfixturevalue("web")
        web.ranges = kind == "http"
        web.files.update({f"/registry/{name}": p.read_bytes() for name, p in files.items()})
        url = f"{web.url}/registry"
    source = Source.parse("registry://team/refunds@^1.0")
    return lambda: open_folder(Opening(source, None, registry=url))


def test_it_lists_the_files_of_the_entry_with_their_digests(opener: Opener) -> None:
    assert {path: (f.size, f.sha256) for path, f in opener().files().items()} == {
        path: (len(content), sha256_bytes(content)) for path, content in FILES.items()
    }


def test_it_reads_exactly_the_requested_range(opener: Opener) -> None:
    folder = opener()
    size = len(WEIGHTS)
    for start, length in [(0, 8), (8, 100), (size - 5, 50), (0, None), (77, None), (size + 3, 9)]:
        stop = None if length is None else start + length
        assert folder.read("adapter_model.safetensors", start, length) == WEIGHTS[start:stop]
    assert folder.read("a/README.md") == b""


def test_a_download_has_the_complete_content_and_is_reported(
    opener: Opener, tmp_path: Path
) -> None:
    folder, reported = opener(), list[int]()
    into = tmp_path / "deep/into"
    assert folder.download("adapter_model.safetensors", into, reported.append) == into
    assert into.read_bytes() == WEIGHTS
    assert sum(reported) == folder.bytes_read == len(WEIGHTS)
    assert folder.download("a/README.md", tmp_path / "empty").read_bytes() == b""


def test_reading_little_transfers_little(opener: Opener) -> None:
    folder = opener()
    assert folder.bytes_read == 0
    folder.read("adapter_model.safetensors", 0, 8)
    assert folder.bytes_read == 8


def test_a_transfer_that_breaks_off_is_resumed(
    opener: Opener, web: WebServer, tmp_path: Path
) -> None:
    web.truncate = 1
    into = opener().download("adapter_model.safetensors", tmp_path / "into")
    assert into.read_bytes() == WEIGHTS


def test_a_missing_file_is_our_error(opener: Opener, tmp_path: Path) -> None:
    folder = opener()
    for call in (
        lambda: folder.read("adapter_config.jsn"),
        lambda: folder.local("adapter_config.jsn"),
        lambda: folder.download("../../secret", tmp_path / "into"),
    ):
        with pytest.raises(SourceError) as caught:
            call()
        assert caught.value.code == "AD206"


def test_it_is_pinned_to_its_version(opener: Opener) -> None:
    folder = opener()
    assert folder.revision == "1.0.0"
    assert str(folder.pinned) == "registry://team/refunds@1.0.0"
