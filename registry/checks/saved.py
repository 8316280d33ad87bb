"""Are the modules in ``modules_to_save`` stored whole, with the base's shapes?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ...manifests.findings import fit as codes
from ...manifests.findings import loader as loader_codes
from ...manifests.findings.finding import Finding
from ..files.conversion import Shape
from ..files.facts import SIZED, Layout, ModuleKind
from ..files.wording import count, some
from ..methods.places import saved_module
from ..methods.resized import token_modules
from .candidate import Subject
from .vocabulary import resize_hint

TASK_HEADS = frozenset({"score", "classifier", "qa_outputs"})
"""PEFT adds these to ``modules_to_save`` by the task, whether or not the model has them."""


def check(subject: Subject) -> list[Finding]:
    layout = subject.layout
    if layout is None:
        return []
    findings: list[Finding] = []
    for module, stored in (*subject.plan.saved.items(), *subject.plan.tuned.items()):
        if module in layout.modules and _is_list(layout, module):
            findings.append(
                loader_codes.SAVED_CONTAINER.finding(
                    f"{module} is a list of modules, which is never called", subject.where
                )
            )
        elif module in layout.modules:
            findings.extend(_parameters(subject, layout, module, stored))
    return [*findings, *_names(subject, layout)]


def _is_list(layout: Layout, module: str) -> bool:
    """Whether it is not called for what it is, and not because its weight is read."""
    one = layout.modules[module]
    return not one.called and one.kind is ModuleKind.OTHER and "weight" not in one.parameters


def _parameters(
    subject: Subject, layout: Layout, module: str, stored: Mapping[str, str]
) -> Iterator[Finding]:
    found = {path: subject.tensors[key].shape for path, key in stored.items()}
    wanted = dict(parameters_of(layout, module))
    missing = [p for p in wanted if p not in found and f"{module}.{p}" not in layout.tied]
    packed = layout.packed or ()
    extra = [p for p in found if p not in wanted and f"{module}.{p}" not in packed]
    if missing:
        yield codes.SAVED_MODULE.finding(
            f"{module} is stored without {count(len(missing), 'parameter')}: {some(missing)}",
            subject.where,
            hint=_OF_ANOTHER,
        )
    if extra:
        yield codes.SAVED_MODULE.finding(
            f"{module} is stored with {count(len(extra), 'tensor')} that the base's has not: "
            f"{some(extra)}",
            subject.where,
            hint=_OF_ANOTHER,
        )
    if unknown := sorted(_unsized(layout, module, found)):
        yield codes.SIZE_UNKNOWN.finding(
            f"what {module} has to hold is not known: {some(unknown)}", subject.where
        )
    for path, shape in found.items():
        if path in wanted and shape != wanted[path]:
            yield codes.SAVED_MODULE.finding(
                f"{module}.{path} has another shape than the base's",
                subject.where,
                found=shape,
                expected=wanted[path],
                hint=_of_shape(module, layout, shape, wanted[path]),
            )


def _unsized(layout: Layout, module: str, stored: Collection[str]) -> Iterator[str]:
    """Modules inside whose weight is in no file of the base, and not in the adapter's."""
    for name, one in layout.modules.items():
        hidden = name.startswith(f"{module}.") and one.kind in SIZED and one.in_features is None
        if hidden and not any(path.startswith(name[len(module) + 1 :]) for path in stored):
            yield name


_OF_ANOTHER = "Use the base, and the version of its code, that the adapter was trained on."


def _of_shape(module: str, layout: Layout, found: Shape, wanted: Shape) -> str:
    """What another shape than the base's comes from: other labels, other tokens, another base."""
    if found[1:] != wanted[1:]:
        return _OF_ANOTHER
    if module.rpartition(".")[2] in TASK_HEADS:
        return (
            f"Load the base with {found[0]} labels, as it was when the adapter was trained: "
            f"`num_labels: {found[0]}` under `base`, or num_labels={found[0]} in from_pretrained."
        )
    return resize_hint(found[0]) if module in token_modules(layout) else _OF_ANOTHER


def parameters_of(layout: Layout, module: str) -> Iterator[tuple[str, Shape]]:
    """(path under ``module``, shape) of every parameter and saved buffer of it and of what it
    contains."""
    for name, inner in layout.modules.items():
        if name == module or name.startswith(f"{module}."):
            path = name[len(module) + 1 :]
            for own, shape in (*inner.parameters.items(), *inner.buffers.items()):
                yield (f"{path}.{own}" if path else own), shape


def _names(subject: Subject, layout: Layout) -> Iterator[Finding]:
    if not subject.config.modules_to_save:
        return
    wanted = {
        subject.naming.live(module)
        for live in layout.modules
        if (module := saved_module(subject.config, subject.naming.author(live))) is not None
    }
    absent = sorted(
        m for m in wanted if m not in subject.plan.saved and any(parameters_of(layout, m))
    )
    if absent:
        yield codes.SAVED_MODULE.finding(
            f"modules_to_save names {count(len(absent), 'module')} with no tensors in the file: "
            f"{some(absent)}",
            subject.where,
            hint="Save the adapter again from the model that was trained; or remove the name from "
            "modules_to_save if the module was not trained.",
        )
    authors = [subject.naming.author(m) for m in wanted] + list(subject.plan.saved)
    for name in dict.fromkeys(subject.config.modules_to_save):
        if name not in TASK_HEADS and not any(a.endswith(name) for a in authors):
            yield codes.SAVED_NAME_UNUSED.finding(
                f"modules_to_save names {name!r}, which is no module of the base", subject.where
            )
