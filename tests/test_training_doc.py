"""The page on training is one script, and prints what it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[1] / "docs" / "training.md"
_BLOCK = re.compile(r"```(python|text)\n(.*?)```", re.DOTALL)


def steps_of(page: str) -> list[tuple[str, str]]:
    """(code, what it prints) of each block; nothing where no output follows."""
    blocks = _BLOCK.findall(page)
    found: list[tuple[str, str]] = []
    for at, (kind, text) in enumerate(blocks):
        if kind == "python":
            after = blocks[at + 1] if at + 1 < len(blocks) else ("", "")
            found.append((text, after[1] if after[0] == "text" else ""))
    return found


def test_the_page_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    before = torch.get_rng_state()
    for code, expected in steps_of(PAGE.read_text(encoding="utf-8")):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, str(PAGE), "exec"), names)
        assert out.getvalue() == expected, code
    torch.set_rng_state(before)
