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
from .bundle import UNPACK_SCHEMA
from .cache import GC_SCHEMA as CACHE_GC_SCHEMA
from .cache import SCHEMA as CACHE_SCHEMA
from .cache import VERIFY_SCHEMA as CACHE_VERIFY_SCHEMA
from .command import ERROR_SCHEMA, Command, Group
from .configured import SCHEMA as REGISTRIES_SCHEMA
from .diff import SCHEMA as DIFF_SCHEMA
from .diff_locks import SCHEMA as LOCK_DIFF_SCHEMA
from .editing import SCHEMA as EDIT_SCHEMA
from .explain import SCHEMA as CODES_SCHEMA
from .export import SCHEMA as EXPORT_SCHEMA
from .fingerprint import SCHEMA as FINGERPRINT_SCHEMA
from .fleet import SCHEMA as FLEET_SCHEMA
from .fmt import SCHEMA as FMT_SCHEMA
from .help import help_text
from .history import SCHEMA as HISTORY_SCHEMA
from .init import SCHEMA as INIT_SCHEMA
from .inspect import SCHEMA as INSPECT_SCHEMA
from .key import SCHEMA as KEY_SCHEMA
from .list_adapters import SCHEMA as LIST_SCHEMA
from .lock import SCHEMA as LOCK_SCHEMA
from .lock_many import SCHEMA as LOCKS_SCHEMA
from .main import app
from .marks import SCHEMA as MARK_SCHEMA
from .matrix import SCHEMA as MATRIX_SCHEMA
from .merge import SCHEMA as MERGE_SCHEMA
from .migrate import SCHEMA as MIGRATE_SCHEMA
from .mirror import HUB_SCHEMA as HUB_MIRROR_SCHEMA
from .mirror import SCHEMA as MIRROR_SCHEMA
from .outdated import SCHEMA as OUTDATED_SCHEMA
from .plan import SCHEMA as PLAN_SCHEMA
from .promote import SCHEMA as PROMOTION_SCHEMA
from .publish import SCHEMA as PUBLISH_SCHEMA
from .pull import SCHEMA as PULL_SCHEMA
from .push import SCHEMA as PUSH_SCHEMA
from .registry import SCHEMA as REGISTRY_SCHEMA
from .registry import SNAPSHOT_SCHEMA
from .registry_gc import SCHEMA as GC_SCHEMA
from .registry_renumber import SCHEMA as RENUMBER_SCHEMA
from .registry_verify import SCHEMA as VERIFY_SCHEMA
from .rules import SCHEMA as RULES_SCHEMA
from .rules import SET_SCHEMA
from .run import SCHEMA as RUN_SCHEMA
from .sbom import SCHEMA as SBOM_SCHEMA
from .search import SCHEMA as SEARCH_SCHEMA
from .show import RESOLVED_SCHEMA
from .show import SCHEMA as SHOW_SCHEMA
from .signing import SIGN_SCHEMA
from .site import SCHEMA as SITE_SCHEMA
from .validate_many import SCHEMA as REPORTS_SCHEMA
from .versions import SCHEMA as VERSIONS_SCHEMA

DOCS = Path(__file__).resolve().parents[1] / "docs"
WIDTH = 88
SCHEMAS = (
    (
        "validate, lock --check",
        REPORT_SCHEMA,
        "`subject`, `ok`, `exit_status`, `accepted`, `findings`, `adapters`",
    ),
    ("init", INIT_SCHEMA, "`manifest`, `base`, `proposed_alias`, `adapters`, `left_out`"),
    (
        "add, remove",
        EDIT_SCHEMA,
        "`manifest`, `lock`, `wrote`, `diff`, `changes`, `findings`",
    ),
    (
        "list",
        LIST_SCHEMA,
        "`manifest`, `base`, `locked`, `current`, `adapters`, `compositions`",
    ),
    (
        "fmt",
        FMT_SCHEMA,
        "`checked`, `changed`, `skipped`, `wrote`, `exit_status`, `findings`",
    ),
    (
        "plan",
        PLAN_SCHEMA,
        "`manifest`, `locked`, `changes`, `add`, `change`, `remove`, `steps`, `kept`",
    ),
    (
        "validate, lock --check (several)",
        REPORTS_SCHEMA,
        "`ok`, `exit_status`, `counts`, `skipped`, `reports`: each a report with `model` and "
        "`verdicts`",
    ),
    ("matrix", MATRIX_SCHEMA, "`exit_status`, `bases`, `rows`, `skipped`, `findings`"),
    ("lock", LOCK_SCHEMA, "`lock`, `wrote`, `changes`, `accepted`, `findings`"),
    (
        "lock (several)",
        LOCKS_SCHEMA,
        "`exit_status`, `counts`, `skipped`, `locks`: each as of one, with `manifest`",
    ),
    (
        "show",
        SHOW_SCHEMA,
        "`manifest`, `base`, `adapters`, `compositions`, `active`, `exit_status`, `findings`",
    ),
    ("show --resolved", RESOLVED_SCHEMA, "`manifest`, `values`"),
    ("pull", PULL_SCHEMA, "`base`, `adapters`, `findings`"),
    ("run", RUN_SCHEMA, "`prompt`, `answers`, `findings`"),
    ("merge", MERGE_SCHEMA, "`folder`, `merged`, `files`, `findings`"),
    ("fingerprint", FINGERPRINT_SCHEMA, "`source`, `fingerprint`"),
    ("explain", CODES_SCHEMA, "`codes`"),
    (
        "publish",
        PUBLISH_SCHEMA,
        "`reference`, `published`, `new`, `entry`, `digest`, `uploaded`, `problems`",
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
    ("diff (of locks)", LOCK_DIFF_SCHEMA, "`a`, `b`, `same`, `sentences`, `changes`"),
    ("outdated", OUTDATED_SCHEMA, "`adapters`, `findings`, `exit_status`"),
    (
        "bundle",
        BUNDLE_SCHEMA,
        "`archive`, `written`, `files`, `bytes`, `base`, `manifest`, `digest`",
    ),
    ("unpack", UNPACK_SCHEMA, "`folder`, `manifest`, `new`, `files`"),
    ("push", PUSH_SCHEMA, "`target`, `source`, `digest`, `signatures`, `new`, `pushed`"),
    ("versions", VERSIONS_SCHEMA, "`registry`, `id`, `name`, `versions`"),
    ("history", HISTORY_SCHEMA, "`name`, `alias`, `values`"),
    (
        "promote, demote",
        PROMOTION_SCHEMA,
        "`name`, `alias`, `before`, `now`, `value`, `changed`, `dry_run`",
    ),
    (
        "yank, unyank, deprecate",
        MARK_SCHEMA,
        "`name`, `version`, `changed`, `yanked`, `deprecated`",
    ),
    ("sign", SIGN_SCHEMA, "`signed`, `digest`, `key`, `new`"),
    ("key new", KEY_SCHEMA, "`private`, `public`, `id`"),
    ("registry init", REGISTRY_SCHEMA, "`url`, `id`, `title`"),
    ("registry snapshot", SNAPSHOT_SCHEMA, "`url`, `id`, `path`, `rows`, `new`"),
    (
        "registry rules set",
        SET_SCHEMA,
        "`url`, `number`, `changed`, `in_force`, `missing`",
    ),
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
    (
        "mirror --hub",
        HUB_MIRROR_SCHEMA,
        "`mirror`, `dry_run`, `entries` (each with `name`, `source`, `folder`, `files`), `files`, "
        "`bytes`, `others`, `mirrors`",
    ),
    ("cache ls", CACHE_SCHEMA, "`cache`, `size`, `files`"),
    ("cache verify", CACHE_VERIFY_SCHEMA, "`cache`, `files`, `findings`"),
    ("cache gc", CACHE_GC_SCHEMA, "`cache`, `freed`, `deleted`, `size`"),
    (
        "site",
        SITE_SCHEMA,
        "`out`, `title`, `adapters`, `bases`, `compositions`, `files`, `skipped`, `problems`",
    ),
    ("migrate", MIGRATE_SCHEMA, "`scripts`, `unchanged`, `changes`, `findings`"),
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
