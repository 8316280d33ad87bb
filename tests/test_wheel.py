"""The wheel that is built from the sdist, installed elsewhere: it is all there, and it runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import adapterdock
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(adapterdock.__file__).parent
ROOMS = ("manifests", "registry", "loader", "cli")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist and the wheel made of it, built with the setuptools that is installed."""
    out, source = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("source") / "checkout"
    leave = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "dist")
    shutil.copytree(ROOT, source, ignore=leave)  # a build writes beside what it builds
    command = [sys.executable, "-m", "build", "--no-isolation", f"--outdir={out}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, f"--target={target}", str(built[1])], check=True)
    return target


def run(target: Path, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """With the installed package first, and not the checkout's."""
    environment = {**os.environ, "PYTHONPATH": str(target)}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


def test_every_module_and_every_table_is_in_the_wheel(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        inside = {n.removeprefix("adapterdock/") for n in wheel.namelist()}
    wanted = {"__init__.py", "py.typed"}
    for room in ROOMS:
        for suffix in ("py", "json", "md"):
            wanted |= {p.relative_to(ROOT).as_posix() for p in (ROOT / room).rglob(f"*.{suffix}")}
    # examples, and what makes the committed tables
    left_out = ("manifests/quickstart/", "loader/tables/", "serving/tables/")
    assert {name for name in wanted if not name.startswith(left_out)} <= inside
    assert not any(n.startswith(("tests/", "benchmarks/", "docs/")) for n in inside)


def test_the_licence_and_the_readme_are_in_both(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "py.typed"} <= names
    with zipfile.ZipFile(built[1]) as wheel:
        assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_it_is_imported_from_where_it_is_installed(installed: Path, tmp_path: Path) -> None:
    code = (
        "import adapterdock, sys; print(adapterdock.__file__, adapterdock.__version__); "
        "[getattr(adapterdock, name) for name in adapterdock.__all__]; "
        "from adapterdock.registry.base.architectures import architecture_table; "
        "assert len(architecture_table()['rows']) > 50"
    )
    done = run(installed, sys.executable, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file, version = done.stdout.split()
    assert Path(file) == installed / "adapterdock" / "__init__.py"
    assert version == adapterdock.__version__


def test_its_command_runs(installed: Path, tmp_path: Path) -> None:
    command = str(installed / "bin" / "adapterdock")
    done = run(installed, sys.executable, command, "--version", cwd=tmp_path)
    assert (done.stdout, done.returncode) == (f"adapterdock {adapterdock.__version__}\n", 0)
    assert run(installed, sys.executable, command, "init", cwd=tmp_path).returncode == 0
    explained = run(installed, sys.executable, command, "explain", "AD301", cwd=tmp_path)
    assert "AD301" in explained.stdout


def test_a_manifest_loads_with_it(installed: Path, tmp_path: Path, shelf: object) -> None:
    from support.shelf import manifest_of

    manifest = manifest_of(shelf, tmp_path, active="one")
    code = (
        f"import adapterdock; model = adapterdock.load({str(manifest)!r}); "
        "print(adapterdock.__file__, model.active_adapters())"
    )
    done = run(installed, sys.executable, "-c", code, cwd=tmp_path)
    assert done.stdout == f"{installed / 'adapterdock' / '__init__.py'} ['one']\n", done.stderr
