"""The checks of a planned adapter, in the order in which a person reads their findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ...manifests.findings.finding import Finding
from ..files.facts import Layout
from ..methods.method import Method
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
AppliesTo = Callable[[Method], bool]


def _on_base(check: CheckOnBase) -> Check:
    """``check`` where the base's modules are known, and no findings where they are not."""
    return lambda subject: () if subject.layout is None else check(subject, subject.layout)


def _of_the_method(subject: Subject) -> Iterable[Finding]:
    return subject.method.check_plan(subject.config, subject.plan, subject.where)


def _every(method: Method) -> bool:
    return True


def _ranked(method: Method) -> bool:
    return method.ranked


def _on_modules(method: Method) -> bool:
    return bool(method.kinds)


def _on_the_model(method: Method) -> bool:
    return not method.kinds


def _with_alphas(method: Method) -> bool:
    return bool(method.kinds) and method.native


CHECKS: tuple[tuple[Check, AppliesTo], ...] = (
    (base.check, _every),
    (complete.check, _every),
    (ranks.check, _ranked),
    (alphas.check, _with_alphas),
    (unused.check, _on_modules),
    (_on_base(modules.check), _every),
    (_on_base(kinds.check), _on_modules),
    (_on_base(uncalled.check), _on_modules),
    (prompts.check, _on_the_model),
    (_on_base(shapes.check), _on_modules),
    (targets.check, _on_modules),
    (_on_base(parameters.check), _on_modules),
    (_of_the_method, _every),
    (tokens.check, _on_modules),
    (_on_base(saved.check), _every),
    (_on_base(biases.check), _every),
    (_on_base(tied.check), _every),
    (_on_base(vocabulary.check_embeddings), _every),
    (vocabulary.check_tokens, _every),
    (origin.check, _every),
    (needs_peft.check, _every),
)
"""Each with the methods whose adapters it is for."""


def checks_of(method: Method) -> tuple[Check, ...]:
    """The checks for an adapter of this method."""
    return tuple(check for check, applies in CHECKS if applies(method))
