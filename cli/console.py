"""Where output goes: results to stdout, everything said about them to stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from rich.console import Console


@cache
def out() -> Console:
    """Results. Plain text where stdout is not a terminal, without wrapping there."""
    return Console(highlight=False, soft_wrap=False)


@cache
def err() -> Console:
    """Progress, warnings and errors."""
    return Console(stderr=True, highlight=False)


def say(text: str = "") -> None:
    """One line of result, never wrapped or marked up where it is not a terminal."""
    console = out()
    if console.is_terminal:
        console.print(text, markup=False)
    else:
        print(text)


@contextmanager
def status(text: str) -> Iterator[None]:
    """A spinner on a terminal while something takes long; one plain line elsewhere."""
    console = err()
    if console.is_terminal:
        with console.status(text):
            yield
    else:
        console.print(text, markup=False)
        yield
