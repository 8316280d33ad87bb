"""New modules: parts of a class that a checkpoint lacks, such as the head for a task."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..files.conversion import Shape
from ..files.facts import AdapterPlan, Layout, ModuleKind, ModuleShape, TensorInfo
from .task_classes import Size, head_of

_MADE = frozenset(
    {ModuleKind.LINEAR, ModuleKind.CONV1D, ModuleKind.CONV, ModuleKind.EMBEDDING, ModuleKind.NORM}
)


@dataclass(frozen=True)
class NewHead:
    """``modules`` are those that start at random; ``unsized`` are those of them whose sizes only an
    adapter has."""

    modules: tuple[str, ...] = ()
    unsized: tuple[str, ...] = ()


def new_head(
    architecture: str,
    layout: Layout | None,
    config: Mapping[str, Any],
    disk: Mapping[str, TensorInfo],
    labels: int | None,
    replaced: Mapping[str, Shape],
) -> tuple[NewHead, Layout | None]:
    """The new modules of a model of this class, for these tensors on ``disk``, and its ``layout``
    with their sizes. ``replaced`` are their shapes in an adapter, by live name."""
    said = head_of(architecture) or {}
    sizes = {n: _sized(shape, config, labels, replaced.get(n)) for n, shape in said.items()}
    stored = {name: tuple(disk[name].shape) for name in sizes if name in disk}
    new = {n: size for n, size in sizes.items() if n not in stored or size not in (None, stored[n])}
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in new))
    unsized = [n.rpartition(".")[0] for n, shape in said.items() if n in new and None in shape]
    if layout is None:
        return NewHead(tuple(modules), tuple(dict.fromkeys(unsized))), None
    for name in _unfilled(layout) if "quantization_config" not in config else ():
        if name not in modules:
            modules.append(name)
            unsized.append(name)
            sizes |= {k: shape for k, shape in replaced.items() if k.rpartition(".")[0] == name}
    found = dict(layout.modules)
    every = {key.rpartition("."): shape for key, shape in sizes.items() if shape is not None}
    for name in modules:
        own = {leaf: shape for (owner, _, leaf), shape in every.items() if owner == name}
        found[name] = _module(found[name].kind if name in found else ModuleKind.OTHER, own)
    return NewHead(tuple(modules), tuple(dict.fromkeys(unsized))), replace(layout, modules=found)


def not_replaced(plan: AdapterPlan, modules: Collection[str]) -> tuple[str, ...]:
    """Those of the new ``modules`` that an adapter does not replace."""
    inside = tuple(f"{name}." for name in (*plan.saved, *plan.embeddings, *plan.tuned))
    return tuple(name for name in modules if not f"{name}.".startswith(inside))


def labels_of(architecture: str, replaced: Mapping[str, Shape]) -> int | None:
    """The number of labels of an adapter's head of this class."""
    for name, sizes in (head_of(architecture) or {}).items():
        if "num_labels" in sizes and len(replaced.get(name, ())) == len(sizes):
            return replaced[name][sizes.index("num_labels")]
    return None


def _sized(
    sizes: tuple[Size, ...], config: Mapping[str, Any], labels: int | None, replaced: Shape | None
) -> Shape | None:
    """A parameter's shape; sizes that the table does not have are the adapter's."""
    theirs: Shape | tuple[None, ...] = replaced or ()
    if len(theirs) != len(sizes):
        theirs = (None,) * len(sizes)
    from .base_config import hidden_size  # reads a table that few manifests need

    known = {"num_labels": labels, "hidden_size": hidden_size(config)}
    ours = (known[size] if isinstance(size, str) else size for size in sizes)
    found = [other if own is None else own for own, other in zip(ours, theirs, strict=True)]
    return None if None in found else tuple(size for size in found if size is not None)


def _unfilled(layout: Layout) -> Iterator[str]:
    """Modules of the model for which the checkpoint has no tensor."""
    for name, module in layout.modules.items():
        if module.kind in _MADE and not module.parameters and module.in_features is None:
            yield name


def _module(kind: ModuleKind, own: Mapping[str, Shape]) -> ModuleShape:
    weight = own.get("weight", ())
    if kind is ModuleKind.LINEAR and len(weight) == 2:
        return ModuleShape(kind, weight[1], weight[0], own)
    return ModuleShape(kind, parameters=own)
