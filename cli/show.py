"""`adapterdock show`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..manifests.findings.finding import Where
from ..manifests.reading.nodes import Path, Scalar, scalars
from .console import err, out, say
from .options import (
    DEFAULT_MANIFEST,
    DtypeOption,
    JsonOption,
    ManifestArgument,
    ModelOption,
    OfflineOption,
    PolicyOption,
    open_manifest_argument,
)
from .render import human_bytes, print_findings, print_table, short_digest

if TYPE_CHECKING:
    from ..manifests.manifest import ManifestFile
    from ..registry.resolution import Resolution

SCHEMA = "adapterdock.show/1"
RESOLVED_SCHEMA = "adapterdock.resolved/1"


def show(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    policy: PolicyOption = None,
    offline: OfflineOption = False,
    resolved: Annotated[
        bool,
        typer.Option(
            "--resolved",
            help="Print each value of the manifest instead, after `extends` and variables, with "
            "its file and line.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a manifest resolves to.

    Prints methods, ranks, sizes, target modules and digests of all adapters. Reads configs and
    headers only; digests come from the lock. Findings and exit status are those of `validate`.

    Examples:

      adapterdock show
      adapterdock show team.yaml --resolved
      adapterdock show --json | jq '.adapters[] | {source, rank, digest}'
    """
    from ..registry.access.access import Access
    from ..registry.locks.project import lock_of, policies_in_force
    from ..registry.validate import resolve_under

    file = open_manifest_argument(manifest, model, dtype, policy)
    if resolved:
        _show_values(file, as_json)
        return
    access = Access(offline=offline, policies=policies_in_force(file, policy))
    lock = lock_of(file)
    resolution = resolve_under(file, lock, access)
    report = resolution.report(lock.accepted if lock else ())
    digests = {n: e.digest for n, e in lock.adapters.items()} if lock else {}
    data = _describe(resolution, digests)
    if as_json:
        findings = [f.as_dict() for f in report.findings]
        out.as_json(SCHEMA, {**data, "exit_status": report.exit_status, "findings": findings})
    else:
        _print(data)
        print_findings(report.findings, err, report.accepted)
    raise typer.Exit(report.exit_status)


def _describe(resolution: Resolution, digests: dict[str, str | None]) -> dict[str, Any]:
    from ..registry.locks.changes import declared_as

    manifest, base = resolution.file.manifest, resolution.base
    facts = resolution.report().adapters
    return {
        "manifest": resolution.file.file,
        "base": {
            "model": None if manifest.base.model is None else str(manifest.base.model),
            "architecture": base.architecture if base else None,
            "tensors": len(base.tensors) if base else None,
            "bytes": sum(f.size for f in base.files) if base else None,
        },
        "adapters": {
            name: {"source": declared_as(adapter), **facts[name], "digest": digests.get(name)}
            for name, adapter in manifest.adapters.items()
        },
        "compositions": {
            name: {"combine": c.combine, "of": dict(c.of)}
            for name, c in manifest.compositions.items()
        },
        "active": manifest.active,
    }


def _print(data: dict[str, Any]) -> None:
    from ..manifests.lockfile import NEW_ADAPTER

    base = data["base"]
    if base["model"] is None:
        say("base: not declared")
    elif base["bytes"] is None:
        say(f"base: {base['model']} (cannot be read)")
    else:
        size = human_bytes(base["bytes"])
        say(f"base: {base['model']} ({base['architecture'] or 'unknown architecture'}, {size})")
    rows = [
        (
            name,
            _method(a),
            str(a.get("rank") if a.get("rank") is not None else "?"),
            human_bytes(a["bytes"]) if "bytes" in a else "?",
            ",".join(a.get("targets", ())),
            short_digest(a["digest"], out) or "not locked",
            "new" if a["source"] == NEW_ADAPTER else a["source"],
        )
        for name, a in data["adapters"].items()
    ]
    if rows:
        say()
        columns = ("adapter", "method", "rank", "size", "targets", "digest", "source")
        print_table(columns, rows, out)
    if data["compositions"]:
        say()
        recipes = [
            (name, c["combine"], " + ".join(f"{_weight(w)} {n}" for n, w in c["of"].items()))
            for name, c in data["compositions"].items()
        ]
        print_table(("composition", "combine", "of"), recipes, out)
    if data["active"]:
        say()
        active = data["active"] if isinstance(data["active"], str) else ", ".join(data["active"])
        say(f"active: {active}")


def _show_values(file: ManifestFile, as_json: bool) -> None:
    values = [*scalars(file.root)]
    for below in file.extended:  # policies of extended files hold even where they are replaced
        values += scalars(below.root, ("policy",))
    rows = list(dict.fromkeys(_row(path, scalar) for path, scalar in values))
    columns = ("path", "value", "from", "variables")
    if as_json:
        as_read = {_row(path, scalar): _value(path, scalar) for path, scalar in values}
        shown = [{**dict(zip(columns, row, strict=True)), "value": as_read[row]} for row in rows]
        out.as_json(RESOLVED_SCHEMA, {"manifest": file.file, "values": shown})
    elif any(row[3] for row in rows):
        print_table(columns, rows, out)
    else:
        print_table(columns[:3], [row[:3] for row in rows], out)


def _value(path: Path, scalar: Scalar) -> str | int | float | bool | None:
    """The value as the manifest means it there: a number, a boolean, null or text."""
    from ..manifests.language.schema import Manifest
    from ..manifests.reading.conform import conform, shape_at, shape_of

    value = conform(scalar, shape_at(shape_of(Manifest), path))
    return value if isinstance(value, str | int | float | None) else scalar.text


def _row(path: Path, scalar: Scalar) -> tuple[str, str, str, str]:
    spot = ":".join(str(p) for p in (scalar.spot.file, scalar.spot.line) if p is not None)
    return Where(path=path).dotted, scalar.text, spot, ", ".join(scalar.variables)


def _weight(weight: float | Mapping[str, float]) -> str:
    """``0.4``, or ``(*.mlp.* 0.1, * 0.4)`` for weights by module."""
    if isinstance(weight, Mapping):
        return f"({', '.join(f'{glob} {number:g}' for glob, number in weight.items())})"
    return f"{weight:g}"


def _method(facts: Mapping[str, Any]) -> str:
    """``LORA``, with the format if that is not PEFT's."""
    method, written_by = str(facts.get("method") or "?"), facts.get("format", "PEFT")
    return method if written_by == "PEFT" else f"{method} ({written_by})"
