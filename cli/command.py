"""What every command has in common: whatever goes wrong becomes findings and an exit status, never
a traceback."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import AdapterdockError, OfflineError, UsageError
from ..manifests.findings.finding import Finding, Severity
from .console import err, out
from .help import help_text, help_width

EXIT_WRONG, EXIT_USAGE, EXIT_UNCHECKED = 1, 2, 3
EXIT_BUG = 70
"""``EX_SOFTWARE`` of sysexits.h: the fault is ours."""
EXIT_INTERRUPTED, EXIT_PIPE, EXIT_TERMINATED = 130, 141, 143
"""What a shell reports of a program that SIGINT, SIGPIPE or SIGTERM ended."""

ERROR_SCHEMA = "adapterdock.error/1"
DEBUG_VARIABLE = "ADAPTERDOCK_DEBUG"


class Terminated(KeyboardInterrupt):
    """SIGTERM came, as from a container's runtime: what is under way is left as on Ctrl-C."""


def terminate(*_: object) -> None:
    """A signal handler that raises :class:`Terminated`."""
    raise Terminated


class Command(TyperCommand):
    """One command."""

    def invoke(self, ctx: Any) -> Any:
        as_json = bool(ctx.params.get("as_json"))
        raise typer.Exit(exit_status(lambda: super(Command, self).invoke(ctx), as_json=as_json))

    def get_help(self, ctx: Any) -> str:
        return help_text(self, ctx, help_width())


class Group(TyperGroup):
    """A command that has commands."""

    def get_help(self, ctx: Any) -> str:
        return help_text(self, ctx, help_width())


def exit_status(act: Callable[[], object], *, as_json: bool) -> int:
    """Run ``act`` and tell on stderr what went wrong (with ``as_json``, on stdout as data).

    ``act`` ends early with a status of its own by raising :class:`typer.Exit`.
    """
    try:
        try:
            act()
            status = 0
        except typer.Exit as leave:
            status = leave.exit_code
        if out.stream is not None:
            out.stream.flush()
        return status
    except AdapterdockError as error:
        return _attempt(partial(_refused, error, as_json), status_of(error))
    except Terminated:
        return _attempt(partial(_interrupted, EXIT_TERMINATED), EXIT_TERMINATED)
    except KeyboardInterrupt:
        return _attempt(partial(_interrupted, EXIT_INTERRUPTED), EXIT_INTERRUPTED)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            return hang_up()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO):
            said = codes.UNWRITABLE.finding("there is no room to write", found=error.strerror)
            return _attempt(partial(_refused, UsageError(said), False), EXIT_USAGE)
        return _attempt(partial(_bug, error, as_json), EXIT_BUG)


def status_of(error: AdapterdockError) -> int:
    """2 for wrong usage, 3 where all that is wrong is that something could not be checked."""
    if isinstance(error, UsageError):
        return EXIT_USAGE
    unchecked = all(f.severity is not Severity.ERROR for f in error.findings)
    return EXIT_UNCHECKED if unchecked or isinstance(error, OfflineError) else EXIT_WRONG


def hang_up() -> int:
    """Nobody reads any more: write nothing, not even at exit; the status that SIGPIPE gives."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    return EXIT_PIPE


def _attempt(tell: Callable[[], int], otherwise: int) -> int:
    """Tell about a failure; where even that fails, only the status is left."""
    try:
        return tell()
    except OSError:
        hang_up()
        return otherwise


def _refused(error: AdapterdockError, as_json: bool) -> int:
    from .render import print_findings

    status = status_of(error)
    if as_json:
        _findings_as_json(error.findings, status)
    else:
        print_findings(error.findings, err)
    _trace(error)
    return status


def _interrupted(status: int) -> int:
    err.line("stopped; nothing was left half-done")
    return status


def _bug(error: Exception, as_json: bool) -> int:
    from ..manifests.reading.secrets import redacted

    said = f"{type(error).__name__}: {error}"
    finding = redacted(
        codes.BUG.finding("adapterdock failed in a way that it should not", found=said)
    )
    if as_json:
        _findings_as_json((finding,), EXIT_BUG)
    else:
        from .render import print_findings

        print_findings((finding,), err)
    _trace(error)
    return EXIT_BUG


def debugging() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def _trace(error: Exception) -> None:
    if debugging():
        traceback.print_exception(error, file=err.stream)


def _findings_as_json(findings: tuple[Finding, ...], status: int) -> None:
    data = {"exit_status": status, "findings": [f.as_dict() for f in findings]}
    out.as_json(ERROR_SCHEMA, data)
    if out.stream is not None:
        out.stream.flush()
