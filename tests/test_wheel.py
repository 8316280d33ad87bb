"""The wheel that is built from the sdist, installed elsewhere: it is all there, and it runs."""

from __future__ import annotations

import os
import re
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
        for suffix in ("py", "json", "md", "html", "css", "js", "svg"):
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


def test_the_source_archive_has_no_tests_and_can_be_built_from(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as sdist:  # the wheel was built from it
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert "release/backend.py" in names
    assert not any(name.startswith(("tests", "docs", "benchmarks")) for name in names)


def test_the_package_page_has_the_readme_with_absolute_links_only(
    built: tuple[Path, Path],
) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        (name,) = (x for x in wheel.namelist() if x.endswith(".dist-info/METADATA"))
        metadata = wheel.read(name).decode()
    head, _, page = metadata.partition("\n\n")
    assert "Description-Content-Type: text/markdown" in head
    assert "Project-URL: Source, https://github.com/" in head
    assert page.startswith("# adapterdock\n")
    assert re.findall(r"\]\((?!https://|#)[^)]*\)", page) == []


def test_an_editable_install_is_found_by_editors_and_by_programs(tmp_path: Path) -> None:
    checkout, site, out = tmp_path / "checkout", tmp_path / "site", tmp_path / "out"
    leave = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "dist", "tests", "docs")
    shutil.copytree(ROOT, checkout, ignore=leave)
    out.mkdir()
    code = f"import backend; print(backend.build_editable({str(out)!r}))"
    environment = {**os.environ, "PYTHONPATH": str(checkout / "release")}
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=checkout, env=environment, capture_output=True, check=True)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    # An editor reads the lines of .pth files that are folders, and runs nothing.
    lines = [line for file in site.glob("*.pth") for line in file.read_text().splitlines()]
    folders = [Path(line) for line in lines if not line.startswith("import ")]
    (found,) = (folder / "adapterdock" for folder in folders if (folder / "adapterdock").is_dir())
    assert (found / "loader" / "load.py").read_text() == (ROOT / "loader/load.py").read_text()
    # A program gets the real path of the checkout, unless something is before it.
    code = (
        f"import site; site.addsitedir({str(site)!r}); import adapterdock.cli; "
        "print(adapterdock.__file__)"
    )
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python = [sys.executable, "-S", "-c", code]  # without this environment's own
    done = subprocess.run(python, cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert done.stdout == f"{checkout / '__init__.py'}\n", done.stderr
    (tmp_path / "first" / "adapterdock" / "cli").mkdir(parents=True)
    for name in ("adapterdock/__init__.py", "adapterdock/cli/__init__.py"):
        (tmp_path / "first" / name).touch()
    before = {**alone, "PYTHONPATH": str(tmp_path / "first")}
    done = subprocess.run(python, cwd=tmp_path, env=before, capture_output=True, text=True)
    assert done.stdout == f"{tmp_path / 'first' / 'adapterdock' / '__init__.py'}\n", done.stderr


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
