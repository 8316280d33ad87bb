"""`adapterdock matrix`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import err, out, status
from .options import AcceptOption, DeepOption, JsonOption, OfflineOption, PolicyOption
from .registries import RegistriesOption, manifest_of
from .render import counted, print_findings, print_table, words_of

if TYPE_CHECKING:
    from ..manifests.findings.finding import Report
    from ..manifests.manifest import ManifestFile
    from ..registry.access.shared_reads import Reads
    from ..registry.matrix import Matrix, Row

SCHEMA = "adapterdock.matrix/1"


def matrix(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Manifests, folders or globs with manifests or adapters, an adapter's folder or "
            "source, or REGISTRY/NAME@VERSION.",
            show_default=False,
        ),
    ],
    base: Annotated[
        list[str] | None,
        typer.Option(
            "--base",
            metavar="SOURCE",
            help="A base to compare with: ./folder, hf://org/name, s3://bucket/folder (repeat for "
            "more; default: the bases that the manifests declare).",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Also write the table as one HTML page."),
    ] = None,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    offline: OfflineOption = False,
    deep: DeepOption = False,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which adapters fit which bases.

    Reads configs and safetensors headers only, and each base and adapter once. `fits` is an answer
    from the tensors; `unchecked` says that something could not be verified, for example that the
    base is the one that the adapter was trained on. A manifest's `aliases` and `fingerprint` are of
    the base that it declares; they do not count for another one.

    Exit status: 0 every cell has an answer (that an adapter does not fit is one), 1 an input or a
    base could not be read, 2 wrong usage, 3 some cells are unchecked.

    Examples:

      adapterdock matrix catalogue/                          # on the bases that it declares
      adapterdock matrix catalogue/ --base ./llama --base hf://org/finetuned
      adapterdock matrix ./tone team/refunds@prod --base ./llama --html matrix.html
      adapterdock matrix catalogue/ --json | jq '.rows[] | select(any(.cells[]; .fits == false))'
    """
    from ..registry.access.session import accepted_codes
    from ..registry.matrix import matrix_of, registries_of
    from ..registry.validate import validate
    from ..registry.validate_many import WORKERS
    from .options import check_arguments
    from .validate import ask_torch

    check_arguments(None, None, policy)
    accepted = sorted(accepted_codes(accept or ()))
    ask, ask_peft = ask_torch() if deep else (None, None)

    def check(file: ManifestFile, reads: Reads) -> Report:
        return validate(
            file,
            policy=policy,
            accept=accepted,
            offline=offline,
            ask=ask,
            ask_peft=ask_peft,
            reads=reads,
        )

    registries = registries_of(manifest_of(manifest))
    with status("Reading headers"):
        workers = 1 if deep else WORKERS  # transformers cannot make two models at once
        found = matrix_of(inputs, base or [], check, registries, workers)
    if html is not None:
        from .matrix_page import write_page

        write_page(html, found, counts(found))
    if as_json:
        out.as_json(SCHEMA, as_dict(found))
    else:
        _print(found)
        print_findings(found.problems, err)
        if html is not None:
            err.line(f"Wrote {html}")
    raise typer.Exit(found.exit_status)


def as_dict(found: Matrix) -> dict[str, Any]:
    """The matrix as data; the keys are stable."""
    return {
        "exit_status": found.exit_status,
        "bases": list(found.bases),
        "rows": [
            {
                "adapter": row.adapter,
                "manifest": row.manifest,
                "source": row.facts.get("source"),
                "method": row.facts.get("method"),
                "rank": row.facts.get("rank"),
                "cells": [
                    {
                        "base": base,
                        **verdict.as_dict(),
                        "why": list(dict.fromkeys(finding.message for finding in verdict.why)),
                    }
                    for base, verdict in row.cells.items()
                ],
            }
            for row in found.rows
        ],
        "skipped": list(found.skipped),
        "findings": [finding.as_dict() for finding in found.problems],
    }


def counts(found: Matrix) -> str:
    """``3 adapters on 2 bases: 4 fit, 1 does not, 1 unchecked``."""
    cells = [cell.fits for row in found.rows for cell in row.cells.values()]
    fits, wrong, unchecked = cells.count(True), cells.count(False), cells.count(None)
    text = f"{counted(len(found.rows), 'adapter')} on {counted(len(found.bases), 'base')}: "
    text += f"{fits} {'fits' if fits == 1 else 'fit'}"
    text += f", {wrong} {'does' if wrong == 1 else 'do'} not" if wrong else ""
    return text + (f", {unchecked} unchecked" if unchecked else "")


def _print(found: Matrix) -> None:
    from_manifests = any(row.manifest is not None for row in found.rows)
    names = ("adapter", *(("manifest",) if from_manifests else ()), *found.bases)
    rows = [_cells(row, from_manifests) for row in found.rows]
    if rows:
        print_table(names, rows, out)
    out.line((counts(found), "bold"))
    reasons = {f.code: f.name for row in found.rows for c in row.cells.values() for f in c.why}
    for code, name in sorted(reasons.items()):
        err.line(f"{code} {name}: see adapterdock explain {code}")


def _cells(row: Row, from_manifests: bool) -> tuple[str, ...]:
    place = (row.manifest or "",) if from_manifests else ()
    return (row.adapter, *place, *map(words_of, row.cells.values()))
