"""Every order in which the storage steps of several processes can happen.

A process is a function that gets a storage. Each call of the storage is one step. The processes are
deterministic, so what one does next follows from the results of its calls so far: it is run again
from its beginning with these results, up to its next call. So no threads are needed, and two orders
that lead to the same files and the same results are one state, which is visited once.

A process that is killed simply takes no further step. So what holds in every state holds wherever
processes are killed.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

Files = Mapping[str, bytes]
Process = Callable[[Any], object]
State = tuple[int, tuple[int, ...], int | None]
"""The files, how far each process is, and which of them took the last step."""
URL = "memory"


class Memory:
    """A storage in memory. Every file has the same age."""

    url = URL
    creates = True
    lists = True

    def __init__(self, files: Files) -> None:
        self.files: dict[str, bytes] = dict(files)

    def read(self, path: str, limit: int) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path][:limit]

    def chunks(self, path: str) -> Iterator[bytes]:
        yield self.read(path, 1 << 40)

    def find(self, folder: str) -> Mapping[str, int]:
        start = f"{folder}/" if folder else ""
        return {p: len(raw) for p, raw in sorted(self.files.items()) if p.startswith(start)}

    def times(self, folder: str) -> Mapping[str, float]:
        return dict.fromkeys(self.find(folder), 0.0)

    def create(self, path: str, content: bytes | Path) -> None:
        if path in self.files:
            raise FileExistsError(path)
        self.files[path] = content.read_bytes() if isinstance(content, Path) else content

    def remove(self, path: str) -> None:
        self.files.pop(path, None)


class _Paused(BaseException):
    """The process asks for a call whose result is not known yet."""


class _Replayed:
    """A storage that answers with results that are known, and notes the first call after them."""

    url = URL
    creates = True
    lists = True

    def __init__(self, results: tuple[Any, ...]) -> None:
        self._results = iter(results)
        self.next: tuple[Any, ...] | None = None

    def _call(self, *call: Any) -> Any:
        if self.next is None:
            try:
                kind, value = next(self._results)
            except StopIteration:
                self.next = call
            else:
                if kind == "exists":
                    raise FileExistsError(value)
                if kind == "missing":
                    raise FileNotFoundError(value)
                return dict(value) if kind == "rows" else value
        raise _Paused

    def read(self, path: str, limit: int) -> bytes:
        return self._call("read", path, limit)

    def find(self, folder: str) -> Mapping[str, int]:
        return self._call("find", folder)

    def times(self, folder: str) -> Mapping[str, float]:
        return self._call("times", folder)

    def create(self, path: str, content: bytes | Path) -> None:
        raw = content.read_bytes() if isinstance(content, Path) else content
        self._call("create", path, raw)  # the process may remove its own file

    def remove(self, path: str) -> None:
        self._call("remove", path)


@dataclass
class Exploration:
    """All states that the processes can reach from ``start``."""

    start: Files
    processes: Mapping[str, Process]
    most: int | None = None
    """How often a process may be interrupted by another one; as often as possible by default."""
    states: int = 0
    endings: set[tuple[str, ...]] = field(default_factory=set)
    """How the processes ended: each ``done``, or the code or name of its error."""
    files: list[Files] = field(default_factory=list)
    """Each different content of the storage."""
    _known: dict[tuple[tuple[str, bytes], ...], int] = field(default_factory=dict)
    _histories: list[tuple[Any, ...]] = field(default_factory=lambda: [()])
    _children: dict[tuple[int, Any], int] = field(default_factory=dict)
    _calls: dict[tuple[str, int], tuple[Any, ...]] = field(default_factory=dict)

    def run(self, check: Callable[[Files], None]) -> None:
        """Visit every state and ``check`` its files. An ``AssertionError`` gets the order of
        steps."""
        names = list(self.processes)
        first: State = (self._keep(self.start, check, None), (0,) * len(names), None)
        came: dict[State, tuple[State, str] | None] = {first: None}
        switches: dict[State, int] = {first: 0}
        waiting: deque[State] = deque([first])
        while waiting:
            state = waiting.popleft()
            files_id, histories, last = state
            calls = [self._next(*pair) for pair in zip(names, histories, strict=True)]
            if all(call[0] == "ended" for call in calls):
                self.endings.add(tuple(call[1] for call in calls))
            for at, (name, call) in enumerate(zip(names, calls, strict=True)):
                if call[0] == "ended":
                    continue
                more = last not in (None, at) and calls[last][0] != "ended"
                count = switches[state] + more
                if self.most is not None and count > self.most:
                    continue
                memory = Memory(self.files[files_id])
                result = _apply(memory, call)
                history = self._child(histories[at], result)
                step = f"{name}: {call[0]} {call[1]} -> {result[0]}"
                try:
                    new_id = self._keep(memory.files, check, files_id)
                except AssertionError as error:
                    raise AssertionError("\n".join([*_order(came, state), step])) from error
                follows = at if self.most is not None else None
                new: State = (new_id, (*histories[:at], history, *histories[at + 1 :]), follows)
                if count < switches.get(new, count + 1):
                    switches[new] = count
                    came[new] = (state, step)
                    if more:
                        waiting.append(new)
                    else:
                        waiting.appendleft(new)
        self.states = len(came)

    def _keep(self, files: Files, check: Callable[[Files], None], before: int | None) -> int:
        if before is not None and files == self.files[before]:
            return before
        key = tuple(sorted(files.items()))
        if key not in self._known:
            check(files)
            self._known[key] = len(self.files)
            self.files.append(dict(files))
        return self._known[key]

    def _child(self, history: int, result: Any) -> int:
        key = (history, result)
        if key not in self._children:
            self._children[key] = len(self._histories)
            self._histories.append((*self._histories[history], result))
        return self._children[key]

    def _next(self, name: str, history: int) -> tuple[Any, ...]:
        key = (name, history)
        if key not in self._calls:
            self._calls[key] = _next_call(name, self.processes[name], self._histories[history])
        return self._calls[key]


def _next_call(name: str, process: Process, results: tuple[Any, ...]) -> tuple[Any, ...]:
    storage = _Replayed(results)
    count = 0

    def token(size: int = 16) -> str:
        nonlocal count
        count += 1
        return f"{name.encode().hex()}{count:x}".ljust(2 * size, "0")[: 2 * size]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_hex", token)
        try:
            process(storage)
        except _Paused:
            pass
        except Exception as error:
            if storage.next is None:
                return ("ended", getattr(error, "code", type(error).__name__))
        else:
            if storage.next is None:
                return ("ended", "done")
    assert storage.next is not None
    return storage.next


def _apply(memory: Memory, call: tuple[Any, ...]) -> tuple[str, Any]:
    what, path = call[0], call[1]
    try:
        value = getattr(memory, what)(*call[1:])
    except FileExistsError:
        return "exists", path
    except FileNotFoundError:
        return "missing", path
    return ("rows", tuple(value.items())) if isinstance(value, dict) else (what, value)


def _order(came: Mapping[State, tuple[State, str] | None], state: State) -> list[str]:
    steps: list[str] = []
    while (before := came[state]) is not None:
        state, step = before
        steps.append(step)
    return steps[::-1]
