"""`adapterdock run`, on a tiny random Llama with a tokenizer of 64 words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import terminal
from support.desks import write_desk
from typer.testing import Result

Cli = Callable[..., Result]
PROMPT = "w5 w9 w11"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    manifest = write_desk(folder)
    with manifest.open("a") as stream:
        stream.write("compositions:\n  both: {of: {a0: 1.0, a1: -2.0}}\nactive: a0\n")
    return folder


@pytest.fixture
def at(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(desk)
    return desk


def ask(cli: Cli, *arguments: object, **more: str) -> str:
    result = cli("run", "--max-new-tokens", 8, *arguments, **more)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_run_answers_with_the_active_adapter_and_reads_standard_input(cli: Cli, at: Path) -> None:
    answer = ask(cli, "-p", PROMPT)
    assert len(answer.split()) == 8
    assert ask(cli, given=PROMPT + "\n") == answer
    assert ask(cli, "-p", PROMPT, "-a", "a0") == answer


def test_several_adapters_are_compared(cli: Cli, at: Path) -> None:
    text = ask(cli, "-p", PROMPT, "-a", "__base__", "-a", "a1", "-a", "both", "-a", "a1")
    lines = text.splitlines()
    assert lines[::2] == ["--- __base__", "--- a1", "--- both"]
    for name, said in zip(["__base__", "a1", "both"], lines[1::2], strict=True):
        assert ask(cli, "-p", PROMPT, "-a", name).strip() == said


def test_a_seed_gives_the_same_sample_again(cli: Cli, at: Path) -> None:
    def sample(seed: int) -> str:
        return ask(cli, "-p", PROMPT, "--temperature", 5, "--seed", seed, "--raw")

    assert sample(3) == sample(3) != sample(4)
    assert sample(2**64 - 1) == sample(2**64 - 1)


@pytest.mark.parametrize(
    "option", [("--temperature", "-1"), ("--max-new-tokens", "0"), ("--seed", str(2**64))]
)
def test_numbers_out_of_range_are_wrong_usage(cli: Cli, option: tuple[str, str]) -> None:
    assert cli("run", "-p", "x", *option).exit_code == 2


@pytest.mark.parametrize("given", ["", "  \n"])
def test_a_missing_prompt_is_wrong_usage(cli: Cli, at: Path, given: str) -> None:
    result = cli("run", given=given)
    assert (result.exit_code, "AD905" in result.stderr) == (2, True)


def test_a_prompt_that_is_not_text_is_wrong_usage(cli: Cli, at: Path) -> None:
    result = cli("run", "-p", "caf\udce9")
    assert (result.exit_code, "The prompt is not text" in result.stderr) == (2, True)
    assert "\\udce9" in result.stderr


def without(tmp_path: Path, modules: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command where these modules cannot be imported."""
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({modules.split()!r}))\n"
        f"sys.argv = ['adapterdock', *{arguments!r}]\n"
        "from adapterdock.cli.main import main\nmain()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=terminal.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_without_torch_the_error_says_what_to_install(at: Path) -> None:
    done = without(at, "torch transformers", "run", "-p", "x")
    assert done.returncode == 2
    assert "AD903" in done.stderr and "adapterdock[torch]" in done.stderr
    assert "torch and transformers are not installed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-a", "a11"), "Did you mean 'a1'?"),
        (("-a", "__bse__"), "Did you mean '__base__'?"),
        (("-a", "zzz"), "a0, a1, both, __base__"),
    ],
)
def test_an_unknown_adapter_is_reported_before_loading(
    at: Path, arguments: tuple[str, ...], said: str
) -> None:
    # torch cannot even be imported here
    done = without(at, "torch transformers", "run", "-p", "x", *arguments)
    assert done.returncode == 2
    assert "AD730" in done.stderr and said in done.stderr


@pytest.mark.parametrize("command", [("run", "-p", "x"), ("merge", "-o", "out"), ("serve",)])
def test_the_lock_and_the_policies_are_looked_at_before_torch_is_imported(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    def imported() -> None:
        raise AssertionError("torch was imported")

    monkeypatch.setattr(f"adapterdock.cli.{command[0]}.importing_torch", imported)
    monkeypatch.chdir(tmp_path)
    manifest = write_desk(tmp_path)
    Path("none.yaml").write_text("allow_sources: []\n")
    refused = cli(*command, "--frozen")
    assert (refused.exit_code, "AD504" in refused.stderr) == (1, True)
    assert "AD85" in cli(*command, "--policy", "none.yaml").stderr
    assert "AD513" in cli(*command, "--accept", "AD101").stderr
    cli("lock")
    manifest.write_text(manifest.read_text().replace("./adapters/a1", "./adapters/a0"))
    assert "AD505" in cli(*command).stderr


def test_a_manifest_without_a_base_is_reported_before_loading(tmp_path: Path) -> None:
    (tmp_path / "adapters.yaml").write_text("version: 1\nbase: {}\n")
    done = without(tmp_path, "torch transformers", "run", "-p", "x")
    assert (done.returncode, "AD904" in done.stderr) == (2, True)


def test_a_terminal_gets_the_answer_word_by_word(cli: Cli, at: Path) -> None:
    expected = ask(cli, "-p", PROMPT)
    shown = terminal.run_on_terminal("run", "-p", PROMPT, "--max-new-tokens", 8, cwd=at)
    assert shown.status == 0, shown.out
    assert shown.out.rstrip().endswith(expected.strip())
    assert "Traceback" not in shown.out


def test_a_pipe_gets_only_the_answer(at: Path) -> None:
    shown = terminal.run("run", "--max-new-tokens", "4", cwd=at, given=PROMPT)
    assert shown.status == 0, shown.err
    assert len(shown.lines) == 1
    assert "Loading the base and its adapters ..." in shown.err
    assert shown.err.count("AD512") == 1
    assert "Traceback" not in shown.err


def test_ctrl_c_during_an_answer_ends_with_one_line(at: Path) -> None:
    shown = terminal.run_on_terminal(
        "run", "-p", PROMPT, "--max-new-tokens", 5000, cwd=at, interrupt_when=" w"
    )
    assert shown.status == 130
    assert shown.out.rstrip().splitlines()[-1].endswith("Stopped; nothing was left half-done")
    assert "Traceback" not in shown.out


def test_a_weighted_sum_is_what_the_composition_of_these_weights_is(cli: Cli, at: Path) -> None:
    assert ask(cli, "-p", PROMPT, "-a", "a0=1,a1=-2") == ask(cli, "-p", PROMPT, "-a", "both")
    assert ask(cli, "-p", PROMPT, "-a", "a0, a1 = 0") == ask(cli, "-p", PROMPT, "-a", "a0")
    assert ask(cli, "-p", PROMPT, "-a", "both=0") == ask(cli, "-p", PROMPT, "-a", "__base__")


def test_a_chat_on_a_terminal_answers_switches_and_ends(at: Path) -> None:
    types = [
        ("> ", PROMPT + "\n"),
        (" w", "\x03"),  # stops the answer, and the chat goes on
        ("> ", "/adapter nobody\n"),
        ("> ", "/adapter a0=1,a1=-2\n"),
        ("> ", "\x04"),
    ]
    shown = terminal.run_on_terminal("run", "--max-new-tokens", 5000, cwd=at, types=types)
    assert shown.status == 0, shown.out
    assert "Chatting with a0" in shown.out
    assert "AD730" in shown.out and "Answering with a0=1,a1=-2" in shown.out
    assert "Stopped" not in shown.out and "Traceback" not in shown.out
