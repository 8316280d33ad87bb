"""What is published: one version, a package page whose links work, files that GitHub reads."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import adapterdock
import pytest
import yaml

ROOT = Path(adapterdock.__file__).parent
FOLDER = ROOT / "release"
RELATIVE = re.compile(r"\]\((?!https://|#)[^)]*\)")


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(f"release_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, made)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return module("backend", monkeypatch)


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return module("check", monkeypatch)


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return module("notes", monkeypatch)


# -- the package page ---------------------------------------------------------------------------

REPOSITORY = "https://code.example/adapterdock"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[a](pages/x.md#b)", f"[a]({REPOSITORY}/blob/v1.2.3/pages/x.md#b)"),
        ("![a](pages/x.svg)", f"![a]({REPOSITORY}/raw/v1.2.3/pages/x.svg)"),
        ("[a](https://example.com/x)", "[a](https://example.com/x)"),
        ("[a](#here)", "[a](#here)"),
        (
            "a\n\n```mermaid\nflowchart LR\n    a --> b\n```\n\nb\n",
            f"a\n\n[The picture]({REPOSITORY}/blob/v1.2.3/README.md#how-it-works)\n\nb\n",
        ),
        ("```python\nx\n```\n", "```python\nx\n```\n"),
    ],
)
def test_links_of_the_package_page_are_absolute(backend: ModuleType, text: str, shown: str) -> None:
    assert backend.package_page(text, REPOSITORY, "1.2.3") == shown


def test_the_readme_has_no_relative_link_on_the_package_page(backend: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    page = backend.package_page(readme, REPOSITORY, "1.2.3")
    assert RELATIVE.search(readme)
    assert RELATIVE.findall(page) == []
    assert "\n## How it works\n" in page  # where the picture is


# -- the version --------------------------------------------------------------------------------


def test_every_file_that_repeats_the_version_has_the_same(
    check: ModuleType, backend: ModuleType
) -> None:
    assert backend.version() == adapterdock.__version__
    check.same_version(adapterdock.__version__)
    check.same_version(adapterdock.__version__, f"v{adapterdock.__version__}")
    assert not re.search(r'^version = "', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)


@pytest.mark.parametrize(
    ("file", "pattern", "said"),
    [
        ("CITATION.cff", r"^version: .*$", "CITATION.cff has version 9.9.9"),
        ("CHANGELOG.md", r"^## \d\S*", "the newest section of CHANGELOG.md has version 9.9.9"),
    ],
)
def test_another_version_in_a_file_is_refused(
    check: ModuleType, tmp_path: Path, file: str, pattern: str, said: str
) -> None:
    for name in ("CITATION.cff", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    text = (tmp_path / file).read_text("utf-8")
    other = "version: 9.9.9" if file == "CITATION.cff" else "## 9.9.9"
    (tmp_path / file).write_text(re.sub(pattern, other, text, count=1, flags=re.M))
    with pytest.raises(check.NotReadyError, match=re.escape(said)):
        check.same_version(adapterdock.__version__, root=tmp_path)


def test_a_tag_of_another_version_is_refused(check: ModuleType) -> None:
    with pytest.raises(check.NotReadyError, match=r"the tag has version 9\.9\.9"):
        check.same_version(adapterdock.__version__, "v9.9.9")


def test_the_release_notes_are_the_section_of_the_changelog(notes: ModuleType) -> None:
    changelog = "# Changelog\n\n## 1.1.0\n\n- b\n\n## 1.0.0 (2026-01-01)\n\n- a\n"
    assert notes.notes(changelog, "1.1.0") == "- b\n"
    assert notes.notes(changelog, "1.0.0") == "- a\n"
    with pytest.raises(ValueError, match=r"no section for 1\.1"):
        notes.notes(changelog, "1.1")
    ours = notes.notes(notes.CHANGELOG.read_text("utf-8"), adapterdock.__version__)
    assert "### Added" in ours


# -- the files that GitHub reads ----------------------------------------------------------------


def test_ci_runs_every_python_that_the_package_says() -> None:
    said = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    test = workflow["jobs"]["test"]
    assert test["strategy"]["matrix"]["python"] == said
    commands = [step.get("run") for job in workflow["jobs"].values() for step in job["steps"]]
    assert {"make test", "make check", "make docs-site"} <= set(commands)


@pytest.mark.parametrize("file", ["ci.yml", "release.yml"])
def test_a_workflow_uses_exact_actions_and_make_targets_that_are_there(file: str) -> None:
    text = (ROOT / ".github" / "workflows" / file).read_text("utf-8")
    used = re.findall(r"uses: (.*)$", text, re.M)
    assert used and all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", x) for x in used)
    targets = re.findall(r"run: make ([\w-]+)", text)
    rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert targets and set(targets) <= set(rules)


def test_only_the_job_that_publishes_can_ask_for_a_token_of_the_package_index() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))
    assert workflow["permissions"] == {}
    asks = [n for n, job in workflow["jobs"].items() if "id-token" in job.get("permissions", {})]
    assert asks == ["publish"]
    assert workflow["jobs"]["publish"]["environment"]["name"] == "pypi"
    assert workflow["jobs"]["publish"]["needs"] == "build"


def test_every_address_of_the_repository_is_the_one_of_pyproject() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (source,) = re.findall(r'^Source = "(.+?)"', text, re.M)
    files = [*ROOT.glob("*.md"), ROOT / "CITATION.cff", *ROOT.glob(".github/**/*.*m*")]
    addresses = [
        (file.name, found)
        for file in files
        for found in re.findall(r"https://github\.com/[\w.-]+/[\w-]+", file.read_text("utf-8"))
        if "adapterdock" in found
    ]
    assert len(addresses) >= 5
    assert {found for _, found in addresses} == {source}


def test_an_image_is_built_from_all_that_the_package_is_built_from() -> None:
    allowed = (ROOT / "docs/serving/Dockerfile.dockerignore").read_text("utf-8").splitlines()
    kept = {line.removeprefix("!") for line in allowed if line.startswith("!")}
    rooms = {f.parent.name for f in ROOT.glob("*/__init__.py")}
    assert {"pyproject.toml", "README.md", "LICENSE", "__init__.py", "release"} | rooms <= kept
