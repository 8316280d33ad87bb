"""The checks of a planned adapter, in the order in which a person wants their findings."""

from __future__ import annotations

from collections.abc import Callable

from ...manifests.findings.finding import Finding
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
    sizes,
    targets,
    tied,
    tokens,
    uncalled,
    unused,
    vocabulary,
)
from .candidate import Subject

Check = Callable[[Subject], list[Finding]]
Asked = Callable[[Method], bool]


def _of_its_own(subject: Subject) -> list[Finding]:
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


def _through_peft(method: Method) -> bool:
    return not method.native


CHECKS: tuple[tuple[Check, Asked], ...] = (
    (base.check, _every),
    (complete.check, _every),
    (ranks.check, _ranked),
    (alphas.check, _with_alphas),
    (unused.check, _on_modules),
    (modules.check, _every),
    (kinds.check, _on_modules),
    (uncalled.check, _on_modules),
    (prompts.check, _on_the_model),
    (sizes.check, _ranked),
    (shapes.check, _on_modules),
    (targets.check, _on_modules),
    (parameters.check, _on_modules),
    (_of_its_own, _every),
    (tokens.check, _on_modules),
    (saved.check, _every),
    (biases.check, _every),
    (tied.check, _every),
    (vocabulary.check, _every),
    (origin.check, _every),
    (needs_peft.check, _through_peft),
)
"""Each with the methods whose adapters it is for."""


def checks_of(method: Method) -> tuple[Check, ...]:
    """The checks for an adapter of this method."""
    return tuple(check for check, asked in CHECKS if asked(method))
