"""`adapterdock fleet status`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapterdock
import pytest
from adapterdock.manifests.lockfile import Lock
from support import terminal
from support.project import Project
from support.replicas import ReplicaServer
from typer.testing import Result

Cli = Callable[..., Result]
Make = Callable[..., ReplicaServer]
KEY = "k-0123456789"
OTHER = "sha256:" + "9" * 64


@pytest.fixture
def lock(project: Project, monkeypatch: pytest.MonkeyPatch) -> Lock:
    project.base()
    project.adapter("tone")
    project.write({"tone": "./tone"})
    monkeypatch.chdir(project.folder)
    return adapterdock.lock(project.manifest)


def differing(server: ReplicaServer, lock: Lock) -> ReplicaServer:
    return server.serves(lock, adapters={"tone": {"digest": OTHER}}, wanted={"tone": OTHER})


def test_the_exit_status_is_that_of_the_fleet(lock: Lock, replica: Make, cli: Cli) -> None:
    good, other, down = replica().serves(lock), differing(replica(), lock), replica()
    fine = cli("fleet", "status", "--on", good.url)
    assert fine.exit_code == 0, fine.output
    assert f"{good.url}\tsame\t1 of 1\tvllm 0.32.0\t" in fine.stdout
    assert "1 of 1 replica serves what the lock pins" in fine.stderr
    unknown = cli("fleet", "status", "--on", good.url, "--on", down.url)
    assert unknown.exit_code == 3
    assert "error AD978" not in unknown.stderr and "unchecked AD978" in unknown.stderr
    wrong = cli("fleet", "status", "adapters.yaml", *(f"--on={s.url}" for s in (good, other, down)))
    assert wrong.exit_code == 1
    assert "tone: another content" in wrong.stdout
    assert "1 of 3 replicas serves what the lock pins" in wrong.stderr


def test_json_has_every_row(lock: Lock, replica: Make, cli: Cli) -> None:
    other = differing(replica(), lock)
    result = cli("fleet", "status", "--on", other.url, "--probe", "--json")
    data = json.loads(result.stdout)
    assert (data["schema"], data["exit_status"], result.exit_code) == ("adapterdock.fleet/1", 1, 1)
    (row,) = data["replicas"]
    assert row["replica"] == other.url
    assert row["adapters"] == [
        {
            "name": "tone",
            "state": "differs",
            "locked": lock.adapters["tone"].digest,
            "served": OTHER,
            "acts": True,
        }
    ]
    assert [finding["code"] for finding in row["findings"]] == ["AD977"]


def test_a_probe_changes_the_status(lock: Lock, replica: Make, cli: Cli) -> None:
    server = replica().serves(lock)
    server.says = lambda model, prompt: "the same"
    assert cli("fleet", "status", "--on", server.url).exit_code == 0
    probed = cli("fleet", "status", "--on", server.url, "--probe")
    assert probed.exit_code == 1
    assert "tone: no effect" in probed.stdout
    assert "AD979" in probed.stderr
    server.says = lambda model, prompt: model if "late" in prompt else "the same"
    late = ("--probe", "--prompt", "My order is late.")
    shown = cli("fleet", "status", "--on", server.url, *late)
    assert shown.exit_code == 0
    assert "1 of 1 adapter answers differently from the base\n" in shown.stderr
    server.answers["/v1/completions"] = 500
    broken = cli("fleet", "status", "--on", server.url, "--probe")
    assert broken.exit_code == 3
    assert "0 of 1 adapter answers differently from the base; 1 not probed" in broken.stderr


def test_waiting_says_how_far_it_is(
    lock: Lock, replica: Make, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterdock.serving.fleet.fleet.PAUSE", 0.05)
    server = differing(replica(), lock)

    def later() -> None:
        while not server.requests:
            time.sleep(0.01)
        time.sleep(0.2)  # its answer is on the way
        server.serves(lock)

    thread = threading.Thread(target=later)
    thread.start()
    result = cli("fleet", "status", "--on", server.url, "--wait", "1m")
    thread.join()
    assert result.exit_code == 0, result.output
    assert result.stderr.count("0 of 1 replica serves what the lock pins; waiting") == 1


@pytest.mark.parametrize("given", ["variable", "file"])
def test_the_key_is_never_printed(
    given: str,
    lock: Lock,
    replica: Make,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    finding = {"code": "AD604", "message": f"Bearer {KEY}"}
    engine = {"name": KEY, "version": "1"}
    server = replica().serves(lock, findings=[finding], engine=engine, adapters={})
    server.key = KEY
    options: tuple[str, ...] = ()
    if given == "variable":
        monkeypatch.setenv("ADAPTERDOCK_FLEET_KEY", KEY)
    else:
        (tmp_path / "key").write_text(f"{KEY}\n")
        options = ("--key-file", str(tmp_path / "key"))
    for more in ((), ("--json",)):
        result = cli("fleet", "status", "--on", server.url, *options, *more)
        assert result.exit_code == 1
        assert KEY not in result.stdout + result.stderr
    assert server.requests[0][2]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--on", "a:8000"),
        ("--on", "http://a", "--wait", "5"),
        ("--on", "http://a", "--wait", "5 m"),
        ("--on", "http://a", "--wait", "-5m"),
        ("--on", "http://a", "--timeout", "0"),
        ("--on", "http://a", "--timeout", "nan"),
        ("--on", "http://a", "--prompt", "Hi"),
        ("--on", "http://a", "--probe", "--prompt", " "),
        ("--on", "http://a", "--key-file", "missing"),
        ("--on", "http://a", "--key-file", "."),
    ],
)
def test_wrong_usage_is_a_finding(arguments: tuple[str, ...], lock: Lock, cli: Cli) -> None:
    result = cli("fleet", "status", *arguments)
    assert result.exit_code == 2, result.output
    assert re.search(r"AD980|AD914", result.stderr)


@pytest.mark.parametrize("key", ["two words", "a\r\nX: y", "ключ", ""])
def test_a_key_that_is_no_header_is_refused_without_it(
    key: str, lock: Lock, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(key)
    result = cli("fleet", "status", "--on", "http://a", "--key-file", str(tmp_path / "key"))
    assert result.exit_code == 2
    assert not key or key not in result.stderr


def test_a_missing_and_a_stale_lock_are_refused(project: Project, lock: Lock, cli: Cli) -> None:
    project.adapter("more", seed=2)
    project.write({"tone": "./tone", "more": "./more"})
    assert "AD505" in cli("fleet", "status", "--on", "http://a").stderr
    project.lock_file.unlink()
    missing = cli("fleet", "status", "--on", "http://a")
    assert missing.exit_code == 1
    assert "The lock is missing" in missing.stderr


def test_names_from_a_liar_do_not_control_the_terminal(lock: Lock, replica: Make, cli: Cli) -> None:
    evil: dict[str, Any] = {"\x1b[2J" + "x" * 5000: {"digest": OTHER}}
    server = replica().serves(lock, adapters=evil, state="\x1b]0;pwned\x07")
    result = cli("fleet", "status", "--on", server.url)
    assert result.exit_code == 1
    assert "\x1b" not in result.stdout + result.stderr
    assert len(result.stdout) < 1000


@pytest.mark.parametrize("columns", [40, 120])
def test_it_fits_a_terminal_of_any_width(
    columns: int, project: Project, lock: Lock, replica: Make
) -> None:
    good, other = replica().serves(lock), differing(replica(), lock)
    arguments = ("fleet", "status", "--on", good.url, "--on", other.url)
    ran = terminal.run_on_terminal(*arguments, cwd=project.folder, columns=columns)
    assert ran.status == 1
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", ran.out)
    assert max(map(len, plain.splitlines())) <= columns
    assert "another content" in plain
    quiet = terminal.run(*arguments, cwd=project.folder, env={"NO_COLOR": "1"})
    assert (quiet.status, "\x1b" in quiet.out + quiet.err) == (1, False)


def test_it_imports_neither_torch_nor_a_network_client(
    project: Project, lock: Lock, replica: Make
) -> None:
    server = replica().serves(lock)
    code = (
        "import sys\n"
        f"sys.argv = ['adapterdock', 'fleet', 'status', '--on', {server.url!r}, '--json']\n"
        "from adapterdock.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert not left.code, left.code\n"
        "heavy = ('torch', 'numpy', 'httpx', 'httpx2', 'huggingface_hub', 'fsspec', 'rich')\n"
        "found = [name for name in heavy if name in sys.modules]\n"
        "assert not found, found\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.folder,
        env=terminal.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
