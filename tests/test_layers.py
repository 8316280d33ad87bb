"""Every import runs downward: between rooms, between the sub-rooms of a room, and in no circle.

The tables below are those of CONTRIBUTING.md. Imports for annotations and imports inside of
functions count like any other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import adapterdock
import pytest

ROOT = Path(adapterdock.__file__).parent

ROOMS = ("manifests", "registry", "loader", "serving", "cli")
SUBROOMS: Mapping[str, tuple[str, ...]] = {
    "manifests": ("findings", "language", "reading"),
    "registry": (
        *("files", "base", "methods", "store", "locks", "checks", "sources"),
        *("storages", "records", "signatures", "oci", "catalogue", "access"),
    ),
    "loader": (
        *("weights", "base", "adapter", "routing", "sites", "methods", "build"),
        *("compose", "merge", "model", "lifecycle"),
    ),
    "serving": ("targets", "copies", "served", "vllm", "app", "fleet", "export"),
    "cli": ("pages",),
}
"""From the bottom upward: each may import those before it. A room's own files come last."""

GROUND = frozenset({"manifests/bounds.py", "manifests/owner.py"})
"""Below every sub-room: they import nothing of ours."""
ASIDE = "loader/tables/"
"""Makes committed tables; may import anything of the loader, and nothing imports it."""


def imports_of(file: str, text: str, files: Mapping[str, str]) -> Iterator[str]:
    """The files of the package that ``file`` imports. ``files``: by module, the file."""
    package = file.split("/")[:-1]
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
        module = ".".join(part for part in base if part)
        for alias in node.names:
            found = files.get(f"{module}.{alias.name}") or files.get(module)
            if found is not None and found != file:
                yield found


def package() -> dict[str, str]:
    """By file, its text."""
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        if "quickstart" not in path.parts
    }


def graph(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """By file, the files that it imports."""
    modules = {file.removesuffix(".py").replace("/", "."): file for file in texts}
    modules |= {name.removesuffix(".__init__"): file for name, file in modules.items()}
    return {file: set(imports_of(file, text, modules)) for file, text in texts.items()}


def floor(file: str) -> tuple[int, int]:
    """How high a file lies: its room, and its sub-room in it."""
    room, *inside = file.split("/")
    order = SUBROOMS.get(room, ())
    if file in GROUND:
        return ROOMS.index(room), -1
    sub = order.index(inside[0]) if len(inside) > 1 and inside[0] in order else len(order)
    return ROOMS.index(room), sub


def upward(imports: Mapping[str, set[str]]) -> list[str]:
    found: list[str] = []
    for file, others in sorted(imports.items()):
        for other in sorted(others):
            aside = other.startswith(ASIDE) and not file.startswith(ASIDE)
            if aside or floor(other) > floor(file):
                found.append(f"{file} imports {other}")
    return found


def circles(imports: Mapping[str, set[str]]) -> list[str]:
    """Files that import one another in a circle; of each, one way around."""
    done: set[str] = set()

    def walk(file: str, way: list[str]) -> Iterator[str]:
        if file in way:
            yield " -> ".join([*way[way.index(file) :], file])
        elif file not in done:
            for other in sorted(imports[file]):
                yield from walk(other, [*way, file])
            done.add(file)

    return [circle for file in sorted(imports) for circle in walk(file, [])]


def test_every_import_runs_downward() -> None:
    assert upward(graph(package())) == []


def test_no_files_import_one_another_in_a_circle() -> None:
    assert circles(graph(package())) == []


def test_every_subroom_has_its_place_in_the_tables() -> None:
    for room, order in SUBROOMS.items():
        found = {p.name for p in (ROOT / room).iterdir() if (p / "__init__.py").exists()}
        assert found - {"tables"} == set(order)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("registry/files/header.py", "from ..store.store import Store"),
        ("manifests/findings/code.py", "from ...registry.lock import lock"),
        (
            "registry/base/packed.py",
            "def f():\n    from ..checks.check_adapter import check_adapter",
        ),
        ("loader/load.py", "if True:\n    from .tables.task_classes import table"),
    ],
)
def test_an_import_that_runs_upward_is_found(file: str, line: str) -> None:
    texts = package()
    texts[file] += f"\n{line}\n"
    assert any(found.startswith(file) for found in upward(graph(texts)))


def test_a_circle_is_found() -> None:
    texts = package()
    texts["registry/files/digests.py"] += "\nfrom .facts import FileFact\n"
    texts["registry/files/facts.py"] += "\nfrom .digests import PREFIX\n"
    assert any("digests.py -> registry/files/facts.py" in found for found in circles(graph(texts)))
