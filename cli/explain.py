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
    """Codes and what they are about, for the shell."""
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
            help="A code such as AD301, or its name. Without it: a list of all.",
            autocompletion=complete,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what a finding's code means, and what to do about it.

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
        known = {word.lower(): word for c in all_codes().values() for word in (c.id, c.name)}
        near = did_you_mean(text.strip().lower(), known)
        raise UsageError(
            codes.UNKNOWN_CODE.finding(
                f"no finding has the code {text!r}",
                found=text,
                hint=near and f"{near.replace('ad', 'AD')} {codes.UNKNOWN_CODE.fix}"
                if near and near.startswith("Did you mean 'ad")
                else near,
            )
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
