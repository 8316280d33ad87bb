"""Where output goes: results to stdout, everything else to stderr.

On a terminal, text is wrapped to its width and styled. ``NO_COLOR`` switches off its colours, and
``TERM=dumb`` every escape code; both leave the layout. Elsewhere text is plain: no escape codes, no
wrapping, one record per line. ``FORCE_COLOR`` adds styles there, and nothing else; ``NO_COLOR``
counts more.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from ..manifests.findings.said import Part as Styled
from ..manifests.findings.said import clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

HANG = 2
"""Indent of the second line of wrapped text, in columns."""
_COLUMNS, _LINES = 80, 25
"""Of a terminal that does not say its size."""


class Printer:
    """Standard output or standard error, as it is at the time of each call."""

    def __init__(self, name: str) -> None:
        self._name: str = name
        self._console: tuple[TextIO, Console] | None = None
        self.muted: bool = False
        """Whether :meth:`line` prints nothing: notes with --quiet."""

    @property
    def stream(self) -> TextIO | None:
        """The stream; ``None`` if the process was started without it."""
        return getattr(sys, self._name)

    @property
    def terminal(self) -> bool:
        """Whether it is a terminal: text is wrapped, and tables are laid out."""
        stream = self.stream
        return stream is not None and stream.isatty()

    @property
    def fancy(self) -> bool:
        """Whether it is a terminal that can show moving bars, and characters that are not ASCII."""
        stream = self.stream
        if stream is None or os.environ.get("TERM") == "dumb":
            return False
        return stream.isatty() and (stream.encoding or "").lower().startswith("utf")

    @contextmanager
    def heard(self) -> Generator[None]:
        """Print even if muted: an error."""
        muted, self.muted = self.muted, False
        try:
            yield
        finally:
            self.muted = muted

    @property
    def console(self) -> Console:
        """Rich's console for the stream, on a terminal."""
        from rich.console import Console

        stream = self.stream
        assert stream is not None
        if self._console is None or self._console[0] is not stream:
            fancy = self.fancy
            made = Console(
                file=stream,
                force_terminal=True,
                color_system="auto" if fancy else "standard" if _colours_forced() else None,
                highlight=False,
                markup=False,
                emoji=False,
                # rich takes every dumb terminal to be 80 columns wide, unless it is told both
                width=None if fancy else _columns(stream),
                height=None if fancy else _LINES,
            )
            self._console = (stream, made)
        return self._console[1]

    @property
    def width(self) -> int | None:
        """Columns of the terminal; ``None`` if text is not wrapped."""
        return self.console.width if self.terminal else None

    def line(self, *parts: Styled, indent: int = 0, hang: int = HANG) -> None:
        """Print ``parts`` as one line. Further lines (the text has line breaks, or the terminal is
        narrow) are indented by ``hang`` more columns."""
        if self.muted:
            return
        if not self.terminal:
            text = "".join(self._plain(part) for part in parts)
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
        self.raw(json.dumps({"schema": schema, **data}, indent=2))

    def raw(self, text: str) -> None:
        """``text`` for another program, as it is: never wrapped, styled or escaped."""
        print(text, file=self.stream)

    def _plain(self, part: Styled) -> str:
        """One part without wrapping, with its style if that is forced."""
        content, style = (part, "") if isinstance(part, str) else part
        content = clean(content)
        if not style or not content.strip() or not _colours_forced():
            return content
        from rich.color import ColorSystem
        from rich.style import Style

        parsed = Style.parse(style)
        return parsed.render(content, color_system=ColorSystem.STANDARD)

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


def _colours_forced() -> bool:
    return bool(os.environ.get("FORCE_COLOR")) and not os.environ.get("NO_COLOR")


def _columns(stream: TextIO) -> int:
    said = os.environ.get("COLUMNS", "")
    if said.isdigit() and int(said):
        return int(said)
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except (OSError, ValueError):
        return _COLUMNS


out = Printer("stdout")
err = Printer("stderr")


say = out.line
"""Prints one line of a result."""


@contextmanager
def status(text: str) -> Generator[None]:
    """Show a spinner on a terminal during the block; elsewhere print one plain line."""
    if err.muted:
        yield
    elif err.fancy:
        with err.console.status(clean(text)):
            yield
    else:
        err.line(f"{text} ...")
        yield
