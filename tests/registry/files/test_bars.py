"""Progress bars of the Python API."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import adapterdock
import pytest
import rich
from adapterdock.registry.files import bars
from support.hub_server import HubServer


@pytest.fixture
def manifest(at_desk: Path, hub: HubServer) -> Path:
    folder = at_desk / "adapters" / "a0"
    hub.commit("org/a", {file.name: file.read_bytes() for file in folder.iterdir()})
    path = at_desk / "adapters.yaml"
    path.write_text(path.read_text().replace("./adapters/a0", "hf://org/a"))
    return path


def test_a_notebook_shows_one_output_that_is_redrawn_and_stays(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    fake = ModuleType("IPython.display")

    def display(html: str, display_id: bool) -> SimpleNamespace:
        assert display_id
        shown.append(html)
        return SimpleNamespace(update=shown.append)

    fake.__dict__.update(HTML=str, display=display)
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    monkeypatch.setattr(rich, "get_console", lambda: SimpleNamespace(is_jupyter=True))
    monkeypatch.setattr(bars, "REDRAWN_EVERY", 0)
    with adapterdock.progress_bars("Locking") as progress:
        adapterdock.lock(manifest, progress=progress, accept=["AD364"])
    assert "Locking" in shown[0]
    assert any("<progress max=" in html and "adapter_model.safetensors" in html for html in shown)
    assert "fetched or verified" in shown[-1] and "<progress" not in shown[-1]
    with adapterdock.progress_bars("Nothing"):
        pass
    assert "Nothing had to be fetched" in shown[-1] and "0 files" not in shown[-1]


def test_without_a_terminal_nothing_is_shown(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with adapterdock.progress_bars() as progress:
        adapterdock.lock(manifest, progress=progress, accept=["AD364"])
    said = capsys.readouterr()
    assert (said.out, said.err.strip()) == ("", "")
