"""Run as a program: a chat template on trial, in a process of its own with bounded memory.

Standard input holds JSON: ``template``, ``variables``, ``bytes``. Prints how long the text is.
What a template may use is what transformers gives it (``utils/chat_template_utils.py``): jinja2's
immutable sandbox, loop controls, the ``generation`` block, ``tojson``, ``raise_exception`` and
``strftime_now``. Imports nothing of the package, so that it starts in a tenth of a second.
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
    """``{% generation %}``: transformers marks what an assistant wrote; here it is only written."""

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
    """What a template says through ``raise_exception``: it objects to these messages."""


def _refuse(message: str) -> str:
    raise ObjectionError(message)


def render(template: str, variables: dict[str, Any]) -> str:
    """The text that the template writes. Raises what the template makes jinja2 raise."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _json
    given: dict[str, Any] = environment.globals  # pyright: ignore[reportAssignmentType]
    given.update(raise_exception=_refuse, strftime_now=_now)
    return environment.from_string(template).render(**variables)


def _limit(size: int) -> None:
    """At most ``size`` bytes more than now, where the system can say so."""
    try:
        import resource
        from pathlib import Path

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + size
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, OSError, ValueError):
        pass  # the time is still bounded


def main() -> int:
    given = json.load(sys.stdin)
    _limit(given["bytes"])
    try:
        print(len(render(given["template"], given["variables"])))
    except ObjectionError:
        print(0)  # transformers will meet it too, and say it
    except MemoryError:
        print("it takes too much memory", file=sys.stderr)
        return 1
    except Exception as error:
        print(f"{type(error).__name__}: {error}"[:300], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
