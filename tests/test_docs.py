"""What the pages show as printed is what their code prints."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import adapterdock
import pytest

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


@pytest.mark.slow
def test_every_page_shows_what_its_code_prints() -> None:
    done = subprocess.run(
        [sys.executable, str(PRINT), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}\nrun `make docs`"


@pytest.mark.slow
def test_a_page_that_shows_something_else_is_told_and_put_right(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nimport os\n\nprint(sorted(os.listdir()))\n```\n```text\n[]\n```\n")

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(PRINT), str(page), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    stale = run("--check")
    assert stale.returncode == 1
    assert "-[]\n+['adapters.lock', 'adapters.yaml', 'base', 'billing'," in stale.stdout
    assert "[]" in page.read_text()
    assert run().returncode == 0
    assert "['adapters.lock', 'adapters.yaml', 'base'" in page.read_text()


def test_blocks_share_names_and_each_has_its_own_output(pages: ModuleType) -> None:
    page = "```python\na = 1\nprint(a)\n```\n```text\n7\n```\n\n```python\na += 1\n```\n\nb\n\n"
    page += "```python\nprint(a, end='')\n```\nafter\n"
    wanted = page.replace("7", "1").replace("end='')\n```\n", "end='')\n```\n```text\n2\n```\n")
    assert pages.printed("p.md", page) == wanted
    assert pages.printed("p.md", wanted) == wanted


def test_an_output_that_is_not_printed_any_more_goes(pages: ModuleType) -> None:
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


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("```python no-run\nf()\n```\n```text\n1\n```\n", "p.md:1: .* not run has an output"),
        ("```console no-run\n$ f\n1\n```\n", "p.md:1: .* not run has an output"),
        ("```console\nf\n```\n", "p.md:1: a console block begins with a command"),
        ("```console\n$ touch x\nold\n```\n", "only adapterdock, cat, ls are run"),
        ("a\n```python\nf()\n", "p.md:2: this block is not closed"),
        ("```python\nprint('```')\n```\n```text\n```\n", "fence"),
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


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in ROOT.glob("docs/*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


def test_every_name_of_upstream_and_of_ours_is_gone_through() -> None:
    from adapterdock.loader.adapted import AdaptedModel
    from peft import PeftModel
    from peft.tuners.lora import LoraModel
    from peft.tuners.tuners_utils import BaseTuner
    from torch import nn
    from transformers.integrations.peft import PeftAdapterMixin

    page = (ROOT / "docs" / "names.md").read_text()
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
