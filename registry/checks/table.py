"""The checks of a planned adapter, in the order in which a person reads their findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ...manifests.findings.finding import Finding
from ..files.facts import Layout
from . import (
    alphas,
    base,
    biases,
    complete,
    kinds,
    modules,
    needs_peft,
    origin,
    parameters,
    prompts,
    ranks,
    saved,
    shapes,
    targets,
    tied,
    tokens,
    uncalled,
    unused,
    vocabulary,
)
from .candidate import Subject

Check = Callable[[Subject], Iterable[Finding]]
"""Its findings need no place: ``check_adapter`` puts in the subject's."""
CheckOnBase = Callable[[Subject, Layout], Iterable[Finding]]


def _on_base(check: CheckOnBase) -> Check:
    """``check`` where the base's modules are known, and no findings where they are not."""
    return lambda subject: () if subject.layout is None else check(subject, subject.layout)


def _of_the_method(subject: Subject) -> Iterable[Finding]:
    return subject.method.check_plan(subject.config, subject.plan, subject.where)


CHECKS: tuple[Check, ...] = (
    base.check,
    complete.check,
    ranks.check,
    alphas.check,
    unused.check,
    _on_base(modules.check),
    _on_base(kinds.check),
    _on_base(uncalled.check),
    prompts.check,
    _on_base(shapes.check),
    targets.check,
    _on_base(parameters.check),
    _of_the_method,
    tokens.check,
    _on_base(saved.check),
    _on_base(biases.check),
    _on_base(tied.check),
    _on_base(vocabulary.check_embeddings),
    origin.check,
    needs_peft.check,
)
