"""What every opened folder promises, tried on every kind of source."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import fsspec
import pytest
from adapterdock.manifests.findings.errors import SourceError
from adapterdock.manifests.language.source import Source
from adapterdock.registry.files.facts import FileFact
from adapterdock.registry.sources.folder import Folder
from adapterdock.registry.sources.open import open_source
from support.hub_server import HubServer
from support.s3_server import S3Server
from support.web import WebServer

WEIGHTS = bytes(range(256)) * 1024
FILES = {
    "adapter_config.json": b'{"peft_type": "LORA"}',
    "adapter_model.safetensors": WEIGHTS,
    "README.md": b"",
}
Opener = Callable[..., Folder]


@pytest.fixture(
    params=[
        "local",
        "hub",
        "hub folder",
        "hub offline",
        "s3",
        "s3 versioned",
        "s3 bucket root",
        "http",
        "http without ranges",
        "memory",
        "mirror to a folder",
        "mirror to s3",
    ]
)
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens one folder with FILES, of the kind that the parameter names."""
    kind: str = request.param

    def opened(text: str, **options: object) -> Opener:
        return lambda **more: open_source(
            Source.parse(text), directory=tmp_path, **{**options, **more}
        )

    if kind == "local":
        _write(tmp_path / "tone", FILES)
        return opened("./tone")
    if kind.startswith("hub"):
        hub: HubServer = request.getfixturevalue("hub")
        if kind == "hub folder":
            hub.commit("acme/tone", {"other.json": b"1", **_under("a/b/", FILES)})
            return opened("hf://acme/tone/a/b")
        hub.commit("acme/tone", FILES)
        if kind == "hub":
            return opened("hf://acme/tone")
        online = open_source(Source.parse("hf://acme/tone"), directory=tmp_path)
        for name in FILES:
            online.download(name, tmp_path / name)
        return opened("hf://acme/tone", offline=True)
    if "s3" in kind:
        s3: S3Server = request.getfixturevalue("s3")
        bucket = s3.bucket(versioned=kind == "s3 versioned")
        folder = {"mirror to s3": "hf/acme/tone/main/", "s3 bucket root": ""}.get(kind, "a/tone/")
        for name, content in FILES.items():
            s3.put(bucket, folder + name, content)
        if kind == "mirror to s3":
            return opened("hf://acme/tone", mirrors={"hf://": f"s3://{bucket}/hf/"})
        s3.put(bucket, "a/tone-other/x.json", b"not ours") if folder else None
        return opened(f"s3://{bucket}/{folder}")
    if kind.startswith("http"):
        web: WebServer = request.getfixturevalue("web")
        web.ranges = kind == "http"
        web.files.update(_under("/a/tone/", FILES))
        return opened(f"{web.url}/a/tone")
    if kind == "memory":
        root = f"/{uuid.uuid4().hex}/tone"
        for name, content in FILES.items():
            fsspec.filesystem("memory").pipe_file(f"{root}/{name}", content)
        return opened(f"memory:/{root}")
    _write(tmp_path / "mirror/acme/tone/main", FILES)
    return opened("hf://acme/tone", mirrors={"hf://": "./mirror"})


def _under(prefix: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {prefix + name: content for name, content in files.items()}


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_it_lists_every_file_with_its_size(opener: Opener) -> None:
    files = opener().files()
    assert {path: fact.size for path, fact in files.items()} == {
        name: len(content) for name, content in FILES.items()
    }
    assert all(path == fact.path for path, fact in files.items())


def test_it_lists_once_and_keeps_the_answer(opener: Opener) -> None:
    folder = opener()
    assert folder.files() == folder.files()


def test_it_reads_exactly_the_requested_range(opener: Opener) -> None:
    folder = opener()
    for start, length in [
        (0, 8),
        (8, 100),
        (1000, 1),
        (len(WEIGHTS) - 5, 5),
        (0, None),
        (77, None),
    ]:
        stop = None if length is None else start + length
        assert folder.read("adapter_model.safetensors", start, length) == WEIGHTS[start:stop]


def test_a_range_past_the_end_stops_at_the_end(opener: Opener) -> None:
    folder = opener()
    assert folder.read("adapter_model.safetensors", len(WEIGHTS) - 3, 100) == WEIGHTS[-3:]
    assert folder.read("adapter_model.safetensors", len(WEIGHTS) + 3, 100) == b""
    assert folder.read("adapter_config.json", 2, 0) == b""


def test_an_empty_file_is_read_and_downloaded(opener: Opener, tmp_path: Path) -> None:
    folder = opener()
    assert folder.read("README.md") == b""
    assert folder.download("README.md", tmp_path / "into").read_bytes() == b""


def test_a_download_has_the_complete_content(opener: Opener, tmp_path: Path) -> None:
    folder = opener()
    place = folder.download("adapter_model.safetensors", tmp_path / "deep" / "into")
    assert place.read_bytes() == WEIGHTS
    there = folder.local("adapter_model.safetensors")
    assert place == there if there is not None else place == tmp_path / "deep" / "into"


def test_arriving_bytes_are_counted_and_reported(opener: Opener, tmp_path: Path) -> None:
    told: list[int] = []
    folder = opener()
    already = folder.local("adapter_model.safetensors") is not None
    folder.download("adapter_model.safetensors", tmp_path / "into", told.append)
    assert sum(told) == folder.bytes_read == (0 if already else len(WEIGHTS))


def test_reading_little_transfers_little(opener: Opener) -> None:
    folder = opener()
    folder.read("adapter_model.safetensors", 0, 8)
    assert folder.bytes_read <= 8 + 64 * 1024


def test_a_missing_file_is_our_error(opener: Opener, tmp_path: Path) -> None:
    folder = opener()
    for call in (
        lambda: folder.read("adapter_config.jsn"),
        lambda: folder.local("adapter_config.jsn"),
        lambda: folder.download("adapter_config.jsn", tmp_path / "into"),
    ):
        with pytest.raises(SourceError) as caught:
            call()
        assert caught.value.code == "AD206"
        assert "adapter_config.json" in (caught.value.findings[0].hint or "")


def test_a_path_that_leads_out_is_never_read(opener: Opener) -> None:
    folder = opener()
    for path in ("../secret", "/etc/passwd", "a/../../secret", ""):
        with pytest.raises(SourceError):
            folder.read(path)


def test_it_keeps_the_declared_source_as_its_name(opener: Opener) -> None:
    folder = opener()
    assert folder.pinned.location == folder.source.location
    assert folder.revision is None or folder.pinned.revision == folder.revision


def test_opened_with_its_own_facts_it_has_exactly_those_files(opener: Opener) -> None:
    first = opener()
    pins = {name: first.files()[name] for name in ("adapter_config.json", "README.md")}
    folder = opener(files=pins, revision=first.revision)
    assert dict(folder.files()) == pins
    assert folder.read("adapter_config.json") == FILES["adapter_config.json"]


def test_opened_with_another_size_it_says_the_source_changed(opener: Opener) -> None:
    first = opener()
    fact = first.files()["adapter_config.json"]
    pins = {fact.path: FileFact(fact.path, fact.size + 1, version=fact.version)}
    folder = opener(files=pins, revision=None)
    with pytest.raises(SourceError) as caught:
        folder.files()
    assert caught.value.code == "AD228"


def test_a_pinned_path_that_leads_out_is_refused(opener: Opener) -> None:
    folder = opener(files={"../x": FileFact("../x", 1)})
    with pytest.raises(SourceError) as caught:
        folder.files()
    assert caught.value.code == "AD203"


def test_an_unwritable_target_is_our_error(opener: Opener, tmp_path: Path) -> None:
    folder = opener()
    if folder.local("adapter_config.json") is not None or folder.revision is not None:
        return  # these keep a place of their own and never write to the target
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceError) as caught:
        folder.download("adapter_config.json", tmp_path / "file" / "into")
    assert caught.value.code == "AD237"
