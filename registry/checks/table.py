"""The checks of a planned adapter, in the order in which a person wants their findings."""

from __future__ import annotations

from collections.abc import Callable

from ...manifests.findings.finding import Finding
from ..methods.table import Method
from . import (
    alphas,
    base,
    biases,
    kinds,
    modules,
    origin,
    parameters,
    projections,
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
from . import complete as whole
from . import needs_peft as of_peft
from .candidate import Subject

Check = Callable[[Subject], list[Finding]]

_RANKED = (ranks.check, alphas.check)
_PLACES = (unused.check, modules.check, kinds.check, uncalled.check)
_STORED = (saved.check, biases.check, tied.check, vocabulary.check, origin.check)
_REST = (targets.check, parameters.check, projections.check, tokens.check, *_STORED)


def checks_of(method: Method) -> tuple[Check, ...]:
    """The checks for an adapter of this method."""
    if not method.kinds:
        return (base.check, whole.check, modules.check, prompts.check, *_STORED)
    if method.ranked:
        return (base.check, whole.check, *_RANKED, *_PLACES, sizes.check, shapes.check, *_REST)
    if not method.native:
        return (base.check, whole.check, *_PLACES, shapes.check, *_REST, of_peft.check)
    return (base.check, whole.check, alphas.check, *_PLACES, shapes.check, *_REST)
