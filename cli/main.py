"""The command `adapterdock`: its subcommands and its own options."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from typing import Annotated, Any

import typer

from .. import __version__
from . import (
    add,
    bundle,
    cache,
    configured,
    diff,
    explain,
    export,
    fingerprint,
    fleet,
    fmt,
    history,
    init,
    inspect,
    key,
    list_adapters,
    lock,
    marks,
    matrix,
    merge,
    migrate,
    mirror,
    outdated,
    plan,
    promote,
    publish,
    pull,
    push,
    registry,
    remove,
    run,
    sbom,
    schema,
    search,
    serve,
    show,
    signing,
    site,
    validate,
    versions,
)
from .command import (
    DEBUG_VARIABLE,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    Command,
    Group,
    Terminated,
    debugging,
    hang_up,
    terminate,
)
from .console import say
from .verbosity import set_verbosity

HELP = """Model adapters from a manifest: checked before download, pinned by a lock, attached
without touching the base.

The usual steps:

  adapterdock init          # write adapters.yaml from the adapters found here
  adapterdock validate      # does every adapter fit the base?
  adapterdock lock          # pin every byte in adapters.lock; commit both files
  adapterdock pull          # download and verify what is locked
  adapterdock run -p 'Hi'   # load base and adapters, and answer a prompt

`adapterdock COMMAND --help` shows details and examples. `adapterdock explain CODE` explains a
finding."""

EPILOG = """Exit status:

  0    success: everything fits, or the work is done
  1    errors: the findings say what is wrong, where, and what to do
  2    wrong usage
  3    some checks could not run; this is not a pass
  70   a bug in adapterdock (ADAPTERDOCK_DEBUG=1 shows the traceback)
  130  stopped with Ctrl-C; nothing is left half-done
  143  stopped by SIGTERM; nothing is left half-done

Environment:

  ADAPTERDOCK_CACHE          downloaded files (default: ~/.cache/adapterdock)
  ADAPTERDOCK_CONFIG         your registries (default: ~/.config/adapterdock/config.toml)
  ADAPTERDOCK_POLICY         a policy file that applies to every manifest
  ADAPTERDOCK_OFFLINE        1: no network, as --offline (also HF_HUB_OFFLINE)
  ADAPTERDOCK_FLEET_KEY      key that `fleet status` sends to replicas
  ADAPTERDOCK_DEBUG          1: show tracebacks of errors, as --debug does
  ADAPTERDOCK_MIN_RATE       least bytes per second of a transfer (1024; 0: any)
  ADAPTERDOCK_STALL_SECONDS  seconds over which that rate is measured (30)
  ADAPTERDOCK_FILE_SECONDS   most seconds for one file (default: by its size)
  NO_COLOR                   any value: no colours
  FORCE_COLOR                any value: colours in pipes too (NO_COLOR wins)
  HF_*, AWS_*                as in huggingface_hub and the AWS tools
"""

app = typer.Typer(
    name="adapterdock",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=HELP,
    epilog=EPILOG,
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"adapterdock {__version__}")
        raise typer.Exit


@app.callback()
def _root(  # pyright: ignore[reportUnusedFunction]
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    quiet: Annotated[
        int,
        typer.Option(
            "--quiet",
            "-q",
            count=True,
            show_default=False,
            help="Print only results and errors: no progress, notes and warnings. -q and -v count "
            "after the command too.",
        ),
    ] = 0,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            show_default=False,
            help="Also say what is fetched (-vv: all details).",
        ),
    ] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    ctx.find_root().meta.update(quiet=quiet, verbose=verbose)
    set_verbosity(quiet, verbose)
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


for name, command in (
    ("init", init.init),
    ("add", add.add),
    ("remove", remove.remove),
    ("list", list_adapters.list_adapters),
    ("validate", validate.validate),
    ("fmt", fmt.fmt),
    ("matrix", matrix.matrix),
    ("explain", explain.explain),
    ("schema", schema.schema),
    ("fingerprint", fingerprint.fingerprint),
    ("plan", plan.plan),
    ("lock", lock.lock),
    ("pull", pull.pull),
    ("show", show.show),
    ("run", run.run),
    ("serve", serve.serve),
    ("merge", merge.merge),
    ("export", export.export),
    ("sbom", sbom.sbom),
    ("publish", publish.publish),
    ("sign", signing.sign),
    ("search", search.search),
    ("site", site.site),
    ("versions", versions.versions),
    ("inspect", inspect.inspect),
    ("diff", diff.diff),
    ("promote", promote.promote),
    ("demote", promote.demote),
    ("history", history.history),
    ("yank", marks.yank),
    ("unyank", marks.unyank),
    ("deprecate", marks.deprecate),
    ("push", push.push),
    ("bundle", bundle.bundle),
    ("unpack", bundle.unpack),
    ("mirror", mirror.mirror),
    ("migrate", migrate.migrate),
    ("registries", configured.registries),
    ("outdated", outdated.outdated),
):
    app.command(name, cls=Command)(command)
app.add_typer(registry.app, name="registry")
app.add_typer(cache.app, name="cache")
app.add_typer(key.app, name="key")
app.add_typer(fleet.app, name="fleet")


def main() -> Any:
    """Run the command line; exits with its status."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # the terminal's encoding may lack a character of a name
            reconfigure(errors="backslashreplace")
    if not sys.warnoptions and not debugging():
        warnings.simplefilter("ignore")  # other libraries' warnings are for their developers
    signal.signal(signal.SIGTERM, terminate)
    try:
        app(prog_name="adapterdock")
    except Terminated:
        sys.exit(EXIT_TERMINATED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    finally:
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError:
            hang_up()


if __name__ == "__main__":
    main()
