"""Any other fsspec filesystem, with memory:// as the one that needs no server."""

from __future__ import annotations

import resource
import subprocess
import sys
import uuid
from pathlib import Path

import fsspec
import pytest
from adapterdock.manifests.findings.errors import SourceError
from adapterdock.manifests.language.source import Source
from adapterdock.registry.sources import opened as opened_module
from adapterdock.registry.sources.folder import Folder
from adapterdock.registry.sources.open import open_source


@pytest.fixture
def root() -> str:
    """A folder in memory with one file of three bytes."""
    place = f"/{uuid.uuid4().hex}"
    fsspec.filesystem("memory").pipe_file(f"{place}/tone/w.bin", b"old")
    return place


def opened(text: str, **options: object) -> Folder:
    return open_source(Source.parse(text), directory=Path.cwd(), **options)  # type: ignore[arg-type]


def code_of(folder: Folder, path: str | None = None) -> str:
    with pytest.raises(SourceError) as caught:
        folder.read(path) if path else folder.files()
    return caught.value.code


def test_a_file_that_is_replaced_is_noticed_by_its_version(root: str) -> None:
    folder = opened(f"memory:/{root}/tone")
    pins = folder.files()
    assert (pins["w.bin"].version or "").startswith("ukey:")
    assert folder.read("w.bin") == b"old"
    fsspec.filesystem("memory").pipe_file(f"{root}/tone/w.bin", b"new")
    assert code_of(folder, "w.bin") == "AD228"
    assert code_of(opened(f"memory:/{root}/tone", files=pins)) == "AD228"
    fsspec.filesystem("memory").rm(f"{root}/tone/w.bin")
    assert code_of(opened(f"memory:/{root}/tone", files=pins)) == "AD229"


def test_a_missing_folder_and_a_file_are_reported(root: str) -> None:
    assert code_of(opened(f"memory:/{root}/tune")) == "AD201"
    assert code_of(opened(f"memory:/{root}/tone/w.bin")) == "AD202"


def test_a_key_with_two_dots_is_refused(root: str) -> None:
    memory = fsspec.filesystem("memory")
    memory.store[f"{root}/tone/a\\..\\b"] = memory.store[f"{root}/tone/w.bin"]
    memory.store[f"{root}/tone/../../evil"] = memory.store[f"{root}/tone/w.bin"]
    try:
        assert code_of(opened(f"memory:/{root}/tone")) == "AD203"
    finally:
        del memory.store[f"{root}/tone/a\\..\\b"], memory.store[f"{root}/tone/../../evil"]


def test_too_many_files_are_refused(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened_module, "FOLDER_FILES", 20)
    memory = fsspec.filesystem("memory")
    for number in range(20):
        memory.store[f"{root}/tone/{number}"] = memory.store[f"{root}/tone/w.bin"]
    try:
        assert code_of(opened(f"memory:/{root}/tone")) == "AD205"
    finally:
        memory.rm(root, recursive=True)


def test_a_missing_driver_names_its_package() -> None:
    with pytest.raises(SourceError) as caught:
        opened("gs://bucket/tone")
    assert caught.value.code == "AD230"
    assert caught.value.findings[0].hint == "pip install gcsfs"


def test_without_s3fs_the_hint_is_our_own_extra() -> None:
    code = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from pathlib import Path\n"
        "from adapterdock.manifests.findings.errors import SourceError\n"
        "from adapterdock.manifests.language.source import Source\n"
        "from adapterdock.registry.sources.open import open_source\n"
        "try:\n"
        "    open_source(Source.parse('s3://b/x'), directory=Path('.'))\n"
        "except SourceError as error:\n"
        "    print(error.code, error.findings[0].hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "AD230 pip install 'adapterdock[s3]'"


@pytest.mark.parametrize("scheme", ["s4", "local"])
def test_an_unknown_scheme_is_reported(scheme: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(Source(scheme, "bucket/tone"), directory=Path.cwd())
    assert caught.value.code == "AD231"


def test_a_full_disk_is_our_error_and_leaves_nothing_behind(root: str, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file(f"{root}/tone/big.bin", b"x" * 300_000)
    folder = opened(f"memory:/{root}/tone")
    folder.files()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(SourceError) as caught:
            folder.download("big.bin", tmp_path / "into")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code == "AD237"
    assert not (tmp_path / "into").exists()


def test_a_target_that_exists_is_not_overwritten(root: str, tmp_path: Path) -> None:
    (tmp_path / "into").write_bytes(b"mine")
    with pytest.raises(SourceError) as caught:
        opened(f"memory:/{root}/tone").download("w.bin", tmp_path / "into")
    assert caught.value.code == "AD237"
    assert (tmp_path / "into").read_bytes() == b"mine"
