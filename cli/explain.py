"""`adapterdock explain`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ..manifests.findings import usage as codes
from ..manifests.findings.catalogue import Code, all_codes, find_code
from ..manifests.findings.errors import UsageError
from ..manifests.findings.search_codes import known_words, search_codes
from ..manifests.language.names import did_you_mean
from .console import err, out, say
from .options import JsonOption
from .render import counted, print_table

SCHEMA = "adapterdock.codes/1"
_ID = re.compile(r"AD[0-9OQIL]+", re.IGNORECASE)
"""A code, perhaps with letters that look like digits."""
_LETTERS_FOR_DIGITS = str.maketrans("OQIL", "0011")


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
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CODE|WORDS",
            help="A code such as AD301, its name, or words to search for (default: list all "
            "codes).",
            autocompletion=complete,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Explain the code of a finding, and how to fix the problem.

    Words list the codes that say something about them; the start of a code lists its neighbours.

    Examples:

      adapterdock explain AD301
      adapterdock explain module-not-in-base
      adapterdock explain rank
      adapterdock explain AD30
    """
    named = [find_code(word) for word in words or ()]
    if not words:
        chosen, listing = list(all_codes().values()), True
    elif all(named):
        chosen, listing = [code for code in named if code is not None], False
    else:
        chosen, listing = _search(words), True
    if as_json:
        out.as_json(SCHEMA, {"codes": [_as_data(c) for c in chosen]})
    elif listing:
        rows = [(c.id, c.severity.value, c.name, c.summary) for c in chosen]
        print_table(("code", "severity", "name", "summary"), rows, out)
        if words:
            about = " ".join(words)
            err.line(
                f"{counted(len(chosen), 'code')} for {about!r}; to read one: "
                f"adapterdock explain {chosen[0].id}"
            )
    else:
        for number, code in enumerate(chosen):
            if number:
                say()
            _print(code)


def _search(words: Sequence[str]) -> list[Code]:
    """The codes that say something about ``words``; the start of a code counts as a word."""
    text = " ".join(words)
    found = search_codes(words)
    if not found:
        raise UsageError(
            codes.UNKNOWN_CODE.finding(
                f"No code, and no text of a code, has {text!r}", found=text, hint=_hint(text)
            )
        )
    return found


def _hint(text: str) -> str | None:
    """What was meant, if that is clear. A number that is unknown is not like another one."""
    wanted = text.strip()
    if _ID.fullmatch(wanted):
        read = "AD" + wanted[2:].upper().translate(_LETTERS_FOR_DIGITS)
        near = f"Did you mean {read!r}?" if read in all_codes() else None
    else:
        known = {*known_words(), *(code.name for code in all_codes().values())}
        near = did_you_mean(wanted.lower(), known, 0.75)
    return near and f"{near} {codes.UNKNOWN_CODE.fix}"


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
