"""`adapterdock explain`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from ..manifests.codes import all_codes, find_code
from ..manifests.codes import usage as codes
from ..manifests.errors import UsageError
from ..manifests.names import did_you_mean
from .console import out, say
from .render import print_table


def explain(
    code: Annotated[
        str | None, typer.Argument(help="A code such as AD301, or its name. None: list them.")
    ] = None,
) -> None:
    """Tell what a code means, with an example and what to do about it."""
    if code is None:
        rows = [(c.id, c.name, c.severity.value, c.summary) for c in all_codes().values()]
        print_table(("code", "name", "severity", "summary"), rows, out())
        return
    found = find_code(code)
    if found is None:
        known = [*all_codes(), *(c.name for c in all_codes().values())]
        raise UsageError(
            codes.UNKNOWN_CODE.finding(
                f"no finding has the code {code!r}",
                found=code,
                hint=did_you_mean(code.upper() if code[:1].isalpha() else code, known),
            )
        )
    console = out()
    for heading, body in (
        (f"{found.id} {found.name} ({found.severity.value})", found.summary),
        ("", found.explanation),
        ("Example", found.example),
        ("What to do", found.fix),
    ):
        if heading:
            console.print(Text(heading, style="bold")) if console.is_terminal else say(heading)
        for line in body.splitlines():
            indent = "  " if heading in ("Example", "What to do") else ""
            console.print(Text(indent + line)) if console.is_terminal else say(indent + line)
        say()
