"""What a notebook shows of an exception: the lines of the cell, and the findings."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from adapterdock.manifests.findings import language
from adapterdock.manifests.findings.errors import ManifestError
from adapterdock.manifests.manifest import read_manifest

CELL = """\
from adapterdock.manifests.manifest import read_manifest

def mine(path):
    return read_manifest(path)

mine("nowhere/adapters.yaml")
"""


def failed(code: str = CELL) -> ManifestError:
    """What ``code`` raises, run as a cell that is called cell.py."""
    with pytest.raises(ManifestError) as caught:
        exec(compile(code, "cell.py", "exec"), {"__name__": "__main__"})
    return caught.value


def shown(error: ManifestError) -> str:
    return "\n".join(error._render_traceback_())  # pyright: ignore[reportPrivateUsage]


def test_a_cell_that_fails_shows_its_own_lines_and_the_finding() -> None:
    error = failed()
    text = shown(error)
    assert 'File "cell.py", line 6' in text and "line 4, in mine" in text
    assert "AD101" in text
    assert "manifest.py" not in text and "FileNotFoundError" not in text
    assert len(text.splitlines()) < 15
    whole = traceback.format_exception(error)  # Python's own is as it was
    assert "FileNotFoundError" in "".join(whole)


def test_an_error_without_a_frame_of_the_caller_is_still_shown() -> None:
    try:
        read_manifest("nowhere/adapters.yaml")
    except ManifestError as error:
        assert "AD101" in shown(error)
    assert "AD101" in shown(ManifestError(language.UNREADABLE.finding("Cannot read the file: x")))


@pytest.mark.parametrize(("mode", "whole"), [("Context", False), ("Verbose", True)])
def test_ipython_formats_it_and_verbose_shows_everything(
    tmp_path: Path, mode: str, whole: bool
) -> None:
    cell = f'get_ipython().run_line_magic("xmode", {mode!r})\n{CELL}'
    ran = subprocess.run(
        [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "-c", cell],
        cwd=tmp_path,
        env=os.environ | {"IPYTHONDIR": str(tmp_path / "ipython")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert '----> 7 mine("nowhere/adapters.yaml")' in ran.stdout, ran.stderr
    assert "in mine(path" in ran.stdout and "AD101" in ran.stdout
    assert ("manifest.py" in ran.stdout) is whole
    assert ("FileNotFoundError" in ran.stdout) is whole
