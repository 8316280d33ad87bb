"""`adapterdock show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..manifests.findings import Where
from .console import err, out, say
from .options import (
    DEFAULT_MANIFEST,
    DtypeOption,
    JsonOption,
    ManifestArgument,
    ModelOption,
    OfflineOption,
    PolicyOption,
)
from .render import human_bytes, print_findings, print_table

if TYPE_CHECKING:
    from ..manifests.manifest import ManifestFile
    from ..registry.resolve import Resolution


def show(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    policy: PolicyOption = None,
    offline: OfflineOption = False,
    resolved: Annotated[
        bool,
        typer.Option(
            "--resolved", help="Print each value after `extends` and variables, and its origin."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a manifest resolves to: methods, ranks, sizes, targets, digests.

    Reads configs and headers only. --resolved shows the manifest itself instead, value by value.

    Examples:

      adapterdock show

      adapterdock show team.yaml --resolved
    """
    from ..registry.project import lock_of, open_manifest, policies_in_force
    from ..registry.resolve import Access
    from ..registry.validate import resolve_under

    file = open_manifest(Path(manifest), model=model, dtype=dtype)
    if resolved:
        _show_values(file, as_json)
        return
    access = Access(offline=offline, policies=policies_in_force(file, policy))
    lock = lock_of(file)
    resolution = resolve_under(file, lock, access)
    digests = {n: e.digest for n, e in lock.adapters.items()} if lock else {}
    data = _describe(resolution, digests)
    if as_json:
        say(json.dumps(data, indent=2))
    else:
        _print(data)
    print_findings(resolution.findings, err())
    raise typer.Exit(resolution.report(lock.accepted if lock else ()).exit_status)


def _describe(resolution: Resolution, digests: dict[str, str | None]) -> dict[str, Any]:
    manifest, base = resolution.file.manifest, resolution.base
    adapters: dict[str, Any] = {}
    for name, facts in resolution.report().adapters.items():
        adapters[name] = {**facts, "digest": digests.get(name)}
    return {
        "schema": "adapterdock.show/1",
        "manifest": resolution.file.file,
        "base": {
            "model": None if manifest.base.model is None else str(manifest.base.model),
            "architecture": base.architecture if base else None,
            "tensors": len(base.tensors) if base else None,
            "bytes": sum(f.size for f in base.files) if base else None,
        },
        "adapters": adapters,
        "compositions": {
            name: {"combine": c.combine, "of": dict(c.of)}
            for name, c in manifest.compositions.items()
        },
        "active": manifest.active,
    }


def _print(data: dict[str, Any]) -> None:
    base = data["base"]
    if base["model"] is None:
        say("base: not declared")
    else:
        size = human_bytes(base["bytes"]) if base["bytes"] is not None else "not read"
        say(f"base: {base['model']} ({base['architecture'] or 'unknown'}, {size})")
    rows = [
        (
            name,
            str(a.get("method") or "?"),
            str(a.get("rank") if a.get("rank") is not None else "?"),
            human_bytes(a["bytes"]) if "bytes" in a else "?",
            ",".join(a.get("targets", ())),
            (a["digest"] or "not locked")[:19],
            a.get("source", "?"),
        )
        for name, a in data["adapters"].items()
    ]
    if rows:
        columns = ("adapter", "method", "rank", "size", "targets", "digest", "source")
        print_table(columns, rows, out())
    if data["compositions"]:
        recipes = [
            (name, c["combine"], " + ".join(f"{w:g} {n}" for n, w in c["of"].items()))
            for name, c in data["compositions"].items()
        ]
        print_table(("composition", "combine", "of"), recipes, out())
    if data["active"]:
        active = data["active"] if isinstance(data["active"], str) else ", ".join(data["active"])
        say(f"active: {active}")


def _show_values(file: ManifestFile, as_json: bool) -> None:
    rows = [
        (
            Where(path=path).dotted,
            origin.text,
            ":".join(str(p) for p in (origin.file, origin.line) if p is not None),
            ", ".join(origin.variables),
        )
        for path, origin in file.origins.items()
    ]
    if as_json:
        columns = ("path", "value", "from", "variables")
        say(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=2))
    else:
        print_table(("path", "value", "from", "variables"), rows, out())
