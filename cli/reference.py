"""Writes ``docs/reference/cli.md``, the help of every command, from the code.

``python -m adapterdock.cli.reference`` writes it; ``--check`` compares.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from ..manifests.findings.finding import REPORT_SCHEMA
from .bundle import SCHEMA as BUNDLE_SCHEMA
from .cache import SCHEMA as CACHE_SCHEMA
from .command import ERROR_SCHEMA, Command, Group
from .configured import SCHEMA as REGISTRIES_SCHEMA
from .diff import SCHEMA as DIFF_SCHEMA
from .explain import SCHEMA as CODES_SCHEMA
from .export import SCHEMA as EXPORT_SCHEMA
from .fingerprint import SCHEMA as FINGERPRINT_SCHEMA
from .fleet import SCHEMA as FLEET_SCHEMA
from .help import help_text
from .history import SCHEMA as HISTORY_SCHEMA
from .inspect import SCHEMA as INSPECT_SCHEMA
from .lock import SCHEMA as LOCK_SCHEMA
from .main import app
from .mirror import SCHEMA as MIRROR_SCHEMA
from .outdated import SCHEMA as OUTDATED_SCHEMA
from .publish import SCHEMA as PUBLISH_SCHEMA
from .push import SCHEMA as PUSH_SCHEMA
from .registry import SCHEMA as REGISTRY_SCHEMA
from .registry import SNAPSHOT_SCHEMA
from .registry_gc import SCHEMA as GC_SCHEMA
from .registry_renumber import SCHEMA as RENUMBER_SCHEMA
from .registry_verify import SCHEMA as VERIFY_SCHEMA
from .rules import SCHEMA as RULES_SCHEMA
from .sbom import SCHEMA as SBOM_SCHEMA
from .search import SCHEMA as SEARCH_SCHEMA
from .show import RESOLVED_SCHEMA
from .show import SCHEMA as SHOW_SCHEMA
from .versions import SCHEMA as VERSIONS_SCHEMA

DOCS = Path(__file__).resolve().parents[1] / "docs"
WIDTH = 88
SCHEMAS = (
    (
        "validate, lock --check",
        REPORT_SCHEMA,
        "`subject`, `ok`, `exit_status`, `accepted`, `findings`, `adapters`",
    ),
    ("lock", LOCK_SCHEMA, "`lock`, `wrote`, `changes`, `accepted`, `findings`"),
    (
        "show",
        SHOW_SCHEMA,
        "`manifest`, `base`, `adapters`, `compositions`, `active`, `exit_status`, `findings`",
    ),
    ("show --resolved", RESOLVED_SCHEMA, "`manifest`, `values`"),
    ("fingerprint", FINGERPRINT_SCHEMA, "`source`, `fingerprint`"),
    ("explain", CODES_SCHEMA, "`codes`"),
    (
        "publish",
        PUBLISH_SCHEMA,
        "`reference`, `published`, `new`, `entry`, `digest`, `uploaded`",
    ),
    ("sbom", SBOM_SCHEMA, "`output`, `findings`, `bom`"),
    ("search", SEARCH_SCHEMA, "`text`, `registries`"),
    ("registries", REGISTRIES_SCHEMA, "`registries`"),
    (
        "inspect",
        INSPECT_SCHEMA,
        "`reference`, `registry`, `id`, `digest`, `entry`, `yanked`, `deprecated`, `why`, "
        "`aliases`, `signatures`, `delta`",
    ),
    (
        "diff",
        DIFF_SCHEMA,
        "`a`, `b`, `same`, `config`, `targets`, `metrics`, `layers`, `modules`, `left_out`, `why`",
    ),
    ("outdated", OUTDATED_SCHEMA, "`adapters`, `findings`, `exit_status`"),
    (
        "bundle",
        BUNDLE_SCHEMA,
        "`archive`, `written`, `files`, `bytes`, `base`, `manifest`, `digest`",
    ),
    ("push", PUSH_SCHEMA, "`target`, `source`, `digest`, `signatures`, `new`, `pushed`"),
    ("versions", VERSIONS_SCHEMA, "`registry`, `id`, `name`, `versions`"),
    ("history", HISTORY_SCHEMA, "`name`, `alias`, `values`"),
    ("registry init", REGISTRY_SCHEMA, "`url`, `id`, `title`"),
    ("registry snapshot", SNAPSHOT_SCHEMA, "`url`, `id`, `path`, `rows`, `new`"),
    ("registry rules show", RULES_SCHEMA, "`url`, `number`, `rules`"),
    (
        "registry verify",
        VERIFY_SCHEMA,
        "`url`, `id`, `ok`, `counts`, `bytes`, `added`, `findings`",
    ),
    (
        "registry gc",
        GC_SCHEMA,
        "`url`, `dry_run`, `condemned`, `removed`, `kept`, `left`, `bytes`",
    ),
    ("registry renumber", RENUMBER_SCHEMA, "`url`, `kept`, `moved`, `changed`, `findings`"),
    ("export", EXPORT_SCHEMA, "`folder`, `written`, `unchanged`, `removed`, `record`"),
    ("fleet status", FLEET_SCHEMA, "`manifest`, `exit_status`, `replicas`"),
    ("mirror", MIRROR_SCHEMA, "`origin`, `mirror`, `dry_run`, `id`, `names`, `files`, `bytes`"),
    ("cache ls", CACHE_SCHEMA, "`cache`, `size`, `files`"),
    ("any, after an error", ERROR_SCHEMA, "`exit_status`, `findings`"),
)
_MADE = "<!-- Made by `python -m adapterdock.cli.reference`; do not edit. -->\n"


def cli_page() -> str:
    """Every command with its help, as `--help` prints it."""
    text = [_MADE, "# The command line\n"]
    for path, command, context in _commands(typer.main.get_command(app), "adapterdock", None):
        text.append(f"## {path}\n")
        text.append(f"```text\n{help_text(command, context, WIDTH)}\n```\n")
    text.append("## What --json prints\n")
    text.append(
        "One JSON object on standard output. Its first key `schema` names its format and version. "
        "If a command fails, it prints the object of the last row. For an unknown option, or an "
        "invalid value of an option, it prints no object (status 2).\n"
    )
    text += ["| command | schema | keys |", "|---|---|---|"]
    text += [f"| `{command}` | `{schema}` | {keys} |" for command, schema, keys in SCHEMAS]
    return "\n".join(text) + "\n"


def _commands(
    command: Any, path: str, parent: Any
) -> Iterator[tuple[str, Command | Group, typer.Context]]:
    context = command.make_context(path.split()[-1], [], parent=parent, resilient_parsing=True)
    yield path, command, context
    if isinstance(command, Group):
        for name in command.list_commands(context):
            yield from _commands(command.get_command(context, name), f"{path} {name}", context)


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or with ``--check`` report whether it is current (status 1: stale)."""
    parser = argparse.ArgumentParser(prog="python -m adapterdock.cli.reference")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    check: bool = parser.parse_args(arguments).check
    text, path = cli_page(), DOCS / "reference" / "cli.md"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return 0
    if check:
        print(f"{path} is not current; run python -m adapterdock.cli.reference", file=sys.stderr)
        return 1
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
