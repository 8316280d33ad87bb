"""The chat of `adapterdock run` on a terminal: a line in, an answer out, with what was said."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..manifests.findings.errors import AdapterdockError
from .command import Terminated
from .console import err
from .mix import Mix, parse_mix, require_names
from .render import print_findings

if TYPE_CHECKING:
    from ..manifests.manifest import ManifestFile

Message = dict[str, str]
"""``role`` (user or assistant) and ``content``, as chat templates take them."""

Ask = Callable[[list[Message], Mix | None, Callable[[str], None]], None]
"""Answers the messages with a selection, and writes the answer piece by piece."""

HELP = """/adapter NAME   answer with another adapter, or with a sum such as a=0.5,b=1
/adapter        say which adapters there are
/reset          forget what was said
/exit           end (also Ctrl-D); Ctrl-C stops an answer"""


@dataclass
class Chat:
    """One conversation. ``ask`` gets all messages so far; ``name`` is the selection as typed."""

    file: ManifestFile
    ask: Ask
    write: Callable[[str], None]
    name: str | None = None
    messages: list[Message] = field(default_factory=list)

    def run(self, read: Callable[[], str]) -> None:
        """Answer line after line until ``/exit``, or ``read`` raises :class:`EOFError`."""
        while True:
            try:
                line = read().strip()
                line.encode("utf-8")  # Python passes bytes that are not text on, as surrogates
                if line == "/exit":
                    return
                self._take(line)
            except EOFError:
                self.write("\n")
                return
            except KeyboardInterrupt as stop:  # at the prompt, or where an answer is complete
                if isinstance(stop, Terminated):
                    raise
                self.write("\n")
                err.line("/exit or Ctrl-D ends the chat")
            except UnicodeError:
                err.line("This line is not text in the terminal's encoding")
            except AdapterdockError as error:
                print_findings(error.findings, err)

    def _take(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        if not line:
            return
        if command == "/adapter":
            self._switch(rest.strip())
        elif command == "/reset":
            self.messages.clear()
        elif command == "/help":
            err.line(HELP, hang=0)
        elif command.startswith("/") and command[1:].isalpha():
            err.line(f"Unknown command {command}")
            err.line(HELP, hang=0)
        else:
            self._answer(line)

    def _switch(self, name: str) -> None:
        manifest = self.file.manifest
        if name:
            require_names([parse_mix(name)], self.file)
            self.name = name
        else:
            err.line(", ".join([*manifest.adapters, *manifest.compositions, "__base__"]))
        err.line(f"Answering with {self.name or 'what the manifest has as active'}")

    def _answer(self, line: str) -> None:
        said: list[str] = []

        def write(piece: str) -> None:
            said.append(piece)
            self.write(piece)

        messages = [*self.messages, {"role": "user", "content": line}]
        selection = None if self.name is None else parse_mix(self.name)
        try:
            self.ask(messages, selection, write)
        except KeyboardInterrupt as stop:
            if isinstance(stop, Terminated):
                raise
        finally:
            with contextlib.suppress(OSError):
                self.write("\n")  # also after Ctrl-C
        answer = "".join(said).strip()
        self.messages = [*messages, {"role": "assistant", "content": answer}]
