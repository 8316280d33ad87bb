"""Completion in the shell: commands, options, codes, and the names that a manifest declares."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import terminal


def completed(line: str, cwd: Path, shell: str) -> list[str]:
    """What the shell is offered for the last word of ``line``."""
    words = line.split(" ")
    env = {"_ADAPTERDOCK_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        env |= {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    else:
        env |= {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    ran = terminal.run(cwd=cwd, env=env)
    assert ran.err == ""
    return [row.split("\t")[0] for row in ran.lines if row.strip()]


@pytest.mark.parametrize("shell", ["bash", "fish"])
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("adapterdock va", ["validate"]),
        ("adapterdock cache ", ["ls", "verify", "gc"]),
        ("adapterdock lock --up", ["--upgrade", "--upgrade-all"]),
        ("adapterdock explain AD12", [f"AD12{n}" for n in range(8)]),
        ("adapterdock explain unknown-k", ["unknown-key"]),
        ("adapterdock validate --accept AD43", [f"AD43{n}" for n in range(1, 7)]),
        ("adapterdock run --adapter a", ["a0", "a1"]),
        ("adapterdock run other.yaml --adapter t", ["tone", "two"]),
        ("adapterdock lock nowhere.yaml --upgrade a", []),
    ],
)
def test_the_shell_completes_codes_and_names(
    at_desk: Path, shell: str, line: str, offered: list[str]
) -> None:
    (at_desk / "other.yaml").write_text(
        "version: 1\nbase: {}\nadapters:\n"
        "  tone: {source: ./a}\n  two: {source: ./b}\n  x: {source: ./c}\n"
    )
    found = completed(line, at_desk, shell)
    assert [word for word in found if word in offered] == offered
    assert set(found) <= {*offered, "AD128", "AD129", "AD437", "AD438", "AD439"}
