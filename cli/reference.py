"""Reference pages in ``docs/``, made from the code: every command's help, every code.

``python -m adapterdock.cli.reference`` writes them; ``--check`` compares.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from ..manifests.findings.catalogue import Code, all_codes
from ..manifests.findings.finding import REPORT_SCHEMA
from .cache import SCHEMA as CACHE_SCHEMA
from .command import ERROR_SCHEMA, Command, Group
from .explain import SCHEMA as CODES_SCHEMA
from .fingerprint import SCHEMA as FINGERPRINT_SCHEMA
from .help import help_text
from .lock import SCHEMA as LOCK_SCHEMA
from .main import app
from .show import RESOLVED_SCHEMA
from .show import SCHEMA as SHOW_SCHEMA

DOCS = Path(__file__).resolve().parents[1] / "docs"
WIDTH = 88
AREAS = {
    "AD1": "The manifest's language",
    "AD2": "Sources and artefacts",
    "AD3": "Fit",
    "AD4": "Fingerprints",
    "AD5": "The lock",
    "AD6": "The cache",
    "AD7": "The loader",
    "AD8": "Rules and policy",
    "AD9": "Usage",
}
SCHEMAS = (
    (
        "validate, lock --check",
        REPORT_SCHEMA,
        "`subject`, `ok`, `exit_status`, `accepted`, `findings`, `adapters`",
    ),
    ("lock", LOCK_SCHEMA, "`lock`, `wrote`, `changes`, `accepted`, `findings`"),
    (
        "show",
        SHOW_SCHEMA,
        "`manifest`, `base`, `adapters`, `compositions`, `active`, `exit_status`, `findings`",
    ),
    ("show --resolved", RESOLVED_SCHEMA, "`manifest`, `values`"),
    ("fingerprint", FINGERPRINT_SCHEMA, "`source`, `fingerprint`"),
    ("explain", CODES_SCHEMA, "`codes`"),
    ("cache ls", CACHE_SCHEMA, "`cache`, `size`, `files`"),
    ("any, on an error", ERROR_SCHEMA, "`exit_status`, `findings`"),
)
_MADE = "<!-- Made by `python -m adapterdock.cli.reference`; do not edit. -->\n"


def pages() -> dict[str, str]:
    """Each page's path in ``docs/``, and its text."""
    return {"reference/cli.md": cli_page(), "codes.md": codes_page()}


def cli_page() -> str:
    """Every command with its help, as `--help` prints it."""
    text = [_MADE, "# The command line\n"]
    for path, command, context in _commands(typer.main.get_command(app), "adapterdock", None):
        text.append(f"## {path}\n")
        text.append(f"```text\n{help_text(command, context, WIDTH)}\n```\n")
    text.append("## What --json prints\n")
    text.append(
        "One JSON object on standard output. Its first key, `schema`, names its form and the "
        "version of that form. A command that ends in an error prints the object of the last line. "
        "An unknown option, or a value that an option cannot take, gives no object (status 2).\n"
    )
    text += ["| command | schema | keys |", "|---|---|---|"]
    text += [f"| `{command}` | `{schema}` | {keys} |" for command, schema, keys in SCHEMAS]
    return "\n".join(text) + "\n"


def codes_page() -> str:
    """Every code, as `adapterdock explain` tells it."""
    text = [
        _MADE,
        "# Finding codes\n",
        "A code is stable for ever: its number and name are never reused. An *error* refuses; "
        "what is *unchecked* is not a pass until a person accepts it with `--accept CODE`; a "
        "*warning* passes. `adapterdock explain CODE` prints the same.\n",
    ]
    for prefix, title in AREAS.items():
        codes = [code for code in all_codes().values() if code.id.startswith(prefix)]
        text.append(f"## {prefix}xx: {title}\n")
        text += [_entry(code) for code in codes]
    return "\n".join(text)


def _entry(code: Code) -> str:
    return (
        f"### {code.id} {code.name}\n\n"
        f"*{code.severity.value}*: {_prose(code.summary)}\n\n"
        f"{_prose(code.explanation)}\n\n"
        f"Example:\n\n```text\n{code.example}\n```\n\n"
        f"What to do: {_prose(code.fix)}\n"
    )


def _prose(text: str) -> str:
    """``text`` for Markdown, where only backticks shall mean something."""
    parts = re.split(r"(`[^`]+`)", text)
    parts[::2] = [re.sub(r"([<*_`\[\]])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def _commands(
    command: Any, path: str, parent: Any
) -> Iterator[tuple[str, Command | Group, typer.Context]]:
    context = command.make_context(path.split()[-1], [], parent=parent, resilient_parsing=True)
    yield path, command, context
    if isinstance(command, Group):
        for name in command.list_commands(context):
            yield from _commands(command.get_command(context, name), f"{path} {name}", context)


def main(arguments: list[str] | None = None) -> int:
    """Write the pages, or with ``--check`` tell whether they are current (status 1: not)."""
    parser = argparse.ArgumentParser(prog="python -m adapterdock.cli.reference")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    check: bool = parser.parse_args(arguments).check
    stale = 0
    for name, text in pages().items():
        path = DOCS / name
        current = path.read_text(encoding="utf-8") if path.is_file() else None
        if current == text:
            continue
        stale += 1
        if check:
            print(
                f"{path} is not current; run python -m adapterdock.cli.reference", file=sys.stderr
            )
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            print(f"wrote {path}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
