"""Are the trained biases there, and do they fit?"""

from __future__ import annotations

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.facts import Layout
from ..files.wording import count, some
from .candidate import Subject


def check(subject: Subject) -> list[Finding]:
    """Each stored bias against the base's, and those that ``bias`` calls for."""
    layout = subject.layout
    if layout is None:
        return []
    findings: list[Finding] = []
    for module, key in subject.plan.biases.items():
        shape = subject.tensors[key].shape
        owner = layout.modules.get(module)
        if owner is None:
            continue
        wanted = owner.parameters.get("bias")
        if wanted != shape:
            findings.append(
                codes.BIAS_MISMATCH.finding(
                    f"the trained bias of {module} does not fit the base's",
                    subject.where,
                    found=shape,
                    expected="no bias" if wanted is None else wanted,
                )
            )
    missing = [m for m in _called_for(subject, layout) if m not in subject.plan.biases]
    if missing:
        findings.append(
            codes.BIAS_MISMATCH.finding(
                f"no trained bias in the file for {count(len(missing), 'module')}: {some(missing)}",
                subject.where,
                found=f"bias: {subject.config.bias}",
                expected="the bias of each of these modules in the file",
            )
        )
    return findings


def _called_for(subject: Subject, layout: Layout) -> list[str]:
    """Live modules whose bias the config says was trained. Modules in ``modules_to_save`` bring
    their own, and a tied bias is stored once."""
    kind = subject.config.bias
    if kind == "none":
        return []
    candidates = layout.modules if kind == "all" else subject.plan.modules
    saved = tuple(f"{m}." for m in (*subject.plan.saved, *subject.plan.tuned))
    return [
        m
        for m in candidates
        if m in layout.modules
        and "bias" in layout.modules[m].parameters
        and f"{m}.bias" not in layout.tied
        and not f"{m}.".startswith(saved)
    ]
