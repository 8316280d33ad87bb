"""The plugin runs in each process of vLLM, so it imports little, and nothing that can fail."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import adapterdock

ROOM = Path(adapterdock.__file__).parent / "serving" / "vllm"


def test_the_room_needs_neither_torch_nor_the_loader_nor_vllm() -> None:
    modules = [f"adapterdock.serving.vllm.{path.stem}" for path in sorted(ROOM.glob("[a-z]*.py"))]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print([n for n in sys.modules if n.partition('.')[0] in ('torch', 'numpy', 'vllm')"
        " or n.startswith('adapterdock.loader')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_what_the_entry_points_name_imports_only_the_standard_library() -> None:
    tree = ast.parse((ROOM / "plugin.py").read_text(encoding="utf-8"))
    imported = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert imported == ["__future__", "typing"]
    assert not any(isinstance(node, ast.Import) for node in tree.body)
