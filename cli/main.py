"""The command `adapterdock`: its commands, and the one place where errors become exit statuses."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .. import __version__
from ..manifests.errors import AdapterdockError, OfflineError, UsageError
from ..manifests.findings import Severity
from . import cache, explain, fingerprint, init, lock, pull, run, show, validate
from .console import err, say
from .render import print_findings

EXIT_MISFIT, EXIT_USAGE, EXIT_UNCHECKED, EXIT_INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    name="adapterdock",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=True,
    help="Model adapters from a manifest: checked before download, pinned by a lock, attached "
    "without touching the base.\n\n"
    "The usual path:  [bold]init[/] a manifest, [bold]validate[/] it, [bold]lock[/] it, commit "
    "both files, [bold]run[/] it (or load it from Python).\n\n"
    "Exit status: 0 fits or done, 1 something is wrong, 2 wrong usage, 3 something could not be "
    "checked.",
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"adapterdock {__version__}")
        raise typer.Exit


@app.callback()
def _root(  # pyright: ignore[reportUnusedFunction]
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the command itself."""


app.command("init")(init.init)
app.command("validate")(validate.validate)
app.command("explain")(explain.explain)
app.command("fingerprint")(fingerprint.fingerprint)
app.command("lock")(lock.lock)
app.command("pull")(pull.pull)
app.command("show")(show.show)
app.command("run")(run.run)
app.add_typer(cache.app, name="cache")


def main() -> None:
    """Run the command line. What we raise is printed as findings, never as a traceback."""
    try:
        app()
    except AdapterdockError as error:
        print_findings(error.findings, err())
        sys.exit(status_of(error))
    except KeyboardInterrupt:
        err().print("stopped; nothing was left half-done", markup=False)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(EXIT_MISFIT)


def status_of(error: AdapterdockError) -> int:
    """2 for wrong usage, 3 where all that is wrong is that something could not be checked."""
    if isinstance(error, UsageError):
        return EXIT_USAGE
    unchecked = all(f.severity is not Severity.ERROR for f in error.findings)
    return EXIT_UNCHECKED if unchecked or isinstance(error, OfflineError) else EXIT_MISFIT
