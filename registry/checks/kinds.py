"""Are the adapted modules of the kind that the factors are for?"""

from __future__ import annotations

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.facts import ModuleKind
from ..files.wording import count, some
from ..methods.method import Method
from .candidate import Subject


def check(subject: Subject) -> list[Finding]:
    """Kinds that the method does not adapt, factors for another kind, and ``fan_in_fan_out``."""
    layout = subject.layout
    if layout is None:
        return []
    wrong: dict[tuple[ModuleKind, str], list[str]] = {}
    kinds: set[ModuleKind] = set()
    of_any: dict[str, frozenset[str]] = {}
    for site in subject.plan.sites:
        module = layout.modules.get(site.module)
        if module is None:
            continue
        of_kind = subject.row(site).kinds
        if site.method == subject.method.peft_type:
            kinds.add(module.kind)
        if site.method not in of_any:
            of_any[site.method] = frozenset(role for roles in of_kind.values() for role in roles)
        factors = of_any[site.method] & site.tensors.keys()
        foreign = sorted(factors - of_kind.get(module.kind, frozenset()))
        if foreign:
            factor = subject.method.spelling(foreign[0])
            wrong.setdefault((module.kind, factor), []).append(site.module)
    findings = [
        codes.KIND_MISMATCH.finding(
            f"{factor} at {count(len(names), 'module')} of kind {kind.value}: {some(names)}",
            subject.where,
            found=f"{factor} on a module of kind {kind.value}",
            expected=_expected(subject.method, kind),
        )
        for (kind, factor), names in wrong.items()
    ]
    return [*findings, *_fan_in_fan_out(subject, kinds)]


def _expected(method: Method, kind: ModuleKind) -> str:
    if kind in method.kinds:
        return " and ".join(method.spelling(role) for role in sorted(method.kinds[kind]))
    return "a module of kind " + ", ".join(k.value for k in method.kinds)


def _fan_in_fan_out(subject: Subject, kinds: set[ModuleKind]) -> list[Finding]:
    said = subject.config.fan_in_fan_out
    if said is None:
        return []
    odd = ModuleKind.LINEAR if said else ModuleKind.CONV1D
    if odd not in kinds:
        return []
    message = f"fan_in_fan_out is {str(said).lower()}, and adapted modules are of kind {odd.value}"
    return [codes.FAN_IN_FAN_OUT.finding(message, subject.where)]
