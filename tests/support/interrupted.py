"""``KeyboardInterrupt`` at every line that the package runs, one after the other."""

from __future__ import annotations

import ast
import dis
import gc
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import adapterdock

ROOT = Path(adapterdock.__file__).parent


def lines_run(act: Callable[[], object], among: frozenset[str]) -> int:
    """How many lines of the files ``among`` (paths within the package) ``act`` runs."""
    return _run(act, among, 0)[0]


def interrupted_at(act: Callable[[], object], line: int, among: frozenset[str]) -> str | None:
    """Run ``act`` and interrupt it before its ``line``-th line; where that was, or ``None`` if it
    came to its end."""
    return _run(act, among, line)[1]


def sample(count: int, most: int) -> Iterator[int]:
    """At most ``most`` of the numbers 1 to ``count``, evenly, and always the same ones."""
    for at in range(min(count, most)):
        yield 1 + at * count // min(count, most)


def _run(act: Callable[[], object], among: frozenset[str], stop: int) -> tuple[int, str | None]:
    seen = 0
    where: str | None = None
    last: dict[types.FrameType, int] = {}

    def trace(frame: types.FrameType, event: str, argument: Any) -> Any:
        nonlocal seen, where
        name = frame.f_code.co_filename
        if _within(name) not in among or where is not None:
            return None
        if event == "line":
            before, last[frame] = last.get(frame, 0), frame.f_lineno
            if _leaves_a_block(name, before, frame.f_lineno) or _jumps_back(frame):
                return trace
            seen += 1
            if seen == stop:
                where = f"{_within(name)}:{frame.f_lineno} in {frame.f_code.co_name}"
                raise KeyboardInterrupt(where)
        elif event == "return" and not frame.f_code.co_flags & inspect.CO_GENERATOR:
            last.pop(frame, None)
        return trace

    gc.disable()  # or finalizers of earlier models run in between
    sys.settrace(trace)
    try:
        act()
    except KeyboardInterrupt:
        if where is None:
            raise
    finally:
        sys.settrace(None)
        gc.enable()
    return seen, where


def _jumps_back(frame: types.FrameType) -> bool:
    """Whether a loop begins again. Python 3.13 leaves out ``finally`` and ``__exit__`` where it is
    interrupted there (python/cpython#130279)."""
    name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
    return sys.version_info >= (3, 12) and name.startswith("JUMP_BACKWARD")


@cache
def _within(name: str) -> str | None:
    path = Path(name)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else None


def _leaves_a_block(name: str, before: int, now: int) -> bool:
    """Whether this is a ``with`` line on the way out: the interpreter takes no interruption between
    the end of a block and its ``__exit__``, though it tells of the line."""
    return any(now in heads and before in body for heads, body in _blocks(name))


@cache
def _blocks(name: str) -> tuple[tuple[range, range], ...]:
    return tuple(
        (range(node.lineno, node.body[0].lineno), range(node.body[0].lineno, node.end_lineno + 1))
        for node in ast.walk(ast.parse(Path(name).read_text(encoding="utf-8")))
        if isinstance(node, ast.With) and node.end_lineno is not None
    )
