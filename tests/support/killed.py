"""A child process that is killed (``kill -9``) at every line of some files, one child for each."""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def killed_at_every_line(
    act: Callable[[], object],
    modules: tuple[types.ModuleType, ...],
    before: Callable[[], object],
    step: int = 1,
) -> Iterator[int]:
    """Run ``before`` here and ``act`` in a fork of this process, which is killed at the first line
    that it runs in ``modules``, then ``step`` lines later, and so on, until one comes to its end.
    Yields after each child that was killed: the number of the line."""
    files = {str(Path(module.__file__ or "").resolve()) for module in modules}
    number = 0
    while True:
        before()
        number += step if number else 1
        child = os.fork()
        if child == 0:
            _end(act, files, number)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            assert number > 1, "nothing of the modules ran"
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        yield number


def _end(act: Callable[[], object], files: set[str], number: int) -> None:
    left = number

    def trace(frame: types.FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    status = 1
    try:
        sys.settrace(trace)
        act()
        status = 0
    finally:
        os._exit(status)
