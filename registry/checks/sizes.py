"""Do the factors have the in and out sizes of the modules that they adapt?"""

from __future__ import annotations

from collections.abc import Iterator

from ...manifests.codes import fit as codes
from ...manifests.findings import Finding
from ..facts import ModuleKind, ModuleShape, SitePlan
from ..targets import TARGETABLE
from .subject import Subject, count, some

Shape = tuple[int, ...]


def check(subject: Subject) -> list[Finding]:
    """One finding for each (factor, found shape, expected shape)."""
    layout = subject.layout
    if layout is None:
        return []
    wrong: dict[tuple[str, Shape, Shape], list[str]] = {}
    unknown: list[str] = []
    for site in subject.plan.sites:
        module = layout.modules.get(site.module)
        if module is None or module.kind not in TARGETABLE:
            continue
        if module.in_features is None or module.out_features is None:
            unknown.append(site.module)
            continue
        for role, expected in _expected(site, module, module.in_features, module.out_features):
            key = site.tensors.get(role)
            if key is None:
                continue
            found = subject.tensors[key].shape
            # the rank has a check of its own, so here it is taken as it is
            expected = _with_rank(role, expected, found)
            if len(found) >= 2 and 0 not in found and found != expected:
                wrong.setdefault((role, found, expected), []).append(site.module)
    findings = [
        codes.SIZE_MISMATCH.finding(
            f"lora_{role} does not fit {count(len(names), 'module')}: {some(names)}",
            subject.where,
            found=found,
            expected=f"{expected}, by the base's module",
        )
        for (role, found, expected), names in wrong.items()
    ]
    if unknown:
        message = f"the sizes of {count(len(unknown), 'module')} are not known: {some(unknown)}"
        findings.append(codes.SIZE_UNKNOWN.finding(message, subject.where))
    return [*findings, *_groups(subject)]


def _expected(
    site: SitePlan, module: ModuleShape, inside: int, outside: int
) -> Iterator[tuple[str, Shape]]:
    rank = site.rank
    if module.kind is ModuleKind.EMBEDDING:
        yield "embedding_A", (rank, inside)
        yield "embedding_B", (outside, rank)
    elif module.kind is ModuleKind.CONV:
        yield "A", (rank, inside, *module.kernel)
        yield "B", (outside, rank // module.groups, *(1 for _ in module.kernel))
    else:
        yield "A", (rank, inside)
        yield "B", (outside, rank)


def _with_rank(role: str, expected: Shape, found: Shape) -> Shape:
    at = 0 if role.endswith("A") else 1
    if len(found) <= at:
        return expected
    return (*expected[:at], found[at], *expected[at + 1 :])


def _groups(subject: Subject) -> list[Finding]:
    """PEFT needs a rank that the groups of a convolution divide."""
    assert subject.layout is not None
    wrong = [
        site
        for site in subject.plan.sites
        if (module := subject.layout.modules.get(site.module)) is not None
        and site.rank % module.groups
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
            expected=f"a multiple of {subject.layout.modules[names[0]].groups}",
        )
    ]
