"""Are the trained biases in the file, and do they fit the base?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.facts import Layout
from ..files.wording import listed
from .candidate import Subject


def check(subject: Subject, layout: Layout) -> Iterator[Finding]:
    """Each stored bias against the base's, and those that ``bias`` requires."""
    plan, kind = subject.plan, subject.config.bias
    for module, key in plan.biases.items():
        shape = subject.tensors[key].shape
        owner = layout.modules.get(module)
        if owner is None:
            continue
        wanted = owner.parameters.get("bias")
        if wanted != shape:
            yield codes.BIAS_MISMATCH.finding(
                f"The trained bias of {module} does not fit the base's",
                found=shape,
                expected="no bias" if wanted is None else wanted,
            )
    required = trained_biases(kind, layout, plan.modules, (*plan.saved, *plan.tuned))
    # a tied bias is stored once
    absent = (name for name in required if f"{name}.bias" not in layout.tied)
    if missing := [name for name in absent if name not in plan.biases]:
        yield codes.BIAS_MISMATCH.finding(
            f"The file has no trained bias for {listed(missing, 'module')}",
            found=f"bias: {kind}",
            expected="the bias of each of these modules in the file",
        )


def trained_biases(
    kind: str, layout: Layout, adapted: Iterable[str], saved: Collection[str]
) -> list[str]:
    """The live modules whose bias is trained under ``bias: kind``, without those inside ``saved``
    modules, which bring their own."""
    if kind == "none":
        return []
    inside = tuple(f"{name}." for name in saved)
    return [
        name
        for name in (layout.modules if kind == "all" else adapted)
        if name in layout.modules
        and "bias" in layout.modules[name].parameters
        and not f"{name}.".startswith(inside)
    ]
