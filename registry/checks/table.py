"""The checks of a planned adapter, in the order in which a person wants their findings."""

from __future__ import annotations

from collections.abc import Callable

from ...manifests.findings import Finding
from . import (
    alphas,
    base,
    biases,
    kinds,
    modules,
    ranks,
    saved,
    sizes,
    targets,
    tied,
    unused,
    vocabulary,
    whole,
)
from .subject import Subject

Check = Callable[[Subject], list[Finding]]

CHECKS: tuple[Check, ...] = (
    base.check,
    whole.check,
    ranks.check,
    alphas.check,
    unused.check,
    modules.check,
    kinds.check,
    sizes.check,
    targets.check,
    saved.check,
    biases.check,
    tied.check,
    vocabulary.check,
)
