"""`--format`: how checks of manifests are printed for people and for other programs."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import UsageError


class Format(str, Enum):
    """What --format takes."""

    text = "text"
    json = "json"
    sarif = "sarif"
    github = "github"
    junit = "junit"


FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="text; json; sarif (code scanning); github (annotations of a pull request); "
        "junit (test reports).",
        show_default=False,
    ),
]


def format_of(form: Format | None, as_json: bool) -> Format:
    """The format that --format and --json choose. Raises :class:`UsageError` if they differ."""
    if as_json and form not in (None, Format.json):
        raise UsageError(
            codes.OPTIONS_CONFLICT.finding(
                "--json and --format contradict each other",
                found=f"--json --format {form.value}",
                hint="Pass one of them: --json is --format json.",
            )
        )
    return Format.json if as_json else form or Format.text
