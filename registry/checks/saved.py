"""Are the modules in ``modules_to_save`` stored completely, with the base's shapes?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ...manifests.findings import fit as codes
from ...manifests.findings import loader as loader_codes
from ...manifests.findings.finding import Finding
from ..files.conversion import Shape
from ..files.facts import SIZED, Layout, ModuleKind
from ..files.wording import count, listed, some
from ..methods.places import saved_module
from ..methods.resized import token_modules
from ..methods.tuner_config import TASK_HEADS
from .candidate import Subject
from .vocabulary import resize_hint

_HEADS = frozenset(head for heads in TASK_HEADS.values() for head in heads)
"""PEFT adds these to ``modules_to_save`` by the task, whether or not the model has them."""


def check(subject: Subject, layout: Layout) -> Iterator[Finding]:
    for module, stored in (*subject.plan.saved.items(), *subject.plan.tuned.items()):
        if module in layout.modules and _is_list(layout, module):
            message = f"{module} is a list of modules, which the model never calls"
            yield loader_codes.SAVED_CONTAINER.finding(message)
        elif module in layout.modules:
            yield from _parameters(subject, layout, module, stored)
    yield from _names(subject, layout)


def _is_list(layout: Layout, module: str) -> bool:
    """Whether it is a list of modules, and not a module of which only the weight is read."""
    found = layout.modules[module]
    return not found.called and found.kind is ModuleKind.OTHER and "weight" not in found.parameters


def _parameters(
    subject: Subject, layout: Layout, module: str, stored: Mapping[str, str]
) -> Iterator[Finding]:
    found = {path: subject.tensors[key].shape for path, key in stored.items()}
    wanted = dict(parameters_of(layout, module))
    missing = [p for p in wanted if p not in found and f"{module}.{p}" not in layout.tied]
    packed = layout.packed or ()
    extra = [p for p in found if p not in wanted and f"{module}.{p}" not in packed]
    if missing:
        message = f"The stored {module} lacks {listed(missing, 'parameter')}"
        yield codes.SAVED_MODULE.finding(message, hint=_OF_ANOTHER)
    if extra:
        more = count(len(extra), "tensor")
        message = f"The stored {module} has {more} that the base's lacks: {some(extra)}"
        yield codes.SAVED_MODULE.finding(message, hint=_OF_ANOTHER)
    if unknown := sorted(_unsized(layout, module, found)):
        message = f"Unknown sizes inside the stored {module}: {some(unknown)}"
        yield codes.SIZE_UNKNOWN.finding(message)
    for path, shape in found.items():
        if path in wanted and shape != wanted[path]:
            yield codes.SAVED_MODULE.finding(
                f"{module}.{path} has another shape than the base's",
                found=shape,
                expected=wanted[path],
                hint=_hint(module, layout, shape, wanted[path]),
            )


def _unsized(layout: Layout, module: str, stored: Collection[str]) -> Iterator[str]:
    """Modules inside whose weight is neither in the base's files nor in the adapter's."""
    for name, inner in layout.modules.items():
        hidden = name.startswith(f"{module}.") and inner.kind in SIZED and inner.in_features is None
        if hidden and not any(path.startswith(name[len(module) + 1 :]) for path in stored):
            yield name


_OF_ANOTHER = "Use the base, and the version of its code, that the adapter was trained on."


def _hint(module: str, layout: Layout, found: Shape, wanted: Shape) -> str:
    """Another shape than the base's comes from other labels, other tokens, or another base."""
    if found[1:] != wanted[1:]:
        return _OF_ANOTHER
    if module.rpartition(".")[2] in _HEADS:
        return (
            f"Load the base with {found[0]} labels, as it was when the adapter was trained: "
            f"`num_labels: {found[0]}` under `base`, or num_labels={found[0]} in from_pretrained."
        )
    return resize_hint(found[0]) if module in token_modules(layout) else _OF_ANOTHER


def parameters_of(layout: Layout, module: str) -> Iterator[tuple[str, Shape]]:
    """(path under ``module``, shape) of each parameter and saved buffer in it."""
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
            f"The file has no tensors for {count(len(absent), 'module')} that modules_to_save "
            f"selects: {some(absent)}",
            hint="Save the adapter again from the model that was trained; or remove the name from "
            "modules_to_save if the module was not trained.",
        )
    authors = [subject.naming.author(m) for m in wanted] + list(subject.plan.saved)
    for name in dict.fromkeys(subject.config.modules_to_save):
        if name not in _HEADS and not any(a.endswith(name) for a in authors):
            message = f"modules_to_save names {name!r}, which the base does not have"
            yield codes.SAVED_NAME_UNUSED.finding(message)
