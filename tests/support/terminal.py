"""Commands run as a person runs them: in a process of their own, on a terminal of a given width
or off it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import adapterdock

PACKAGE_PARENT = str(Path(adapterdock.__file__).resolve().parents[1])


@dataclass(frozen=True)
class Ran:
    """What a command did. On a terminal stdout and stderr are one, in ``out``."""

    status: int
    out: str
    err: str = ""

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The test's own, with the package importable and nothing that changes how output looks."""
    env = dict(os.environ)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "ADAPTERDOCK_DEBUG"):
        env.pop(name, None)
    path = [PACKAGE_PARENT, *filter(None, [env.get("PYTHONPATH")])]
    return (
        env | {"PYTHONPATH": os.pathsep.join(path), "TERM": "xterm-256color"} | dict(changes or {})
    )


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "adapterdock", *map(str, arguments)]


def run(
    *arguments: object, cwd: Path, given: str | None = None, env: Mapping[str, str] | None = None
) -> Ran:
    """The command with its streams in pipes; ``given`` is its standard input."""
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(env),
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def run_on_terminal(
    *arguments: object,
    cwd: Path,
    columns: int = 100,
    env: Mapping[str, str] | None = None,
    interrupt_when: str | Callable[[], bool] | None = None,
    argv: Sequence[str] | None = None,
    types: Sequence[tuple[str, str]] = (),
) -> Ran:
    """The command on a pseudo-terminal of this width. ``interrupt_when`` types Ctrl-C as soon
    as that text was shown, or that is so. ``types`` are texts to wait for, each with what is typed
    then; only what was shown after the one before counts."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        list(argv or command(*arguments)),
        cwd=cwd,
        env=environment(env),
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(side)
    output = bytearray()
    waiting, seen = list(types), 0
    deadline = time.monotonic() + 120
    try:
        while time.monotonic() < deadline:
            ready, _, _ = select.select([main], [], [], 0.1)
            if callable(interrupt_when) and interrupt_when():
                os.write(main, b"\x03")
                interrupt_when = None
            if not ready:
                if process.poll() is not None:
                    break
                continue
            try:
                chunk = os.read(main, 65536)
            except OSError:  # the other side is closed
                break
            if not chunk:
                break
            output += chunk
            if waiting and (at := output.find(waiting[0][0].encode(), seen)) >= 0:
                seen = at + len(waiting[0][0].encode())
                os.write(main, waiting.pop(0)[1].encode())
            if isinstance(interrupt_when, str) and interrupt_when.encode() in output:
                os.write(main, b"\x03")
                interrupt_when = None
        status = process.wait(timeout=30)
    finally:
        os.close(main)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return Ran(status, output.decode(errors="replace").replace("\r\n", "\n"))


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
