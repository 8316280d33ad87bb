"""`adapterdock diff`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import out, say
from .diff_locks import are_locks, diff_locks, refuse_manifests
from .heat import number
from .options import JsonOption, OfflineOption
from .progress import shown_progress
from .registries import RegistriesOption, RegistryOption, manifest_of
from .render import counted, print_table

if TYPE_CHECKING:
    from ..registry.diffing import Compared, Difference

SCHEMA = "adapterdock.diff/1"
LONGEST = 200
"""Characters of a value of a config."""


def diff(
    first: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="team/refunds@2.1.0, or a source: ./adapter; or a lock: adapters.lock.",
            show_default=False,
        ),
    ],
    second: Annotated[
        str, typer.Argument(metavar="B", help="What it is compared with.", show_default=False)
    ],
    registry: RegistryOption = None,
    manifest: RegistriesOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare two adapters, or two locks.

    Of two adapters, prints how config, targets and metrics differ. Of their weights, prints how
    large the change of each adapter is in each layer, and the cosine between both: 1 means the same
    direction, 0 that they have nothing in common.

    Of two locks (files that end in .lock), prints a sentence for each change. COMMIT:./FILE.lock is
    that of a commit, as for `git show`. /dev/null is a lock that does not exist.

    Examples:

      adapterdock diff team/refunds@2.0.0 team/refunds@2.1.0
      adapterdock diff ./adapter team/refunds@prod
      adapterdock diff ./one ./other --json | jq '.modules'
      adapterdock diff main:./adapters.lock adapters.lock      # what does this branch change?
    """
    if are_locks(first, second):
        diff_locks(first, second, as_json)
        return
    refuse_manifests(first, second)
    from ..registry.diffing import difference, open_side
    from ..registry.store.store import Store

    file = manifest_of(manifest) if registry is None else None
    store = Store.default()
    with shown_progress(f"Reading {first} and {second}") as progress:
        sides = [
            open_side(text, store, registry=registry, file=file, offline=offline, progress=progress)
            for text in (first, second)
        ]
        found = difference(*sides)
    same = sides[0].digest is not None and sides[0].digest == sides[1].digest
    if as_json:
        out.as_json(SCHEMA, {"a": first, "b": second, "same": same, **_describe(found)})
    else:
        _print(found, first, second, same)


def _describe(found: Difference) -> dict[str, Any]:
    def described(row: Compared) -> dict[str, Any]:
        return {"a": row.first, "b": row.second, "cosine": row.cosine}

    layers = [
        {"stack": stack, "layer": layer, **described(row)}
        for (stack, layer), row in found.layers.items()
    ]
    return {
        "config": {key: {"a": a, "b": b} for key, (a, b) in found.config.items()},
        "targets": {"only_a": list(found.only_first), "only_b": list(found.only_second)},
        "metrics": {key: {"a": a, "b": b} for key, (a, b) in found.metrics.items()},
        "layers": layers,
        "modules": {module: described(row) for module, row in found.modules.items()},
        "left_out": dict(found.left_out),
        "why": found.why,
    }


def _print(found: Difference, first: str, second: str, same: bool) -> None:
    say(("A: ", "dim"), first)
    say(("B: ", "dim"), second)
    if same:
        say("Both have the same files")
    if found.config:
        say()
        rows = [(key, _text(a), _text(b)) for key, (a, b) in found.config.items()]
        print_table(("config", "A", "B"), rows, out)
    else:
        say("The configs are the same")
    for name, targets in (("A", found.only_first), ("B", found.only_second)):
        if targets:
            say(f"Only {name} targets {', '.join(targets)}")
    if found.metrics:
        say()
        rows = [(key, _number(a), _number(b)) for key, (a, b) in found.metrics.items()]
        print_table(("metric", "A", "B"), rows, out)
    say()
    if found.why is not None:
        say(f"Weights were not compared: {found.why}")
    if found.layers:
        rows = [
            (
                f"{stack} {'-' if layer is None else layer}".strip(),
                number(row.first),
                number(row.second),
                "-" if row.cosine is None else f"{row.cosine:.4f}",
            )
            for (stack, layer), row in found.layers.items()
        ]
        print_table(("layer", "norm of A", "norm of B", "cosine"), rows, out)
    if found.left_out:
        what = counted(len(found.left_out), "module")
        reasons = ", ".join(dict.fromkeys(found.left_out.values()))
        say(f"Not compared at {what}: {reasons}")


def _text(value: Any) -> str:
    text = "-" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
