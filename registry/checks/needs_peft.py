"""Methods that attach through PEFT: only PEFT knows the shapes of their tensors."""

from __future__ import annotations

from collections.abc import Iterator

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from .candidate import Subject


def check(subject: Subject) -> Iterator[Finding]:
    """One finding for each such adapter: the shapes are *unchecked* until PEFT has checked them."""
    if subject.plan.peft is not None:
        method = subject.method.peft_type
        message = f"Only PEFT can check the sizes of the {method} tensors of {subject.name}"
        yield codes.PEFT_SHAPES_UNCHECKED.finding(message, found=method)
