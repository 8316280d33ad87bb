"""Does the base have the modules that the adapter adapts?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ...manifests.language.names import did_you_mean
from ..files.wording import count, some
from .candidate import Subject


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
    possible = [name for name in layout.modules if name not in wanted]
    hint = (
        _wrapped(first)
        or _too_deep(first, layout.modules)
        or elsewhere(first, _fitting(subject, missing[0], possible))
    )
    # a search that compares every pair of names; what PEFT wrapped is no misspelling
    if hint is None and len(layout.modules) < 2000 and "base_layer" not in first.split("."):
        hint = did_you_mean(first, _fitting(subject, missing[0], possible))
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


def _fitting(subject: Subject, wanted: str, modules: Collection[str]) -> Iterator[str]:
    """Those of ``modules`` that could stand for the missing one: its tensors would fit there."""
    assert subject.layout is not None
    site = next((site for site in subject.plan.sites if site.module == wanted), None)
    for name in modules:
        module = subject.layout.modules[name]
        if site is None:
            yield name
            continue
        method = subject.row(site)
        if method.kinds and not method.kinds.get(module.kind, frozenset()) <= site.tensors.keys():
            continue
        if method.kinds and module.kind not in method.kinds:
            continue
        found = {role: subject.tensors[key].shape for role, key in site.tensors.items()}
        expected = method.shapes(site._replace(module=name), module, found)
        if not isinstance(expected, str) and found.items() <= {**found, **expected}.items():
            yield name


def _wrapped(name: str) -> str | None:
    """The way out where the model was wrapped when the adapter was saved."""
    for prefix, wrapper in _WRAPPERS.items():
        if name.startswith(f"{prefix}."):
            return (
                f"The model was saved inside {wrapper} ({prefix}.). Save the adapter from the "
                "model inside it, or rename the tensors: tensors = load_file(FILE); "
                f"save_file({{k.replace('{prefix}.', '', 1): v for k, v in tensors.items()}}, "
                "FILE, metadata={'format': 'pt'}), with safetensors.torch."
            )
    return None


_WRAPPERS = {
    "module": "DistributedDataParallel or DeepSpeed",
    "pretrained_model": "TRL's model with a value head",
}


def elsewhere(name: str, modules: Iterable[str]) -> str | None:
    """The same place under another prefix: ``layers.0.mlp`` for ``model.layers.0.mlp``. A layer
    keeps its number and what the number counts."""
    parts = name.split(".")
    modules = list(modules)
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
