"""Folders as a user of the command line has them: a base, adapters, a manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from .builders import lora_config, write_adapter, write_base


def write_desk(folder: Path, adapters: int = 2, recorded: str | None = None) -> Path:
    """``adapters.yaml`` in ``folder`` with a tiny Llama and adapters ``a0``, ``a1``, ... for it,
    which record ``recorded`` as their base. Returns the manifest."""
    write_base(folder / "base", tokenizer=True)
    lines = ["version: 1", "name: desk", "base:", "  model: ./base   # kept", "adapters:"]
    for number in range(adapters):
        config = lora_config(base_model_name_or_path=recorded)
        write_adapter(folder / "adapters" / f"a{number}", config, seed=number)
        lines += [f"  a{number}:", f"    source: ./adapters/a{number}"]
    manifest = folder / "adapters.yaml"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


@pytest.fixture
def at_desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a manifest of two adapters that fit."""
    write_desk(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
