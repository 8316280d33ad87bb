"""Help as plain text that fits the terminal: two columns if there is room, and commands to copy
on one line each."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import Any

WIDEST = 100
TWO_COLUMNS_FROM = 64
"""On narrower terminals the description of an option is below it, not beside it."""


def help_width() -> int:
    """How wide help may be, in columns."""
    columns = shutil.get_terminal_size().columns if sys.stdout and sys.stdout.isatty() else 80
    return min(columns, WIDEST)


def help_text(command: Any, ctx: Any, width: int) -> str:
    """The help of one command, from its docstring and its parameters, as plain text."""
    pieces = " ".join(command.collect_usage_pieces(ctx))
    lines = _wrap(f"Usage: {ctx.command_path} {pieces}", width, hang="  ")
    lines += ["", *_paragraphs(command.help or "", width)]
    records = {"Arguments": [], "Options": []}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        if parameter.param_type_name == "argument":
            records["Arguments"].append((parameter.metavar, record[1]))
        else:
            records["Options"].append(record)
    if hasattr(command, "list_commands"):
        subs = {name: command.get_command(ctx, name) for name in command.list_commands(ctx)}
        shown = {name: sub for name, sub in subs.items() if sub is not None and not sub.hidden}
        records["Commands"] = [
            (name, " ".join((sub.help or "").split("\n\n")[0].split()))
            for name, sub in shown.items()
        ]
    for heading in ("Commands", "Arguments", "Options"):
        if records.get(heading):
            lines += ["", f"{heading}:", *_definitions(records[heading], width)]
    if command.epilog:
        lines += ["", *_paragraphs(command.epilog, width)]
    return "\n".join(line.rstrip() for line in lines)


def _paragraphs(text: str, width: int) -> list[str]:
    """``text`` wrapped to ``width``. Indented lines (commands to copy, or a term with its meaning)
    keep their own lines."""
    lines: list[str] = []
    for paragraph in text.strip("\n").split("\n\n"):
        if lines:
            lines.append("")
        if paragraph.startswith(" "):
            for line in paragraph.split("\n"):
                lines += _fitted(line, width)
        else:
            lines += _wrap(" ".join(paragraph.split()), width)
    return lines


def _fitted(line: str, width: int) -> list[str]:
    """An indented line. If it is too long, its second column goes above it (the comment of a
    command) or below it (the meaning of a term). A command itself is never wrapped."""
    term, gap, rest = line.strip().partition("  ")
    if len(line) <= width or not gap:
        return [line]
    if rest.lstrip().startswith("#"):
        comment = rest.lstrip().lstrip("# ")
        return [*_wrap(comment, width, first="  # ", hang="  # "), f"  {term}"]
    return [f"  {term}", *_wrap(rest.strip(), width, first="      ", hang="      ")]


def _definitions(records: list[tuple[str, str]], width: int) -> list[str]:
    longest = max(len(term) for term, _ in records)
    if width < TWO_COLUMNS_FROM or longest > width // 2:
        return [
            line
            for term, meaning in records
            for line in (f"  {term}", *_wrap(meaning, width, first="      ", hang="      "))
        ]
    blank = " " * (longest + 4)
    lines: list[str] = []
    for term, meaning in records:
        body = _wrap(meaning, width, first=blank, hang=blank) or [""]
        lines += [f"  {term:<{longest}}  {body[0][len(blank) :]}", *body[1:]]
    return lines


def _wrap(text: str, width: int, first: str = "", hang: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=hang,
        break_on_hyphens=False,
        break_long_words=False,
    )
