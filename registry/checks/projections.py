"""VeRA: does the file have the shared matrices that its config says were saved?"""

from __future__ import annotations

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..methods.vera import SHARED as SHARED_ROLES
from ..methods.vera import VeraConfig
from .candidate import Subject, some


def check(subject: Subject) -> list[Finding]:
    """One finding where they, or one of them, are missing. They are then not made again from the
    seed: which numbers a seed gives depends on the machine, and the author chose to save them."""
    config = subject.config
    if not isinstance(config, VeraConfig) or not subject.plan.sites:
        return []
    missing = [role for role in SHARED_ROLES if role not in subject.plan.sites[0].tensors]
    if not missing or (len(missing) == len(SHARED_ROLES) and not config.saved):
        return []
    return [
        codes.HALF_PRESENT.finding(
            f"shared matrices are missing: {some(f'vera_{role}' for role in missing)}",
            subject.where,
            found=f"save_projection: {str(config.saved).lower()}",
            expected="base_model.vera_A and base_model.vera_B",
        )
    ]
