"""Where output goes: results to stdout, everything else to stderr.

On a terminal, text is wrapped to its width and styled. Elsewhere, with ``NO_COLOR`` set or
``TERM=dumb``, it is plain: no escape codes, no wrapping, one record per line.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Styled = str | tuple[str, str]
"""Text, or text and its rich style (``bold red``)."""

HANG = 2
"""Indent of the second line of wrapped text, in columns."""


class Printer:
    """Standard output or standard error, as it is at the time of each call."""

    def __init__(self, name: str) -> None:
        self._name: str = name
        self._console: tuple[TextIO, Console] | None = None

    @property
    def stream(self) -> TextIO | None:
        """The stream; ``None`` if the process was started without it."""
        return getattr(sys, self._name)

    @property
    def fancy(self) -> bool:
        """Whether it is a terminal that can show colours and moving bars."""
        stream = self.stream
        if stream is None or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            return False
        return stream.isatty() and (stream.encoding or "").lower().startswith("utf")

    @property
    def console(self) -> Console:
        """Rich's console for the stream, on a terminal."""
        from rich.console import Console

        stream = self.stream
        assert stream is not None
        if self._console is None or self._console[0] is not stream:
            made = Console(
                file=stream, force_terminal=True, highlight=False, markup=False, emoji=False
            )
            self._console = (stream, made)
        return self._console[1]

    @property
    def width(self) -> int | None:
        """Columns of the terminal; ``None`` if text is not wrapped."""
        return self.console.width if self.fancy else None

    def line(self, *parts: Styled, indent: int = 0, hang: int = HANG) -> None:
        """Print ``parts`` as one line. Further lines (the text has line breaks, or the terminal is
        narrow) are indented by ``hang`` more columns."""
        if not self.fancy:
            text = clean("".join(p if isinstance(p, str) else p[0] for p in parts))
            first, *rest = text.split("\n")
            lines = [" " * indent + first, *(" " * (indent + hang) + more for more in rest)]
            print("\n".join(line.rstrip() for line in lines), file=self.stream)
            return
        wrapped = self._wrapped(parts, self.console.width - indent, hang)
        for number, line in enumerate(wrapped):
            line.rstrip()
            line.pad_left(indent + (hang if number else 0))
            self.console.print(line, soft_wrap=True)

    def as_json(self, schema: str, data: Mapping[str, Any]) -> None:
        """``data`` as one JSON object whose first key is ``schema``; never wrapped or styled."""
        print(json.dumps({"schema": schema, **data}, indent=2), file=self.stream)

    def _wrapped(self, parts: tuple[Styled, ...], width: int, hang: int) -> list[Text]:
        from rich.text import Text

        text = Text()
        for part in parts:
            content, style = (part, "") if isinstance(part, str) else part
            text.append(clean(content), style)
        lines = text.wrap(self.console, max(width, 1), overflow="fold")
        if len(lines) > 1:  # there is less room beside the indent
            lines = text.wrap(self.console, max(width - hang, 1), overflow="fold")
        return list(lines)


out = Printer("stdout")
err = Printer("stderr")


say = out.line
"""Prints one line of a result."""


def clean(text: str) -> str:
    """``text`` with control characters escaped, except line breaks: names and messages may come
    from a stranger's file, and must not control the terminal."""
    if text.isprintable():
        return text
    return "".join(
        c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


@contextmanager
def status(text: str) -> Generator[None]:
    """Show a spinner on a terminal during the block; elsewhere print one plain line."""
    if err.fancy:
        with err.console.status(clean(text)):
            yield
    else:
        err.line(f"{text} ...")
        yield
