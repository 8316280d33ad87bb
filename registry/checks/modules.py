"""Does the base have the modules that the adapter adapts?"""

from __future__ import annotations

from collections.abc import Collection

from ...manifests.codes import fit as codes
from ...manifests.findings import Finding
from ...manifests.names import did_you_mean
from .subject import Subject, count, some


def check(subject: Subject) -> list[Finding]:
    """One finding for all modules that are not there, with where the first may be meant."""
    layout = subject.layout
    if layout is None:
        return []
    plan = subject.plan
    wanted = [*plan.modules, *plan.saved, *plan.tuned, *plan.biases, *plan.embeddings]
    missing = [name for name in dict.fromkeys(wanted) if name not in layout.modules]
    if not missing:
        return []
    first = subject.naming.author(missing[0])
    hint = _too_deep(first, layout.modules) or elsewhere(first, layout.modules)
    if hint is None and len(layout.modules) < 2000:  # a search that compares every pair of names
        hint = did_you_mean(first, layout.modules)
    names = [subject.naming.author(name) for name in missing]
    return [
        codes.MODULE_MISSING.finding(
            f"{len(missing)} of {count(len(set(wanted)), 'adapted module')} "
            f"not in the base: {some(names)}",
            subject.where,
            found=first,
            expected="a module of the base",
            hint=hint,
        )
    ]


def elsewhere(name: str, modules: Collection[str]) -> str | None:
    """The same place under another prefix: ``layers.0.mlp`` for ``model.layers.0.mlp``. A layer
    keeps its number and what the number counts."""
    parts = name.split(".")
    numbered = next((n for n, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
    for skipped in range(max(numbered, 1)):
        tail = ".".join(parts[skipped:])
        found = next((m for m in modules if m == tail or m.endswith(f".{tail}")), None)
        if found is not None:
            return (
                f"the base has {found!r}: the adapter was made for another wrapping of the model, "
                "or for another version of its code"
            )
    return None


def _too_deep(name: str, modules: Collection[str]) -> str | None:
    """Whether the base has that list of layers, and not that many."""
    parts = name.split(".")
    for at, part in enumerate(parts):
        inside = ".".join(parts[:at])
        if part.isdigit() and f"{inside}.0" in modules and f"{inside}.{part}" not in modules:
            numbers = [int(m[len(inside) + 1 :]) for m in modules if _is_item(m, inside)]
            return f"{inside} of the base ends at {max(numbers)}: was it made for a deeper model?"
    return None


def _is_item(module: str, inside: str) -> bool:
    return module.startswith(f"{inside}.") and module[len(inside) + 1 :].isdigit()
