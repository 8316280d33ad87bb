"""`adapterdock fleet`: status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..manifests.findings import lock as lock_codes
from ..manifests.findings import serving as codes
from ..manifests.findings import usage as usage_codes
from ..manifests.findings.errors import LockError, UsageError
from ..manifests.findings.finding import Where
from .command import Command, Group
from .console import err, out, status
from .durations import parse_duration
from .options import DEFAULT_MANIFEST, JsonOption, ManifestArgument, open_manifest_argument
from .render import counted, print_findings, print_table

if TYPE_CHECKING:
    from ..manifests.lockfile import Lock
    from ..serving.fleet.compare import ReplicaRow

SCHEMA = "adapterdock.fleet/1"

_SHORTEST, _LONGEST = 0.1, 600.0
"""Seconds of --timeout."""
_SHOWN = 3
"""Adapters that the table names for each replica."""
_WORDS = {"differs": "another content", "missing": "not served", "extra": "not in the lock"}

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Compare what running servers serve with a lock.",
)


@app.callback()
def _group() -> None:  # pyright: ignore[reportUnusedFunction] - keeps `status` a subcommand
    pass


@app.command("status", cls=Command)
def fleet_status(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    on: Annotated[
        list[str] | None,
        typer.Option(
            "--on",
            metavar="URL",
            help="A replica: http://HOST:PORT or https://HOST (repeat for more). "
            "dns+http://HOST:PORT asks every address that HOST has.",
        ),
    ] = None,
    wait: Annotated[
        str | None,
        typer.Option(
            "--wait",
            metavar="TIME",
            help="Ask again until all replicas agree, for at most this long: 30s, 5m, 1h.",
        ),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe", help="Show that each adapter acts: its answers must differ from the base's."
        ),
    ] = False,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            metavar="TEXT",
            help="Probe with this prompt instead of the usual ones (repeat for more).",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="For each request of a status.")
    ] = 10.0,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file",
            metavar="FILE",
            help="A file with the key of the servers (default: $ADAPTERDOCK_FLEET_KEY).",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare what each replica serves with the lock, by content.

    Asks all replicas at once for their status (/v1/adapterdock/status), or if they have none, for
    the paths in /v1/models, which contain digests where adapterdock made them. Changes nothing:
    replicas follow their manifest by themselves. The key is sent to the hosts of --on only;
    redirections and proxies are not used.

    Exit status: 0 every replica serves what the lock pins, 1 a replica differs, 2 wrong usage, 3 a
    replica could not be asked or compared.

    Examples:

      adapterdock fleet status --on http://a:8000 --on http://b:8000
      adapterdock fleet status --on dns+http://vllm.models.svc:8000 --wait 5m
      adapterdock fleet status --on https://models.example.com --probe
      adapterdock fleet status --on http://a:8000 --json | jq '.replicas[].state'
    """
    from ..serving.fleet.address import parse_address
    from ..serving.fleet.asking import Line
    from ..serving.fleet.compare import exit_status
    from ..serving.fleet.fleet import probe_fleet, wait_for_fleet
    from ..serving.fleet.key import read_key
    from ..serving.fleet.probe import PROMPTS

    seconds = _check_options(on, wait, probe, prompt, timeout)
    addresses = [parse_address(text) for text in on or ()]
    line = Line(read_key(key_file), timeout)
    lock = _lock(manifest)
    with status(f"Asking {counted(len(addresses), 'address', 'addresses')}"):
        fleet = wait_for_fleet(lock, addresses, line, seconds, _Shown())
    rows = fleet.rows
    if probe:
        with status("Probing"):
            rows = probe_fleet(fleet, line, prompt or PROMPTS)
    code = exit_status(rows)
    if as_json:
        data = {
            "manifest": str(manifest),
            "exit_status": code,
            "replicas": [_as_dict(row) for row in rows],
        }
        out.as_json(SCHEMA, data)
    else:
        _print(rows, probe)
    raise typer.Exit(code)


class _Shown:
    """Says how far a fleet is, each time that changes."""

    def __init__(self) -> None:
        self._said: str | None = None

    def __call__(self, rows: Sequence[ReplicaRow]) -> None:
        text = _summary(rows)
        if text != self._said:
            self._said = text
            err.line(f"{text}; waiting")


def _check_options(
    on: Sequence[str] | None,
    wait: str | None,
    probe: bool,
    prompt: Sequence[str] | None,
    timeout: float,
) -> float:
    """The seconds of --wait. Raises :class:`UsageError`."""
    if not on:
        raise UsageError(
            codes.FLEET_ARGUMENT.finding(
                "No replica is named", expected="--on URL", hint="Name one with --on, or several."
            )
        )
    if prompt and not probe:
        raise UsageError(
            usage_codes.OPTIONS_CONFLICT.finding(
                "--prompt has no meaning without --probe", hint="Add --probe."
            )
        )
    if prompt and not all(text.strip() for text in prompt):
        raise UsageError(codes.FLEET_ARGUMENT.finding("A --prompt is empty"))
    if not _SHORTEST <= timeout <= _LONGEST:
        raise UsageError(
            codes.FLEET_ARGUMENT.finding(
                "Invalid --timeout",
                found=timeout,
                expected=f"{_SHORTEST:g} to {_LONGEST:g} seconds",
            )
        )
    seconds = 0.0 if wait is None else parse_duration(wait)
    if seconds is None:
        raise UsageError(
            codes.FLEET_ARGUMENT.finding(
                "Invalid --wait",
                found=(wait or "")[:40],
                expected="30s, 5m, 1h",
                hint="Write a number, and s, m, h or d.",
            )
        )
    return seconds


def _lock(manifest: Path) -> Lock:
    """The manifest's lock, which must be current. Raises :class:`LockError`."""
    from ..registry.locks.project import lock_of
    from ..registry.locks.state import lock_name, require_lock

    file = open_manifest_argument(manifest, None, None, None)
    lock = lock_of(file)
    if lock is None:
        raise LockError(
            lock_codes.LOCK_MISSING.finding("The lock is missing", Where(file=lock_name(file)))
        )
    require_lock(file, lock, frozen=False)
    return lock


def _print(rows: Sequence[ReplicaRow], probed: bool) -> None:
    table = [
        (
            row.replica,
            row.state,
            "" if row.asked is None else f"{row.same} of {row.expected}",
            row.engine or "",
            _what(row, probed),
        )
        for row in rows
    ]
    print_table(("replica", "state", "adapters", "engine", "what"), table, out)
    print_findings([finding for row in rows for finding in row.findings], err)
    err.line(_summary(rows))
    if probed:
        err.line(_acting(rows))


def _what(row: ReplicaRow, probed: bool) -> str:
    """What is wrong with a replica, in a few words."""
    from ..registry.files.wording import shown, some

    if row.asked is None:
        return "cannot be asked"
    wrong = [f"{shown(a.name, 60)}: {_WORDS[a.state]}" for a in row.adapters if a.state in _WORDS]
    if probed:
        wrong += [f"{shown(a.name, 60)}: no effect" for a in row.adapters if a.acts is False]
    if not wrong and row.state != "same":
        return row.findings[0].message if row.findings else ""
    return some(wrong, _SHOWN)


def _summary(rows: Sequence[ReplicaRow]) -> str:
    same = sum(row.state == "same" for row in rows)
    verb = "serves" if 1 in (same, len(rows)) else "serve"
    return f"{same} of {counted(len(rows), 'replica')} {verb} what the lock pins"


def _acting(rows: Sequence[ReplicaRow]) -> str:
    """How many adapters a probe showed to act, and how many it did not reach; of a name on several
    replicas, each counts."""
    served = [one for row in rows for one in row.adapters if one.served is not None]
    acting = sum(one.acts is True for one in served)
    verb = "answers" if 1 in (acting, len(served)) else "answer"
    text = f"{acting} of {counted(len(served), 'adapter')} {verb} differently from the base"
    left = sum(one.acts is None for one in served)
    return f"{text}; {left} not probed" if left else text


def _as_dict(row: ReplicaRow) -> dict[str, object]:
    return {**asdict(row), "findings": [finding.as_dict() for finding in row.findings]}
