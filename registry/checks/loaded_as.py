"""How a base is loaded beyond its config.json: the class for a task, the labels, and how many rows
its token embeddings have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.schema import Base
from ...manifests.lockfile import LoadedAs
from ..base.new_head import labels_of, new_head, not_replaced
from ..base.task_classes import class_for, task_of, task_types
from ..files.conversion import Shape
from ..files.facts import AdapterFacts, AdapterPlan, BaseFacts, Layout, TensorInfo, config_as
from ..files.wording import some
from ..methods.resized import resized, token_rows, without_rows
from ..methods.tuner_config import TASK_HEADS
from .check_adapter import plan_on

Locate = Callable[[tuple[str, ...]], Where]
MakeLayout = Callable[[Mapping[str, Any], Mapping[str, TensorInfo]], Layout | None]
"""``make_layout(config, tensors)``: the modules of the model that transformers would load."""


@dataclass(frozen=True)
class Wanted:
    """The base as it has to be loaded, and what is wrong with that."""

    base: BaseFacts
    findings: tuple[Finding, ...] = ()
    unsized: tuple[str, ...] = ()
    """New modules whose sizes only an adapter determines."""

    def check(self, name: str, plan: AdapterPlan | None, where: Where) -> Iterator[Finding]:
        """Findings where the adapter leaves a part of the base random, or is the only source of its
        sizes."""
        base = self.base
        if plan is None or base.loaded_as is None:
            return
        yield from uncovered(base.loaded_as, base.layout, name, plan, where)
        missing = not_replaced(plan, self.unsized)
        if replaced := [name for name in self.unsized if name not in missing]:
            yield codes.SIZE_UNKNOWN.finding(f"Unknown sizes of {some(replaced)}", where)


def uncovered(
    loaded: LoadedAs, layout: Layout | None, name: str, plan: AdapterPlan, where: Where
) -> Iterator[Finding]:
    """Findings where an adapter of this ``plan`` leaves new parts of the base random."""
    if missing := not_replaced(plan, loaded.new):
        yield codes.NEW_UNCOVERED.finding(
            f"Neither {name} nor the base's files hold {some(missing)}",
            where,
            expected=f"{some(loaded.new)} in modules_to_save",
        )
    new = range(loaded.resized_from or 0, loaded.vocab_size or 0)
    if layout is not None and (modules := without_rows(plan, layout, new)):
        yield codes.NEW_UNCOVERED.finding(
            f"{name} does not hold the new rows {new[0]} to {new[-1]} of {some(modules)}",
            where,
            expected="the complete module, or these rows in trainable_token_indices",
        )


def decide(
    base: BaseFacts,
    said: Base,
    adapters: Mapping[str, AdapterFacts],
    locate: Locate,
    make_layout: MakeLayout,
) -> Wanted:
    """How ``base`` is loaded for these ``adapters`` and what the manifest ``said`` about it.

    The task that the manifest names decides the class; else that of the adapters with a part that
    the base's own class lacks. A new adapter has no tensors yet, so its task decides.
    """
    tasks = {n: own for n, adapter in adapters.items() if (own := _task(adapter)) is not None}
    task, name = said.task, base.architecture
    if task is None:  # that of the adapters that need another class than the base's own
        needed = {n: own for n, own in tasks.items() if _needs_another(base, adapters[n], own)}
        if len({*needed.values()}) > 1:
            return Wanted(base, (_mixed(needed, None, locate),))
        task = next(iter(needed.values()), None)
    if task is not None and task_of(name) != task:
        name = class_for(task, base.model_type)
        if name is None:
            kind = base.model_type or "no model_type in config.json"
            message = f"transformers has no class for {task} and a base of this type"
            where = locate(("base", "model" if said.task is None else "task"))
            return Wanted(base, (codes.TASK_CLASS.finding(message, where, found=kind),))
    wanted = _as_class(base, name, said, adapters, make_layout)
    loaded = wanted.base.loaded_as
    if loaded and loaded.architecture and {*tasks.values()} - {task}:
        return Wanted(base, (_mixed(tasks, task, locate),))
    return wanted if said.vocab_size is None else _resized(wanted, said.vocab_size, locate)


# -- the task ---------------------------------------------------------------------------------


def _task(adapter: AdapterFacts) -> str | None:
    task = adapter.config.get("task_type")
    return task if isinstance(task, str) and task in task_types() else None


def _needs_another(base: BaseFacts, adapter: AdapterFacts, task: str) -> bool:
    """Whether the adapter holds modules that the base's own class does not have, or a head for
    another task than that class is for."""
    if base.layout is None:
        return base.architecture is None and class_for(task, base.model_type) is not None
    heads = TASK_HEADS.get(task, ())
    if adapter.source is None and heads and task_of(base.architecture) is None:
        return not any(name.endswith(heads) for name in base.layout.modules)
    has_another = class_for(task, base.model_type) not in (None, base.architecture)
    is_for_another = task_of(base.architecture) not in (None, task)
    if not has_another and not is_for_another:
        return False  # a plan of a large adapter takes a while
    plan = plan_on(adapter, base.layout)
    replaced = () if plan is None else (*plan.saved, *plan.embeddings)
    if any(name not in base.layout.modules for name in replaced):
        return has_another
    return is_for_another and any(name.endswith(heads) for name in replaced if heads)


def _mixed(tasks: Mapping[str, str], task: str | None, locate: Locate) -> Finding:
    """The finding on adapters with other tasks than ``task``, or with several."""
    by_task: dict[str, list[str]] = {}
    for name, wanted in tasks.items():
        by_task.setdefault(wanted, []).append(name)
    said = "; ".join(f"{wanted}: {some(names)}" for wanted, names in sorted(by_task.items()))
    return codes.TASKS_MIXED.finding(
        "The adapters need different classes of the base",
        locate(("adapters",)),
        found=said,
        expected="adapters for one task" if task is None else f"adapters for {task}",
    )


# -- the class and its labels -------------------------------------------------------------------


def _as_class(
    base: BaseFacts,
    name: str | None,
    said: Base,
    adapters: Mapping[str, AdapterFacts],
    make_layout: MakeLayout,
) -> Wanted:
    derived = name if name != base.architecture else None
    declared = said.num_labels or (len(said.id2label) if said.id2label else None)
    if name is None or (derived is None and declared is None):
        return Wanted(base)
    layout = base.layout
    if derived is not None:
        layout = make_layout(config_as(base.config, LoadedAs(architecture=name)), base.tensors)
    replaced = next(_replaced_shapes(adapters, base), {})
    labels = declared or labels_of(name, replaced) or _own_labels(base)
    head, layout = new_head(name, layout, base.config, base.tensors, labels, replaced)
    unchanged = declared == _own_labels(base) and not said.id2label
    if derived is None and not head.modules and unchanged:
        return Wanted(base)
    loaded = LoadedAs(
        architecture=derived,
        num_labels=labels if task_of(name) is not None else None,
        id2label=dict(said.id2label or {}),
        new=head.modules,
    )
    return Wanted(replace(base, layout=layout, loaded_as=loaded), unsized=head.unsized)


def _replaced_shapes(
    adapters: Mapping[str, AdapterFacts], base: BaseFacts
) -> Iterator[Mapping[str, Shape]]:
    """Of each adapter that replaces modules: their parameters' shapes, by live name."""
    for adapter in adapters.values():
        plan = plan_on(adapter, base.layout)
        if plan is not None and plan.saved:
            yield {
                f"{module}.{path}": tuple(adapter.header.tensors[key].shape)
                for module, paths in plan.saved.items()
                for path, key in paths.items()
            }


def _own_labels(base: BaseFacts) -> int | None:
    """How many labels the base's own config.json names; transformers' default is 2."""
    names, number = base.config.get("id2label"), base.config.get("num_labels")
    if isinstance(names, Mapping) and names:
        return len(names)
    return number if isinstance(number, int) and not isinstance(number, bool) else 2


# -- rows -----------------------------------------------------------------------------------------


def _resized(wanted: Wanted, rows: int, locate: Locate) -> Wanted:
    base = wanted.base
    before = None if base.layout is None else token_rows(base.layout)
    if base.layout is None or before is None:
        message = "Cannot resize the base's token embedding, because it is not known"
        where = locate(("base", "vocab_size"))
        finding = codes.VOCABULARY_NOT_RESIZED.finding(message, where, found=f"{rows} rows")
        return replace(wanted, findings=(*wanted.findings, finding))
    if before == rows:
        return wanted
    change = {"vocab_size": rows, "resized_from": before}
    loaded = (base.loaded_as or LoadedAs()).model_copy(update=change)
    return replace(wanted, base=replace(base, layout=resized(base.layout, rows), loaded_as=loaded))
