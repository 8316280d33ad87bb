"""`--quiet` and `--verbose`: how much a command says besides its results."""

import logging
from functools import cache
from typing import Annotated, Any

import typer

from .console import err

OURS = "adapterdock"


class _ToStderr(logging.Handler):
    """Log records as plain lines, above the progress bars of a terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        with err.heard():
            err.line((record.getMessage(), "dim"))


_handler = _ToStderr()
_level = 0


def set_verbosity(quiet: int, verbose: int) -> None:
    """Set how much is said in this run: -1 only errors, 0 as usual, 1 or 2 what is fetched too.

    Raises :class:`typer.BadParameter` if both are wanted.
    """
    global _level
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose cannot be combined")
    _level = -1 if quiet else min(verbose, 2)
    err.muted = quiet > 0
    log = logging.getLogger(OURS)
    log.removeHandler(_handler)
    if _level > 0:
        log.addHandler(_handler)
        log.setLevel(logging.INFO if _level == 1 else logging.DEBUG)
    else:
        log.setLevel(logging.ERROR if _level else logging.NOTSET)


def is_quiet() -> bool:
    """Whether only errors are said."""
    return _level < 0


def is_verbose() -> bool:
    """Whether log records are shown."""
    return _level > 0


def log_level() -> int:
    """From which level on a server logs: with -q errors only, with -vv all details."""
    return {-1: logging.ERROR, 2: logging.DEBUG}.get(_level, logging.INFO)


@cache
def verbosity_options() -> tuple[Any, ...]:
    """-q and -v for every command, so that they count after its name too. They are in the help of
    `adapterdock` only."""
    app = typer.Typer(add_completion=False)

    @app.command()
    def _command(  # pyright: ignore[reportUnusedFunction]
        quiet: Annotated[int, _hidden("quiet")] = 0, verbose: Annotated[int, _hidden("verbose")] = 0
    ) -> None:
        pass

    return tuple(p for p in typer.main.get_command(app).params if p.name in ("quiet", "verbose"))


def _hidden(name: str) -> Any:
    def take(ctx: typer.Context, value: int) -> int:
        if value:
            said: dict[str, int] = ctx.find_root().meta
            said[name] = said.get(name, 0) + value
            set_verbosity(said.get("quiet", 0), said.get("verbose", 0))
        return value

    flags = (f"--{name}", f"-{name[0]}")
    return typer.Option(*flags, count=True, hidden=True, expose_value=False, callback=take)
