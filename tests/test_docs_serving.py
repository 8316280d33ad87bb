"""The tutorials in docs/serving/ show what is printed, and name what the code has."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import adapterdock
import pytest
from adapterdock.manifests.findings.catalogue import all_codes
from adapterdock.serving.vllm import settings
from support.terminal import environment

ROOT = Path(adapterdock.__path__[0])
SERVING = ROOT / "docs" / "serving"
PAGES = [SERVING / "vllm.md", SERVING / "ray.md"]


def table(page: Path, heading: str) -> list[str]:
    """The first cells of the last table whose heading begins so."""
    text = page.read_text(encoding="utf-8")
    rows = text[text.rindex(f"| {heading} |") :].partition("\n\n")[0].splitlines()[2:]
    return [row.split("|")[1].strip() for row in rows]


@pytest.mark.slow
def test_the_commands_print_what_the_pages_show(smollm2: Path, tmp_path: Path) -> None:
    folder = tmp_path / "home" / ".cache" / "adapterdock" / "quickstart"
    folder.mkdir(parents=True)
    shutil.copytree(smollm2, folder / "SmolLM2-135M-Instruct", copy_function=shutil.copy)
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "print.py"), "--check", *map(str, PAGES)],
        capture_output=True,
        text=True,
        timeout=500,
        env=environment({"HOME": str(tmp_path / "home")}),
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_answers_of_servers_are_those_of_the_quickstart(page: Path) -> None:
    said = (ROOT / "manifests" / "quickstart" / "README.md").read_text(encoding="utf-8")
    text = page.read_text(encoding="utf-8")
    begins = ("Arr, matey!", "The capital of", "Capital of England, n.")
    answers = {line for line in text.splitlines() if line.startswith(begins)}
    assert len(answers) == 5
    assert all(f"| {answer} |" in said for answer in answers)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_findings_that_are_shown_have_the_names_of_their_codes(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?:error|warning|unchecked) (AD\d{3}) ([\w-]+):", text)
    assert named
    for code, name in named:
        assert all_codes()[code].name == name


def test_every_setting_of_the_plugin_is_in_the_table() -> None:
    ours = {
        value
        for value in vars(settings).values()
        if isinstance(value, str) and value.startswith("ADAPTERDOCK_")
    }
    shown = set(re.findall(r"`(\w+)`", " ".join(table(SERVING / "vllm.md", "variable"))))
    assert ours <= shown
    others = {f"ADAPTERDOCK_{name}" for name in ("FOLLOW", "POLICY", "CACHE", "OFFLINE")}
    assert shown == {*ours, *others, "HF_HUB_OFFLINE", "VLLM_PLUGINS"}


def test_every_argument_of_the_ray_application_is_in_the_table() -> None:
    from adapterdock.serving.ray import Args

    shown = re.findall(r"`(\w+)`", " ".join(table(SERVING / "ray.md", "argument")))
    assert sorted(shown) == sorted(set(Args.model_fields) - {"guarded"})


def starts_of_vllm(source: str) -> list[int]:
    """The lines that start a vLLM. One in a loop or a parametrised test counts as many."""
    found: list[int] = []
    many = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

    def walk(node: ast.AST, times: int) -> None:
        if isinstance(node, many):
            times = 100
        if isinstance(node, ast.FunctionDef) and "parametrize" in "".join(
            map(ast.unparse, node.decorator_list)
        ):
            times = 100
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "running.start":
            found.extend([node.lineno] * times)
        for child in ast.iter_child_nodes(node):
            walk(child, times)

    walk(ast.parse(source), 1)
    return found


def test_the_tests_of_vllm_start_it_five_times_at_most() -> None:
    """Each start takes a minute or more."""
    source = (ROOT / "tests" / "serving_real" / "test_vllm.py").read_text(encoding="utf-8")
    assert 1 <= len(starts_of_vllm(source)) <= 5
    assert "starts vLLM five times" in (ast.get_docstring(ast.parse(source)) or "")
    # all other ways to start one are in the fixture's class
    assert source.count("VllmServer(") <= 1
    loop = "for one in many:\n    running.start(one)"
    assert len(starts_of_vllm(loop)) > 5


def test_the_page_on_fleets_says_why_nothing_is_pushed() -> None:
    text = " ".join((SERVING / "fleet.md").read_text(encoding="utf-8").split())
    why = text.partition("## Why nothing is pushed")[2].partition(" ## ")[0]
    for reason in (
        "lost when a server restarts",
        "a server that an autoscaler starts never gets it",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
        "There is no route that changes a server",
    ):
        assert reason in why
