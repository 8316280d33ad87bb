"""What every command has in common: an error becomes findings and an exit status, never a
traceback."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import AdapterdockError, OfflineError, UsageError
from ..manifests.findings.finding import Finding, Report, Severity
from .console import err, out
from .help import help_text, help_width
from .hints import completed, completed_report, hints_name
from .verbosity import verbosity_options

EXIT_WRONG, EXIT_USAGE, EXIT_UNCHECKED = 1, 2, 3
EXIT_BUG = 70
"""``EX_SOFTWARE`` of sysexits.h: a bug of adapterdock."""
EXIT_INTERRUPTED, EXIT_PIPE, EXIT_TERMINATED = 130, 141, 143
"""What a shell reports for a program that SIGINT, SIGPIPE or SIGTERM ended."""

ERROR_SCHEMA = "adapterdock.error/1"
DEBUG_VARIABLE = "ADAPTERDOCK_DEBUG"


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a container's runtime sends it; handled like Ctrl-C."""


def terminate(*_: object) -> None:
    """A signal handler that raises :class:`Terminated`."""
    raise Terminated


class Command(TyperCommand):
    """One command."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.extend(verbosity_options())

    def invoke(self, ctx: Any) -> Any:
        as_json = bool(ctx.params.get("as_json")) or ctx.params.get("form") == "json"
        with hints_name(ctx.params):
            status = exit_status(lambda: super(Command, self).invoke(ctx), as_json=as_json)
        raise typer.Exit(status)

    def get_help(self, ctx: Any) -> str:
        return help_text(self, ctx, help_width())


class Group(TyperGroup):
    """A command with subcommands."""

    def get_help(self, ctx: Any) -> str:
        return help_text(self, ctx, help_width())


def exit_status(act: Callable[[], object], *, as_json: bool) -> int:
    """Run ``act`` and report on stderr what went wrong (with ``as_json``, on stdout as data).

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
        return _report(error, error.findings, status_of(error), as_json)
    except KeyboardInterrupt as stop:
        status = EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED
        try:
            err.line("Stopped; nothing was left half-done")
        except OSError:
            hang_up()
        return status
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            return hang_up()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO):
            full = codes.UNWRITABLE.finding("Cannot write to the output", found=error.strerror)
            return _report(error, (full,), EXIT_USAGE, False)
        return _report(error, (_bug(error),), EXIT_BUG, as_json)


def exit_with(report: Report, as_json: bool) -> NoReturn:
    """Print the report and end the command with its status."""
    from .render import print_report

    report = completed_report(report)
    if as_json:
        data = report.as_dict()
        out.as_json(data.pop("schema"), data)
    else:
        print_report(report, out)
    raise typer.Exit(report.exit_status)


def status_of(error: AdapterdockError) -> int:
    """2 for wrong usage, 3 if the only problem is that a check could not run, else 1."""
    if isinstance(error, UsageError):
        return EXIT_USAGE
    unchecked = all(f.severity is not Severity.ERROR for f in error.findings)
    return EXIT_UNCHECKED if unchecked or isinstance(error, OfflineError) else EXIT_WRONG


def hang_up() -> int:
    """Write nothing more, not even at exit, since nobody reads; the status that SIGPIPE gives."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    return EXIT_PIPE


def _report(error: Exception, findings: tuple[Finding, ...], status: int, as_json: bool) -> int:
    """Print the findings; if even that fails, the status is all that is left."""
    from .render import print_findings

    findings = completed(findings)
    try:
        if as_json:
            data = {"exit_status": status, "findings": [f.as_dict() for f in findings]}
            out.as_json(ERROR_SCHEMA, data)
            if out.stream is not None:
                out.stream.flush()
        else:
            print_findings(findings, err)
        if debugging():
            traceback.print_exception(error, file=err.stream)
    except OSError:
        hang_up()
    return status


def _bug(error: Exception) -> Finding:
    from ..manifests.reading.secrets import redacted

    reason = f"{type(error).__name__}: {error}"
    return redacted(codes.BUG.finding("Internal error in adapterdock", found=reason))


def debugging() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")
