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
from .render import counted, human_bytes, print_findings, print_table, short_digest

SCHEMA = "adapterdock.cache/1"
VERIFY_SCHEMA = "adapterdock.cache-verify/1"
GC_SCHEMA = "adapterdock.cache-gc/1"

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, verify and shrink the cache of downloaded files.\n\n"
    "The cache is in $ADAPTERDOCK_CACHE (default: ~/.cache/adapterdock) and stores each file once, "
    "under the digest of its content. Files from the Hub stay in the Hub's own cache.",
)


@app.command("ls", cls=Command)
def ls(as_json: JsonOption = False) -> None:
    """List the files in the cache, most recently used first.

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
    err.line(
        f"{counted(len(rows), 'file')}, {human_bytes(maintenance.size(store))} in {store.root}"
    )


@app.command("verify", cls=Command)
def verify(as_json: JsonOption = False) -> None:
    """Compare every cached file with its digest.

    Damaged files are removed, so that the next pull downloads them again. Exit status 1 if a file
    was damaged, or if the folder is not a cache.

    Examples:

      adapterdock cache verify
    """
    from ..registry.store import maintenance
    from ..registry.store.store import Store

    store = Store.default()
    with shown_progress("Verifying") as progress:
        if progress is None:
            findings = maintenance.verify(store)
        else:
            name = str(store.root)
            progress.start(name, maintenance.size(store))
            findings = maintenance.verify(store, lambda count: progress.advance(name, count))
            progress.done(name)
    if as_json:
        data = {
            "cache": str(store.root),
            "files": len(maintenance.entries(store)) if store.exists() else 0,
            "findings": [finding.as_dict() for finding in findings],
        }
        out.as_json(VERIFY_SCHEMA, data)
        raise typer.Exit(1 if findings else 0)
    print_findings(findings, out)
    if findings:
        raise typer.Exit(1)
    if not store.exists():
        say(f"No cache in {store.root} yet; nothing was verified")
        return
    say(f"Verified {counted(len(maintenance.entries(store)), 'file')} in {store.root}")


@app.command("gc", cls=Command)
def gc(
    max_size: Annotated[
        str, typer.Option("--max-size", metavar="SIZE", help="Keep at most this much: 10GiB, 0B.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Make the cache smaller: delete the least recently used files.

    Keeps files that a running process uses or that are only minutes old, and everything in the
    Hub's own cache.

    Examples:

      adapterdock cache gc --max-size 20GiB
      adapterdock cache gc --max-size 0B       # delete everything not in use
    """
    from ..registry.store import maintenance
    from ..registry.store.store import Store

    limit = parse_size(max_size)
    store = Store.default()
    freed = maintenance.collect(store, limit)
    left = maintenance.size(store)
    if as_json:
        gone = {"freed": freed.size, "deleted": sorted(freed.digests)}
        out.as_json(GC_SCHEMA, {"cache": str(store.root), **gone, "size": left})
        return
    say(f"Freed {human_bytes(freed.size)} ({counted(len(freed.digests), 'file')})")
    say(f"{human_bytes(left)} remain in {store.root}")
    if left > limit:
        err.line("The remaining files are in use, or were used minutes ago")


def parse_size(text: str) -> int:
    """A size in bytes. Raises :class:`UsageError` for invalid text."""
    from ..manifests.language.schema import BYTE_SIZE_PATTERN, parse_bytes

    spelled = text.strip().upper().replace("I", "i")
    if not re.match(BYTE_SIZE_PATTERN.replace("$", r"\Z"), spelled):
        raise UsageError(
            codes.BAD_SIZE.finding(
                f"Invalid size {text!r}", found=text, expected="such as 500MB, 2GiB or 0B"
            )
        )
    return parse_bytes(spelled)
