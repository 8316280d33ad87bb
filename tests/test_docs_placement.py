"""docs/how-to/place-a-model.md shows what its commands print."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import adapterdock
import pytest
from support.terminal import environment

ROOT = Path(adapterdock.__path__[0])
PAGE = (ROOT / "docs" / "how-to" / "place-a-model.md").read_text(encoding="utf-8")


def block(after: str, kind: str) -> str:
    """The first block of this kind behind ``after``."""
    found = re.search(rf"```{kind}\n(.*?)```", PAGE[PAGE.index(after) :], re.S)
    assert found is not None
    return found.group(1)


@pytest.mark.slow
def test_the_example_prints_what_the_page_shows(smollm2: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    folder = home / ".cache" / "adapterdock" / "quickstart"
    folder.mkdir(parents=True)
    shutil.copytree(smollm2, folder / "SmolLM2-135M-Instruct", copy_function=shutil.copy)
    done = subprocess.run(
        [sys.executable, "-c", block("make quickstart", "python")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        env=environment({"HOME": str(home)}),
    )
    assert done.returncode == 0, done.stderr
    assert lines(done.stdout) == lines(block("```python", "text"))


def lines(text: str) -> list[str]:
    """Without the numbers, which another machine rounds otherwise."""
    return [re.sub(r" [\d.]+$", "", line) for line in text.splitlines()]


@pytest.mark.slow
def test_the_rehearsal_prints_what_the_page_shows() -> None:
    command = block("A rehearsal runs", "console no-run").removeprefix("$ python ").split()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        env=environment({"OMP_NUM_THREADS": "1"}),
    )
    assert done.returncode == 0, done.stderr
    shown = block("A rehearsal runs", "text")
    assert names(done.stdout) == names(shown)


def names(text: str) -> list[str]:
    return [line.partition(":")[0] for line in text.splitlines()[1:]]
