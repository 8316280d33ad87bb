"""What the pages show as printed is what their code prints."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import adapterdock
import pytest
from support.plain_words import DIALECT
from support.table_version import newest_transformers

ROOT = Path(adapterdock.__file__).parent
PRINT = ROOT / "docs" / "print.py"


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """``docs/print.py`` as a module, in an empty folder."""
    spec = importlib.util.spec_from_file_location("adapterdock_docs_print", PRINT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    return module


@newest_transformers  # whose version is in what is shown, and in its digests
@pytest.mark.slow
def test_every_page_shows_what_its_code_prints() -> None:
    done = subprocess.run(
        [sys.executable, str(PRINT), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}\nrun `make docs`"


@pytest.mark.slow
def test_a_page_with_another_output_is_reported_and_corrected(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nimport os\n\nprint(sorted(os.listdir()))\n```\n```text\n[]\n```\n")

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(PRINT), str(page), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    stale = run("--check")
    assert stale.returncode == 1
    listed = "['adapters.lock', 'adapters.lock.samples', 'adapters.yaml', 'base', 'billing',"
    assert f"-[]\n+{listed}" in stale.stdout
    assert "[]" in page.read_text()
    assert run().returncode == 0
    assert "['adapters.lock', 'adapters.lock.samples', 'adapters.yaml', 'base'" in page.read_text()


def test_blocks_share_names_and_each_has_its_own_output(pages: ModuleType) -> None:
    page = "```python\na = 1\nprint(a)\n```\n```text\n7\n```\n\n```python\na += 1\n```\n\nb\n\n"
    page += "```python\nprint(a, end='')\n```\nafter\n"
    wanted = page.replace("7", "1").replace("end='')\n```\n", "end='')\n```\n```text\n2\n```\n")
    assert pages.printed("p.md", page) == wanted
    assert pages.printed("p.md", wanted) == wanted


def test_an_output_that_is_no_longer_printed_is_removed(pages: ModuleType) -> None:
    page = "```python\na = 1\n```\n\n```text\n7\n```\n"
    assert pages.printed("p.md", page) == "```python\na = 1\n```\n"


def test_our_errors_and_warnings_are_output_and_other_exceptions_are_mistakes(
    pages: ModuleType,
) -> None:
    ours = "```python\nimport adapterdock\n\nadapterdock.lock('none.yaml')\n```\n```text\n```\n"
    assert "\nManifestError: error AD101" in pages.printed("p.md", ours)
    logged = "```python\nimport logging, warnings\n\nwarnings.warn('theirs')\n"
    logged += "logging.getLogger('adapterdock').warning('said')\n```\n```text\n```\n"
    assert pages.printed("p.md", logged).endswith("```text\nsaid\n```\n")
    with pytest.raises(pages.PageError, match=r"p.md:2: (.|\n)*line 4(.|\n)*NameError"):
        pages.printed("p.md", "\n```python\na = 1\nprint(b)\n```\n```text\n1\n```\n")


def test_commands_are_run_and_files_are_written(pages: ModuleType) -> None:
    page = "```yaml some/file.yaml\nversion: 1\n```\n"
    page += "```console\n$ cat some/file.yaml\n$ adapterdock explain \\\n> AD720\nold\n```\n"
    shown = pages.printed("p.md", page)
    assert "$ cat some/file.yaml\nversion: 1\n$ adapterdock explain \\\n> AD720\n" in shown
    assert "adapter-name-taken" in shown
    assert "\nold\n" not in shown


def test_a_page_sets_variables_and_shows_its_server_by_one_name(
    pages: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGE_PLACE", "")
    monkeypatch.setattr(pages, "_SHOWN", {"http://127.0.0.1:4711": "https://storage.example"})
    page = "```console\n$ export PAGE_PLACE=https://storage.example PAGE_OTHER='a b'\nold\n```\n"
    page += "```python\nimport os\n\nprint(os.environ['PAGE_PLACE'], os.environ['PAGE_OTHER'])\n"
    shown = pages.printed("p.md", page + "```\n```text\n```\n")
    assert "old" not in shown
    assert shown.endswith("```text\nhttps://storage.example a b\n```\n")
    assert os.environ.pop("PAGE_OTHER") == "a b"
    assert os.environ["PAGE_PLACE"] == "http://127.0.0.1:4711"


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("```python no-run\nf()\n```\n```text\n1\n```\n", "p.md:1: .* not run has an output"),
        ("```console no-run\n$ f\n1\n```\n", "p.md:1: .* not run has an output"),
        ("```console\nf\n```\n", "p.md:1: a console block begins with a command"),
        ("```console\n$ touch x\nold\n```\n", "only adapterdock, cat, ls, export are run"),
        ("a\n```python\nf()\n", "p.md:2: this block is not closed"),
        ("```python\nprint('```')\n```\n```text\n```\n", "fence"),
        ("```python\nprint('error AD990 bug: x')\n```\n```text\n```\n", "is a bug"),
    ],
)
def test_a_page_that_cannot_be_right_is_refused(pages: ModuleType, page: str, said: str) -> None:
    with pytest.raises(pages.PageError, match=said):
        pages.printed("p.md", page)


def test_a_page_without_outputs_and_what_is_outside_of_the_marks_is_left_alone(
    pages: ModuleType,
) -> None:
    page = "```python\nraise SystemExit\n```\n\n```console\n$ rm -r x\n```\n"
    assert pages.printed("p.md", page) == page
    shown = "```python\nraise SystemExit\n```\n```text\n3\n```\n"
    assert pages.printed("README.md", shown) == shown
    marked = f"```python\n1 / 0\n```\n```text\n3\n```\n{pages.BEGIN}\n```python\nprint(2)\n```\n"
    marked += f"```text\n3\n```\n{pages.END}\n```python\n1 / 0\n```\n```text\n3\n```\n"
    assert pages.printed("p.md", marked) == marked.replace(
        "print(2)\n```\n```text\n3", "print(2)\n```\n```text\n2"
    )


DOCS = ROOT / "docs"
KINDS = ("tutorial", "how-to", "serving", "reference", "explanation")
OTHER = {"README.md"}
"""The map, and a page that is made from the code."""
GENERATED = {"codes.md", "cli.md", "architectures.md"}
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"]
WRITTEN = [page for page in PAGES if page.name not in GENERATED]


def prose(page: Path) -> str:
    """The page without its blocks and without what is between backticks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return re.sub(r"`[^`]*`", "", text)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    kept = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in kept}


def test_every_page_is_of_one_kind_and_in_the_map() -> None:
    index = (DOCS / "README.md").read_text()
    for page in DOCS.rglob("*.md"):
        path = page.relative_to(DOCS)
        assert path.parts[0] in (*KINDS, *OTHER), path
        assert page.name == "README.md" or f"]({path.as_posix()})" in index, path


def test_a_page_opens_with_what_the_reader_will_have() -> None:
    for kind in set(KINDS) - {"reference"}:
        for page in (DOCS / kind).glob("*.md"):
            title, _, first, *_ = page.read_text(encoding="utf-8").splitlines()
            assert title.startswith("# "), page.name
            assert first.startswith("At the end of this page "), page.name


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        if path.startswith(("https://", "http://")):
            continue
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_that_the_code_names_is_there() -> None:
    named = re.compile(r"docs/[\w./-]*\.(?:md|py|svg|json)\b")
    rooms = ("cli", "serving", "loader", "registry", "manifests", "benchmarks", "docs", "tests")
    files = [*ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "pyproject.toml"]
    files += [
        file
        for room in rooms
        for file in (ROOT / room).rglob("*")
        if file.suffix in (".py", ".md", ".yaml") and file != Path(__file__)
    ]
    assert len(files) > 300
    for file in files:
        for path in named.findall(file.read_text(encoding="utf-8")):
            assert (ROOT / path).exists(), f"{file.relative_to(ROOT)} names {path}"


def test_the_readme_has_at_most_150_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_in_plain_words(page: Path) -> None:
    assert DIALECT.findall(prose(page)) == []


def test_the_calls_of_other_libraries_are_those_that_migrate_knows() -> None:
    """One table: `docs/reference.py` puts it into the page."""
    from adapterdock.registry.upstream_names import table

    assert table() in (ROOT / "docs" / "reference" / "names.md").read_text()


def test_every_name_of_upstream_and_of_ours_is_gone_through() -> None:
    from adapterdock.loader.adapted import AdaptedModel
    from peft import PeftModel
    from peft.tuners.lora import LoraModel
    from peft.tuners.tuners_utils import BaseTuner
    from torch import nn
    from transformers.integrations.peft import PeftAdapterMixin

    page = (ROOT / "docs" / "reference" / "names.md").read_text()
    said = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`]+`", page))))
    own = [one for one in AdaptedModel.__mro__ if one.__module__.startswith("adapterdock.")]
    names = {
        name
        for one in (*own, PeftModel, LoraModel, BaseTuner, PeftAdapterMixin)
        for name, value in vars(one).items()
        if not name.startswith("_") and (callable(value) or isinstance(value, property))
    }
    classmethods = {"get_model_config", "tuner_layer_cls"}
    assert names - said - classmethods - set(dir(nn.Module)) == set()
