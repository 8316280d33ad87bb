"""`adapterdock cache`: ls, verify, gc."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Annotated

import typer

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import UsageError
from .command import Command, Group
from .console import err, out, say
from .options import JsonOption
from .progress import shown_progress
from .render import human_bytes, print_findings, print_table, short_digest

SCHEMA = "adapterdock.cache/1"

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look after the cache of fetched files.\n\n"
    "It is $ADAPTERDOCK_CACHE, else ~/.cache/adapterdock, and is keyed by content: one file is "
    "there once, whatever it is called. Files from the Hub stay in the Hub's own cache.",
)


@app.command("ls", cls=Command)
def ls(as_json: JsonOption = False) -> None:
    """List what the cache holds, most recently used first.

    Examples:

      adapterdock cache ls
      adapterdock cache ls --json | jq '.files | map(.size) | add'
    """
    from ..registry.store import maintenance
    from ..registry.store.store import Store

    store = Store.default()
    entries = maintenance.entries(store)[::-1]
    used = [datetime.fromtimestamp(entry.last_used, timezone.utc) for entry in entries]
    if as_json:
        files = [
            {
                "digest": entry.digest,
                "size": entry.size,
                "last_used": time.isoformat(timespec="seconds"),
                "origin": entry.origin or None,
            }
            for entry, time in zip(entries, used, strict=True)
        ]
        out.as_json(
            SCHEMA, {"cache": str(store.root), "size": maintenance.size(store), "files": files}
        )
        return
    rows = [
        (
            short_digest(entry.digest, out),
            human_bytes(entry.size),
            time.strftime("%Y-%m-%d %H:%M UTC"),
            entry.origin,
        )
        for entry, time in zip(entries, used, strict=True)
    ]
    if rows:
        print_table(("digest", "size", "last used", "from"), rows, out)
    err.line(f"{_files(len(rows))}, {human_bytes(maintenance.size(store))} in {store.root}")


@app.command("verify", cls=Command)
def verify() -> None:
    """Read every cached file again and compare it with its digest.

    What is damaged is taken out, so that the next pull fetches it anew. Exit status 1 if
    anything was, and for a folder that is no cache.

    Examples:

      adapterdock cache verify
    """
    from ..registry.store import maintenance
    from ..registry.store.store import Store

    store = Store.default()
    with shown_progress("verifying") as progress:
        if progress is None:
            findings = maintenance.verify(store)
        else:
            name = str(store.root)
            progress.start(name, maintenance.size(store))
            findings = maintenance.verify(store, lambda count: progress.advance(name, count))
            progress.done(name)
    print_findings(findings, out)
    if findings:
        raise typer.Exit(1)
    if not store.exists():
        say(f"there is no cache in {store.root} yet; nothing was verified")
        return
    say(f"{_files(len(maintenance.entries(store)))} in {store.root}, each what its name says")


@app.command("gc", cls=Command)
def gc(
    max_size: Annotated[
        str, typer.Option("--max-size", metavar="SIZE", help="Keep at most this much: 10GiB, 0B.")
    ],
) -> None:
    """Make the cache smaller: the least recently used files go.

    Files that a running load uses, or that are only minutes old, are kept, and so is whatever
    is in the Hub's own cache.

    Examples:

      adapterdock cache gc --max-size 20GiB
      adapterdock cache gc --max-size 0B       # everything that is not in use
    """
    from ..registry.store import maintenance
    from ..registry.store.store import Store

    limit = parse_size(max_size)
    store = Store.default()
    freed = maintenance.collect(store, limit)
    left = maintenance.size(store)
    say(f"freed {human_bytes(freed.size)} ({_files(len(freed.digests))})")
    say(f"{human_bytes(left)} remain in {store.root}")
    if left > limit:
        err.line("the rest is in use, or was used only minutes ago")


def parse_size(text: str) -> int:
    """Bytes. Raises :class:`UsageError` for what is no size."""
    from ..manifests.language.schema import BYTE_SIZE_PATTERN, parse_bytes

    spelled = text.strip().upper().replace("I", "i")
    if not re.match(BYTE_SIZE_PATTERN.replace("$", r"\Z"), spelled):
        raise UsageError(
            codes.BAD_SIZE.finding(
                f"{text!r} is no size", found=text, expected="such as 500MB, 2GiB or 0B"
            )
        )
    return parse_bytes(spelled)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
