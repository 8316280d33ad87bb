"""Are the adapted modules of the kind that the factors are for?"""

from __future__ import annotations

from collections.abc import Iterator

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.facts import Layout, ModuleKind
from ..files.wording import listed
from ..methods.method import Method
from .candidate import Subject


def check(subject: Subject, layout: Layout) -> Iterator[Finding]:
    """Kinds that the method does not adapt, factors for another kind, and ``fan_in_fan_out``."""
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
        if foreign := sorted(factors - of_kind.get(module.kind, frozenset())):
            factor = subject.method.spelling(foreign[0])
            wrong.setdefault((module.kind, factor), []).append(site.module)
    for (kind, factor), names in wrong.items():
        yield codes.KIND_MISMATCH.finding(
            f"{factor} does not fit the kind {kind.value} of {listed(names, 'module')}",
            found=f"{factor} on a module of kind {kind.value}",
            expected=_expected(subject.method, kind),
        )
    said = subject.config.fan_in_fan_out
    odd = ModuleKind.LINEAR if said else ModuleKind.CONV1D
    if said is not None and odd in kinds:
        yield codes.FAN_IN_FAN_OUT.finding(
            f"fan_in_fan_out is {str(said).lower()}, but adapted modules are of kind {odd.value}"
        )


def _expected(method: Method, kind: ModuleKind) -> str:
    if kind in method.kinds:
        return " and ".join(method.spelling(role) for role in sorted(method.kinds[kind]))
    return "a module of kind " + ", ".join(k.value for k in method.kinds)
