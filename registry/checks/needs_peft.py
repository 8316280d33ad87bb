"""Methods that attach through PEFT: what only PEFT can tell of their tensors."""

from __future__ import annotations

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from .candidate import Subject


def check(subject: Subject) -> list[Finding]:
    """One finding for each such adapter: the shapes are *unchecked*. Asking PEFT settles it."""
    if subject.plan.peft is None:
        return []
    method = subject.method.peft_type
    return [
        codes.PEFT_SHAPES_UNCHECKED.finding(
            f"whether the tensors of {subject.name} have the sizes that {method} needs is known to "
            "PEFT alone",
            subject.where,
            found=method,
        )
    ]
