"""`adapterdock list`; the file is not `list.py`, which would hide the built-in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .console import err, out, say
from .options import (
    DEFAULT_MANIFEST,
    JsonOption,
    ManifestArgument,
    ModelOption,
    open_manifest_argument,
)
from .render import counted, print_table

if TYPE_CHECKING:
    from ..manifests.language.schema import Adapter
    from ..manifests.lockfile import LockedAdapter
    from ..manifests.manifest import ManifestFile

SCHEMA = "adapterdock.list/1"


def list_adapters(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the adapters and compositions of a manifest.

    Reads the manifest and its lock, nothing else: no network, no adapters. Method and rank are
    those in the lock. `show` reads the adapters themselves.

    Examples:

      adapterdock list
      adapterdock list team.yaml
      adapterdock list --json | jq -r '.adapters[].name'
    """
    file = open_manifest_argument(manifest, model, None, None)
    data = _describe(file)
    if as_json:
        out.as_json(SCHEMA, data)
        return
    _print(data)


def _describe(file: ManifestFile) -> dict[str, Any]:
    from ..registry.locks.changes import changes
    from ..registry.locks.inputs import inputs_digests
    from ..registry.locks.project import lock_of

    manifest, lock = file.manifest, lock_of(file)
    current = lock is not None and lock.inputs in inputs_digests(file)
    found = [] if lock is None or current else changes(file, lock)
    changed = {one.name for one in found if one.kind == "adapter"}
    active = manifest.active
    names = () if active is None else (active,) if isinstance(active, str) else active
    return {
        "manifest": file.file,
        "base": None if manifest.base.model is None else str(manifest.base.model),
        "locked": lock is not None,
        "current": current,
        "adapters": [
            _row(name, adapter, lock.adapters.get(name) if lock else None, name in changed)
            | {"active": name in names}
            for name, adapter in manifest.adapters.items()
        ],
        "compositions": [
            {"name": name, "combine": one.combine, "of": dict(one.of), "active": name in names}
            for name, one in manifest.compositions.items()
        ],
    }


def _row(name: str, adapter: Adapter, entry: LockedAdapter | None, changed: bool) -> dict[str, Any]:
    from ..registry.locks.changes import declared_as

    if adapter.mutable:
        state = "mutable"
    elif entry is None:
        state = "not locked"
    else:
        state = "changed" if changed else "locked"
    known = entry is not None and not changed
    return {
        "name": name,
        "source": declared_as(adapter),
        "method": entry.method if known and entry else None,
        "rank": entry.rank if known and entry else None,
        "digest": entry.digest if known and entry else None,
        "state": state,
        "trainable": adapter.trainable,
        "lazy": adapter.lazy,
        "owner": adapter.owner,
        "tags": list(adapter.tags),
    }


def _print(data: dict[str, Any]) -> None:
    from ..manifests.language.weights import shown, weight_of

    rows = [
        (
            row["name"],
            "active" if row["active"] else "",
            row["method"] or "",
            "" if row["rank"] is None else str(row["rank"]),
            row["state"],
            row["source"],
        )
        for row in data["adapters"]
    ]
    if rows:
        print_table(("adapter", "active", "method", "rank", "lock", "source"), rows, out)
    if data["compositions"]:
        if rows:
            say()
        recipes = [
            (
                one["name"],
                "active" if one["active"] else "",
                one["combine"],
                " + ".join(
                    f"{shown(weight_of(weight))} {name}" for name, weight in one["of"].items()
                ),
            )
            for one in data["compositions"]
        ]
        print_table(("composition", "active", "combine", "of"), recipes, out)
    adapters = counted(len(rows), "adapter")
    more = f", {counted(len(data['compositions']), 'composition')}" if data["compositions"] else ""
    err.line(f"{adapters}{more} for {data['base'] or 'any base'}")
