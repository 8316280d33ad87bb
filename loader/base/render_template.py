"""A program that renders a chat template in its own process, with bounded memory.

Standard input is JSON: ``template``, ``variables``, ``bytes``. The program prints the length of the
text. A template can use the same as in transformers (``utils/chat_template_utils.py``): jinja2's
immutable sandbox, loop controls, the ``generation`` block, ``tojson``, ``raise_exception`` and
``strftime_now``. The program does not import the package, so that it starts in 0.1 seconds.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class GenerationBlock(Extension):
    """``{% generation %}``: transformers marks the assistant's text; here it is only rendered."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's interface

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _json(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **how)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


class ObjectionError(TemplateError):
    """Raised by a template's ``raise_exception``: it rejects these messages."""


def _refuse(message: str) -> str:
    raise ObjectionError(message)


def render(template: str, variables: dict[str, Any]) -> str:
    """The rendered text. Raises whatever jinja2 raises for the template."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _json
    names: dict[str, Any] = environment.globals  # pyright: ignore[reportAssignmentType]
    names.update(raise_exception=_refuse, strftime_now=_now)
    return environment.from_string(template).render(**variables)


def _limit(size: int) -> None:
    """Limit the process to ``size`` more bytes than now, where the system can do so."""
    try:
        import resource
        from pathlib import Path

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + size
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, OSError, ValueError):
        pass  # the time is still bounded


def main() -> int:
    trial = json.load(sys.stdin)
    _limit(trial["bytes"])
    try:
        print(len(render(trial["template"], trial["variables"])))
    except ObjectionError:
        print(0)  # transformers will raise and report it too
    except MemoryError:
        print("it needs too much memory", file=sys.stderr)
        return 1
    except Exception as error:
        print(f"{type(error).__name__}: {error}"[:300], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
