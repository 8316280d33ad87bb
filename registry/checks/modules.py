"""Does the base have the modules that the adapter adapts?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ...manifests.language.names import did_you_mean
from ..files.facts import Layout
from ..files.wording import count, some
from ..files.wrappers import OUTSIDE
from .candidate import Subject


def check(subject: Subject, layout: Layout) -> Iterator[Finding]:
    """One finding for all missing modules, with a hint where the first may be."""
    plan = subject.plan
    wanted = [*plan.modules, *plan.saved, *plan.tuned, *plan.biases, *plan.embeddings]
    missing = [name for name in dict.fromkeys(wanted) if name not in layout.modules]
    if not missing:
        return
    first = subject.naming.author(missing[0])
    possible = [name for name in layout.modules if name not in wanted]
    hint = (
        _wrapped(first)
        or _too_deep(first, layout.modules)
        or elsewhere(first, _fitting(subject, layout, missing[0], possible))
    )
    # a search that compares every pair of names; PEFT's wrappers are not misspellings
    if hint is None and len(layout.modules) < 2000 and "base_layer" not in first.split("."):
        hint = did_you_mean(first, _fitting(subject, layout, missing[0], possible))
    names = [subject.naming.author(name) for name in missing]
    total = count(len(set(wanted)), "adapted module")
    yield codes.MODULE_MISSING.finding(
        f"The base does not have {len(missing)} of {total}: {some(names)}",
        found=first,
        expected="a module of the base",
        hint=hint,
    )


def _fitting(
    subject: Subject, layout: Layout, wanted: str, modules: Collection[str]
) -> Iterator[str]:
    """Those of ``modules`` at which the missing module's tensors would fit."""
    site = next((site for site in subject.plan.sites if site.module == wanted), None)
    for name in modules:
        module = layout.modules[name]
        if site is None:
            yield name
            continue
        method = subject.row(site)
        needed = method.kinds.get(module.kind)
        if method.kinds and (needed is None or not needed <= site.tensors.keys()):
            continue
        found = {role: subject.tensors[key].shape for role, key in site.tensors.items()}
        expected = method.shapes(site._replace(module=name), module, found)
        if not isinstance(expected, str) and found.items() <= {**found, **expected}.items():
            yield name


def _wrapped(name: str) -> str | None:
    """What to do where the model was wrapped when the adapter was saved."""
    for prefix, wrapper in OUTSIDE.items():
        if name.startswith(f"{prefix}."):
            return (
                f"The model was saved inside {wrapper} ({prefix}.). Save the adapter from the "
                "model inside it, or rename the tensors: tensors = load_file(FILE); "
                f"save_file({{k.replace('{prefix}.', '', 1): v for k, v in tensors.items()}}, "
                "FILE, metadata={'format': 'pt'}), with safetensors.torch."
            )
    return None


def elsewhere(name: str, modules: Iterable[str]) -> str | None:
    """The same module under another prefix: ``layers.0.mlp`` for ``model.layers.0.mlp``. A layer
    keeps its number and the name of its list."""
    parts = name.split(".")
    modules = list(modules)
    numbered = next((n for n, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
    for skipped in range(max(numbered, 1)):
        tail = ".".join(parts[skipped:])
        found = next((m for m in modules if m == tail or m.endswith(f".{tail}")), None)
        if found is not None:
            return (
                f"The base has {found!r}: the adapter was made for a model that is wrapped "
                "differently, or for another version of its code."
            )
    return None


def _too_deep(name: str, modules: Collection[str]) -> str | None:
    """Whether the base has this list of layers, with fewer layers."""
    parts = name.split(".")
    for at, part in enumerate(parts):
        inside = ".".join(parts[:at])
        if part.isdigit() and f"{inside}.0" in modules and f"{inside}.{part}" not in modules:
            items = (module.removeprefix(f"{inside}.") for module in modules)
            last = max(int(item) for item in items if item.isdigit())
            return (
                f"{inside} of the base ends at {last}: the adapter was made for a model "
                "with more layers."
            )
    return None
