"""Do the tensors have the shapes that the method needs at the modules that it adapts?"""

from __future__ import annotations

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.conversion import Shape
from ..files.facts import SIZED, Layout, ModuleShape, SitePlan
from ..files.wording import count, some
from .candidate import Subject


def check(subject: Subject) -> list[Finding]:
    """One finding for each (tensor, found shape, expected shape), and for each reason why the
    method cannot sit on a module. Factors with a rank have a check of their own."""
    layout = subject.layout
    if layout is None:
        return []
    wrong: dict[tuple[str, Shape, Shape], list[str]] = {}
    refused: dict[str, list[str]] = {}
    unknown: list[str] = []
    # a LoRA of plain factors has none of these
    sites = [site for site in subject.plan.sites if not subject.row(site).ranked]
    for site in sites:
        row, module = subject.row(site), layout.modules.get(site.module)
        if module is None or module.kind not in row.kinds:
            continue  # reported as such
        if _is_unsized(site, module, layout):
            unknown.append(site.module)
            continue
        if not any(roles <= site.tensors.keys() for roles in row.role_sets):
            continue  # reported as incomplete
        found = {role: subject.tensors[key].shape for role, key in site.tensors.items()}
        expected = row.shapes(site, module, found)
        if isinstance(expected, str):
            refused.setdefault(expected, []).append(site.module)
            continue
        for role, shape in found.items():
            if shape != (right := expected.get(role, shape)):
                wrong.setdefault((role, shape, right), []).append(site.module)
    findings = [
        codes.SIZE_MISMATCH.finding(
            f"{subject.method.spelling(role)} does not fit {count(len(names), 'module')}: "
            f"{some(names)}",
            subject.where,
            found=found,
            expected=f"{expected}, by the base's module",
        )
        for (role, found, expected), names in wrong.items()
    ]
    for reason, names in refused.items():
        where = f"{count(len(names), 'module')}: {some(names)}"
        message = f"{subject.method.peft_type} cannot sit as it is on {where}"
        findings.append(codes.SITE_UNSUPPORTED.finding(message, subject.where, found=reason))
    if unknown:
        message = f"the sizes of {count(len(unknown), 'module')} are not known: {some(unknown)}"
        findings.append(codes.SIZE_UNKNOWN.finding(message, subject.where))
    return findings


def _is_unsized(site: SitePlan, module: ModuleShape, layout: Layout) -> bool:
    parameter = site.settings.get("parameter")
    if parameter is not None:
        return parameter in layout.unsized.get(site.module, ())
    return module.kind in SIZED and None in (module.in_features, module.out_features)
