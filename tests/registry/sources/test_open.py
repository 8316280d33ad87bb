"""What is decided before any kind of source is opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import OfflineError, SourceError
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.language.source import Source
from adapterdock.registry.sources.open import is_offline, open_source


def test_importing_it_imports_no_client() -> None:
    code = (
        "import sys; import adapterdock.registry.sources.open\n"
        "heavy = {'huggingface_hub', 'fsspec', 'aiohttp', 's3fs', 'tqdm', 'torch'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_opening_a_local_folder_imports_no_client(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from adapterdock.manifests.language.source import Source\n"
        "from adapterdock.registry.sources.open import open_source\n"
        "open_source(Source.parse('.'), directory=Path(sys.argv[1]),"
        " mirrors={'hf://': 's3://x'}).files()\n"
        "heavy = {'huggingface_hub', 'fsspec', 'aiohttp', 's3fs', 'torch'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


@pytest.mark.parametrize(
    "text", ["registry://team/refunds@^2.1", "oci://host/repository:v1", "oci-archive:a.tar"]
)
def test_what_is_published_is_not_a_folder(text: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(Source.parse(text), directory=Path.cwd())
    assert caught.value.code == "AD178"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", True), ("on", True), ("Yes", True), ("TRUE", True), ("0", False), ("", False)],
)
@pytest.mark.parametrize("name", ["ADAPTERDOCK_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_a_variable_is_true_as_the_hub_reads_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: bool
) -> None:
    monkeypatch.setenv(name, value)
    assert is_offline() is expected


@pytest.mark.parametrize("text", ["s3://b/x", "https://x.org/a", "memory://x", "gs://b/x"])
def test_offline_nothing_remote_is_opened(text: str) -> None:
    here = Where(file="a.yaml", line=4)
    with pytest.raises(OfflineError) as caught:
        open_source(Source.parse(text), directory=Path.cwd(), offline=True, where=here)
    assert caught.value.code == "AD233"
    assert caught.value.findings[0].where == here
