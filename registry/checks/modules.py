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
    wanted = [*plan.modules, *plan.saved, *plan.biases, *plan.embeddings]
    missing = [name for name in dict.fromkeys(wanted) if name not in layout.modules]
    if not missing:
        return []
    hint = elsewhere(missing[0], layout.modules) or did_you_mean(missing[0], layout.modules)
    return [
        codes.MODULE_MISSING.finding(
            f"the base has no {count(len(missing), 'module')} of the "
            f"{len(set(wanted))} adapted: {some(missing)}",
            subject.where,
            found=missing[0],
            expected="a module of the base",
            hint=hint,
        )
    ]


def elsewhere(name: str, modules: Collection[str]) -> str | None:
    """The same place under another prefix: ``layers.0.mlp`` for ``model.layers.0.mlp``."""
    parts = name.split(".")
    for skipped in range(len(parts) - 1):
        tail = ".".join(parts[skipped:])
        found = next((m for m in modules if m == tail or m.endswith(f".{tail}")), None)
        if found is not None:
            return (
                f"the base has {found!r}: the adapter was made for another wrapping of the model, "
                "or another version of its code"
            )
    return None
