"""`adapterdock explain`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..manifests.findings import usage as codes
from ..manifests.findings.catalogue import Code, all_codes, find_code
from ..manifests.findings.errors import UsageError
from ..manifests.language.names import did_you_mean
from .console import out, say
from .options import JsonOption
from .render import print_table

SCHEMA = "adapterdock.codes/1"


def complete(incomplete: str) -> list[tuple[str, str]]:
    """Codes and their summaries, for the shell."""
    wanted = incomplete.lower()
    return [
        (word, code.summary)
        for code in all_codes().values()
        for word in (code.id, code.name)
        if word.lower().startswith(wanted)
    ]


def explain(
    code: Annotated[
        str | None,
        typer.Argument(
            metavar="CODE",
            help="A code such as AD301, or its name (default: list all codes).",
            autocompletion=complete,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Explain the code of a finding, and how to fix the problem.

    Examples:

      adapterdock explain AD301
      adapterdock explain module-not-in-base
      adapterdock explain | grep unchecked
    """
    chosen = list(all_codes().values()) if code is None else [_find(code)]
    if as_json:
        out.as_json(SCHEMA, {"codes": [_as_data(c) for c in chosen]})
    elif code is None:
        rows = [(c.id, c.severity.value, c.name, c.summary) for c in chosen]
        print_table(("code", "severity", "name", "summary"), rows, out)
    else:
        _print(chosen[0])


def _find(text: str) -> Code:
    found = find_code(text)
    if found is None:
        ids, names = zip(*((code.id, code.name) for code in all_codes().values()), strict=True)
        wanted = text.strip()
        hint = did_you_mean(wanted.lower(), names)
        if near := did_you_mean(wanted.upper(), ids):  # the nearest number is often another one
            hint = f"{near} {codes.UNKNOWN_CODE.fix}"
        raise UsageError(
            codes.UNKNOWN_CODE.finding(f"Unknown code {text!r}", found=text, hint=hint)
        )
    return found


def _print(code: Code) -> None:
    say((f"{code.id} {code.name}", "bold"), f" ({code.severity.value})")
    say(code.summary, hang=0)
    if code.was:
        say(f"Earlier releases called it {' '.join(code.was)}.", hang=0)
    say()
    say(code.explained.explanation, hang=0)
    for heading, body in (("Example:", code.explained.example), ("What to do:", code.fix)):
        say()
        say((heading, "bold"))
        for line in body.splitlines():
            say(line, indent=2, hang=0)


def _as_data(code: Code) -> dict[str, Any]:
    return {
        "code": code.id,
        "name": code.name,
        "was": list(code.was),
        "severity": code.severity.value,
        "summary": code.summary,
        "explanation": code.explained.explanation,
        "example": code.explained.example,
        "fix": code.fix,
    }
