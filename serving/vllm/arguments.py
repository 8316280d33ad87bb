"""What a vLLM server was started with, as far as it can be read before vLLM reads it.

vLLM runs general plugins before it parses its arguments, and gives them none. What cannot be read
here (``None``) is checked once the engine runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

from ...manifests.reading.bounded_file import read_at_most

_FILES = frozenset({"api_server.py", "entry.py"})
_SERVE = "serve"
_VALUES = (
    *("model", "revision", "max-lora-rank", "load-format", "config"),
    *("api-server-count", "served-model-name"),
)
_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True)
class Arguments:
    """The arguments of a server that the plugin depends on; ``None`` for what was not given."""

    is_server: bool = False
    model: str | None = None
    revision: str | None = None
    load_format: str | None = None
    enable_lora: bool | None = None
    api_servers: int | None = None


def read_arguments(argv: Sequence[str]) -> Arguments:
    """The arguments in ``argv``, a process's ``sys.argv``; those in a ``--config`` file count where
    the command line does not have them, as with vLLM. Never raises."""
    program, rest = (argv[0] if argv else ""), list(argv[1:])
    served = rest[:1] == [_SERVE]
    if not served and PurePath(program).name not in _FILES:
        return Arguments()
    given = _options(rest)
    if served and len(rest) > 1 and not rest[1].startswith("-"):
        given.setdefault("model", rest[1])
    options = {**_file(given.get("config")), **given}
    return Arguments(
        is_server=True,
        model=_text(options, "model", "model-tag"),
        revision=_text(options, "revision"),
        load_format=_text(options, "load-format"),
        enable_lora=_flag(options, "enable-lora"),
        api_servers=_number(options, "api-server-count"),
    )


def _options(words: Sequence[str]) -> dict[str, Any]:
    """``--name value``, ``--name=value`` and ``--flag``, by name with dashes."""
    found: dict[str, Any] = {}
    short = {"-asc": "api-server-count"}
    for index, word in enumerate(words):
        if not word.startswith("--") and word.split("=")[0] not in short:
            continue
        name, equals, value = word.partition("=")
        name = short.get(name, name.removeprefix("--").replace("_", "-"))
        after = words[index + 1] if index + 1 < len(words) else None
        if equals:
            found[name] = value
        elif name in _VALUES and after is not None and not after.startswith("--"):
            found[name] = after
        else:
            found[name.removeprefix("no-")] = not name.startswith("no-")
    return found


def _file(place: object) -> Mapping[str, Any]:
    if not isinstance(place, str):
        return {}
    try:
        # what a pipe gives, only vLLM may read
        data = yaml.safe_load(read_at_most(place, _CONFIG_BYTES, regular=True))
    except (OSError, ValueError, yaml.YAMLError):
        return {}  # vLLM says what is wrong with it
    if not isinstance(data, dict):
        return {}
    return {str(name).replace("_", "-"): value for name, value in data.items()}


def _text(options: Mapping[str, Any], *names: str) -> str | None:
    values = (options.get(name) for name in names)
    return next((value for value in values if isinstance(value, str) and value), None)


def _flag(options: Mapping[str, Any], name: str) -> bool | None:
    value = options.get(name)
    return value if isinstance(value, bool) else None


def _number(options: Mapping[str, Any], name: str) -> int | None:
    try:
        return int(options[name])
    except (KeyError, TypeError, ValueError):
        return None
