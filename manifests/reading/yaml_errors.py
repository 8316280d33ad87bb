"""PyYAML's errors in plain words, without the file's content."""

from __future__ import annotations

from typing import Any

import yaml

from ..findings import language as codes
from ..findings.finding import Finding, Where

_TAB = "Tab character: YAML is indented with spaces"
_ANCHOR = "'&' or '*' starts an anchor or alias; put text that starts with them in quotes"

# Part of the error of PyYAML or libyaml (they use different words): what it means.
_MEANINGS: tuple[tuple[str, str], ...] = (
    ("\\t", _TAB),
    ("cannot start any token", "A value cannot start with @, ` or %; put the text in quotes"),
    (
        "mapping values are not allowed",
        "Unexpected ':': put text that contains ': ' in quotes, or check the indentation",
    ),
    (
        "block sequence entries are not allowed",
        "Unexpected '-': write each item of the list on its own line",
    ),
    ("block mappings are not allowed", "Unexpected key: check the indentation"),
    ("mapping keys are not allowed", "Unexpected '?': put the text in quotes"),
    ("could not find expected ':'", "Missing ':' after a key"),
    ("unexpected end of stream", "Missing closing quote"),
    ("document separator", "Missing closing quote before '---' or '...'"),
    ("escape code", "Invalid escape in double quotes: there is no such character"),
    ("escape", "Invalid escape after a backslash in double quotes"),
    ("expected key", "This line is not aligned with the keys above it"),
    ("<block end>", "This line is not aligned with the lines above it"),
    ("'-' indicator", "This line is not aligned with the list above it"),
    ("',' or ']'", "Missing ']' or ',' in a list"),
    ("',' or '}'", "Missing '}' or ',' in a mapping"),
    ("indentation", "Invalid indentation of a text block ('|' or '>')"),
    ("node content", "A value is missing, or starts with a character that needs quotes"),
    ("tag", "Tags are not allowed; put text that starts with '!' in quotes"),
    ("anchor", _ANCHOR),
    ("alias", _ANCHOR),
    ("alphabetic", _ANCHOR),
    ("document start", "Unexpected start of a second document: check the indentation and quotes"),
    ("directive", "'%' starts a directive; put text that starts with it in quotes"),
    ("YAML document", "Unsupported '%YAML' directive; remove it"),
)


# Only noticed where the file ends or the next thing starts: the place to look is the opening.
_OPENED = (
    "unexpected end of stream",
    "document separator",
    "',' or ']'",
    "',' or '}'",
    "find expected ':'",
)


def explain_problem(error: yaml.YAMLError, text: str, file: str | None) -> Finding:
    """The finding for an exception of PyYAML, at the place where a person should look."""
    problem = str(getattr(error, "problem", None) or "")
    context = str(getattr(error, "context", None) or "")
    mark: Any = getattr(error, "problem_mark", None)
    opened: Any = getattr(error, "context_mark", None)
    message = next(
        (said for part, said in _MEANINGS if part in problem),
        next((said for part, said in _MEANINGS if part in context), "Invalid YAML"),
    )
    if mark is not None and text[mark.index : mark.index + 1] == "\t":
        message = _TAB
    elif opened is not None and any(part in problem for part in _OPENED):
        mark = opened
    elif opened is not None and mark is not None and opened.line != mark.line:
        message += f" (in what starts in line {opened.line + 1})"
    where = Where(file) if mark is None else Where(file, (), mark.line + 1, mark.column + 1)
    return codes.YAML_SYNTAX.finding(message, where)
