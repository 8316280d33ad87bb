"""What PyYAML's complaints mean, said plainly and without repeating the file's content; and which
content may be repeated at all."""

from __future__ import annotations

from typing import Any

import yaml

from ..findings import language as codes
from ..findings.finding import Finding, Where

_TAB = "A tab stands here; YAML is indented with spaces."

# Part of PyYAML's or libyaml's complaint (whose words differ): what it means.
_MEANINGS: tuple[tuple[str, str], ...] = (
    ("\\t", _TAB),
    (
        "cannot start any token",
        "No value can start with this character (@, ` or %); quote the text.",
    ),
    (
        "mapping values are not allowed",
        "A ':' stands where no key can be: quote text that holds ': ', or check the indentation.",
    ),
    (
        "block sequence entries are not allowed",
        "A '-' stands where no list can start: put the list on lines of its own.",
    ),
    ("block mappings are not allowed", "A key stands where none can be: check the indentation."),
    ("mapping keys are not allowed", "A '?' stands where no key can be: quote the text."),
    ("could not find expected ':'", "A key has no ':' after it."),
    ("unexpected end of stream", "A quote that was opened is never closed."),
    ("document separator", "A quote that was opened is not closed before '---' or '...'."),
    ("unknown escape", "A backslash in double quotes is followed by no escape that YAML knows."),
    ("escape sequence", "A backslash in double quotes is followed by no escape that YAML knows."),
    ("escape code", "An escape in double quotes stands for no character."),
    ("expected key", "This line does not line up with the keys above it."),
    ("<block end>", "This line does not line up with what is above it."),
    ("'-' indicator", "This line does not line up with the list above it."),
    ("',' or ']'", "A list that was opened with '[' is not closed, or a comma is missing."),
    ("',' or '}'", "A mapping that was opened with '{' is not closed, or a comma is missing."),
    ("indentation", "The indentation of a text block ('|' or '>') is not valid."),
    ("node content", "A value is missing or starts with a character that must be quoted."),
    ("undefined tag handle", "A tag stands here; quote text that starts with '!'."),
    ("tag", "A tag stands here; quote text that starts with '!'."),
    ("anchor", "'&' or '*' starts an anchor or alias here; quote text that starts with them."),
    ("alias", "'&' or '*' starts an anchor or alias here; quote text that starts with them."),
    ("alphabetic", "'&' or '*' starts an anchor or alias here; quote text that starts with them."),
    ("document start", "A new document would start here: check the indentation and quotes."),
    ("directive", "A '%' starts a directive here; quote text that starts with it."),
    ("YAML document", "The '%YAML' directive is not one that can be read; remove it."),
)


# Noticed only where the file ends or the next thing starts: what was opened is the place to look.
_OPENED = (
    "unexpected end of stream",
    "document separator",
    "',' or ']'",
    "',' or '}'",
    "find expected ':'",
)


def explain_problem(error: yaml.YAMLError, text: str, file: str | None) -> Finding:
    """The finding for an exception of PyYAML's, with the place that a person must look at."""
    problem = str(getattr(error, "problem", None) or "")
    context = str(getattr(error, "context", None) or "")
    mark: Any = getattr(error, "problem_mark", None)
    opened: Any = getattr(error, "context_mark", None)
    message = next(
        (said for part, said in _MEANINGS if part in problem),
        next((said for part, said in _MEANINGS if part in context), "This is not valid YAML."),
    )
    if mark is not None and text[mark.index : mark.index + 1] == "\t":
        message = _TAB
    elif opened is not None and any(part in problem for part in _OPENED):
        mark = opened
    elif opened is not None and mark is not None and opened.line != mark.line:
        message += f" (It belongs to what starts in line {opened.line + 1}.)"
    where = Where(file) if mark is None else Where(file, (), mark.line + 1, mark.column + 1)
    return codes.YAML_SYNTAX.finding(message, where)
