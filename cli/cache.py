"""`adapterdock cache`: ls, verify, gc."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

import typer

from ..manifests.codes import usage as codes
from ..manifests.errors import UsageError
from .console import out, say
from .render import human_bytes, print_findings, print_table

if TYPE_CHECKING:
    from ..registry.store import Store

app = typer.Typer(
    no_args_is_help=True,
    help="The content-addressed cache: $ADAPTERDOCK_CACHE, else ~/.cache/adapterdock. Files from "
    "the Hub are not here: they stay in the Hub's own cache.",
)


@app.command("ls")
def ls() -> None:
    """List what the cache holds, most recently used first."""
    store = _store()
    entries = store.entries()[::-1]
    rows = [
        (
            entry.digest,
            human_bytes(entry.size),
            datetime.fromtimestamp(entry.last_used, timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            entry.origin,
        )
        for entry in entries
    ]
    if rows:
        print_table(("digest", "size", "last used", "from"), rows, out())
    say(f"{len(rows)} files, {human_bytes(sum(e.size for e in entries))} in {store.root}")


@app.command("verify")
def verify() -> None:
    """Hash every cached file again; what is damaged is taken out, and the next pull repairs it."""
    store = _store()
    findings = store.verify()
    print_findings(findings, out())
    if findings:
        raise typer.Exit(1)
    say(f"every file in {store.root} is what its name says")


@app.command("gc")
def gc(
    max_size: Annotated[
        str, typer.Option("--max-size", metavar="SIZE", help="Keep at most this much, e.g. 10GiB.")
    ],
) -> None:
    """Remove the least recently used files until the cache is small enough.

    Files that a running load uses, or that are only minutes old, are kept.
    """
    from ..manifests.schema import parse_bytes

    try:
        limit = parse_bytes(max_size)
    except ValueError as error:
        raise UsageError(
            codes.BAD_SIZE.finding(
                f"{max_size!r} is no size", found=max_size, expected="such as 500MB, 2GiB or 0B"
            )
        ) from error
    store = _store()
    freed = store.gc(limit)
    say(f"freed {human_bytes(freed.size)} ({len(freed.digests)} files)")
    say(f"{human_bytes(store.size())} remain in {store.root}")


def _store() -> Store:
    from ..registry.store import Store

    return Store.default()
