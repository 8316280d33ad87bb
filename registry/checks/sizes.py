"""Do the factors have the in and out sizes of the modules that they adapt?"""

from __future__ import annotations

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.conversion import Shape
from ..files.facts import Layout, ModuleKind
from ..files.wording import count, some
from ..methods.lora_variants import BLOCKS
from .candidate import Subject
from .vocabulary import resize_hint

_ROLES = {
    ModuleKind.LINEAR: ("A", "B"),
    ModuleKind.CONV1D: ("A", "B"),
    ModuleKind.CONV: ("A", "B"),
    ModuleKind.EMBEDDING: ("embedding_A", "embedding_B"),
}


def check(subject: Subject) -> list[Finding]:
    """One finding for each (factor, found shape, expected shape)."""
    layout = subject.layout
    if layout is None:
        return []
    wrong: dict[tuple[str, Shape, Shape], list[str]] = {}
    unknown: list[str] = []
    refused: dict[str, list[str]] = {}
    tensors = subject.tensors
    for site in subject.own_sites:
        module = layout.modules.get(site.module)
        if module is None or module.kind not in subject.method.kinds:
            continue
        inside, outside, kernel = module.in_features, module.out_features, module.kernel
        if inside is None or outside is None:
            unknown.append(site.module)
            continue
        a, b = _ROLES[module.kind]
        if site.settings and isinstance(reason := subject.method.shapes(site, module, {}), str):
            refused.setdefault(reason, []).append(site.module)
            continue
        cut = site.settings.get(BLOCKS, {})
        for role, rank_at, rest in (
            (a, 0, (inside // cut.get(a, 1), *kernel)),
            (b, 1, (outside, *[1] * len(kernel))),
        ):
            key = site.tensors.get(role)
            shape = tensors[key].shape if key is not None else ()
            # without its rank, which has a check of its own (as impossible shapes have)
            found = shape[:rank_at] + shape[rank_at + 1 :]
            if found != rest and len(shape) >= 2 and 0 not in shape:
                expected = (*rest[:rank_at], shape[rank_at], *rest[rank_at:])
                wrong.setdefault((role, shape, expected), []).append(site.module)
        others = site.tensors.keys() - {a, b} if len(site.tensors) > 2 else ()
        for role in others:
            shape = tensors[site.tensors[role]].shape
            right = subject.method.shapes(site, module, {})
            if isinstance(right, str) or role not in right or not site.rank:
                continue
            if shape != right[role]:
                wrong.setdefault((role, shape, right[role]), []).append(site.module)
    findings = [
        codes.SIZE_MISMATCH.finding(
            f"{subject.method.spelling(role)} does not fit "
            f"{count(len(names), 'module')}: {some(names)}",
            subject.where,
            found=found,
            expected=f"{expected}, by the base's module",
            hint=resize_hint(found[1]) if role == "embedding_A" and len(found) == 2 else None,
        )
        for (role, found, expected), names in wrong.items()
    ]
    for reason, names in refused.items():
        message = f"{subject.method.peft_type} cannot sit as it is on "
        message += f"{count(len(names), 'module')}: {some(names)}"
        findings.append(codes.SITE_UNSUPPORTED.finding(message, subject.where, found=reason))
    if unknown:
        message = f"the sizes of {count(len(unknown), 'module')} are not known: {some(unknown)}"
        findings.append(codes.SIZE_UNKNOWN.finding(message, subject.where))
    return [*findings, *_groups(subject, layout)]


def _groups(subject: Subject, layout: Layout) -> list[Finding]:
    """PEFT needs a rank that the groups of a convolution divide."""
    wrong = [
        site
        for site in subject.own_sites
        if (module := layout.modules.get(site.module)) is not None and site.rank % module.groups
    ]
    if not wrong:
        return []
    names = [site.module for site in wrong]
    return [
        codes.SIZE_MISMATCH.finding(
            f"the rank is no multiple of the groups at {count(len(names), 'module')}: "
            f"{some(names)}",
            subject.where,
            found=f"rank {wrong[0].rank}",
            expected=f"a multiple of {layout.modules[names[0]].groups}",
        )
    ]
