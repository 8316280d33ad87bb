"""Do the tensors have the shapes that the method needs at the modules that it adapts?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.conversion import Shape
from ..files.facts import SIZED, Layout, ModuleShape, SitePlan
from ..files.wording import listed
from .candidate import Subject
from .vocabulary import resize_hint

_RANK_AXIS: Mapping[str, int] = {"A": 0, "B": 1, "embedding_A": 0, "embedding_B": 1}
"""Where the rank is in the shape of a ranked method's factor."""


def check(subject: Subject, layout: Layout) -> Iterator[Finding]:
    """One finding for each (tensor, found shape, expected shape), for each reason why the method
    cannot adapt a module, and for a rank that the groups of a convolution do not divide."""
    wrong: dict[tuple[str, Shape, Shape], list[str]] = {}
    refused: dict[str, list[str]] = {}
    unknown: list[str] = []
    undivided: list[SitePlan] = []
    tensors = subject.tensors
    for site in subject.plan.sites:
        row, module = subject.row(site), layout.modules.get(site.module)
        if module is None or module.kind not in row.kinds:
            continue  # `modules` or `kinds` reports it
        if row.ranked and site.rank % module.groups:
            undivided.append(site)
        if _is_unsized(site, module, layout):
            unknown.append(site.module)
            continue
        if not row.ranked and not any(roles <= site.tensors.keys() for roles in row.role_sets):
            continue  # `complete` reports it
        found = {role: tensors[key].shape for role, key in site.tensors.items()}
        expected = row.shapes(site, module, found)
        if isinstance(expected, str):
            refused.setdefault(expected, []).append(site.module)
            continue
        for role, shape in found.items():
            right = expected.get(role, shape)
            if shape != right and row.ranked and role in _RANK_AXIS:
                right = _with_rank_of(shape, right, _RANK_AXIS[role])
            if shape != right:
                wrong.setdefault((role, shape, right), []).append(site.module)
    for (role, shape, right), names in wrong.items():
        yield codes.SIZE_MISMATCH.finding(
            f"{subject.method.spelling(role)} does not fit {listed(names, 'module')}",
            found=shape,
            expected=f"{right}, by the base's module",
            hint=resize_hint(shape[1]) if role == "embedding_A" and len(shape) == 2 else None,
        )
    for reason, names in refused.items():
        message = f"{subject.method.peft_type} cannot adapt {listed(names, 'module')}"
        yield codes.SITE_UNSUPPORTED.finding(message, found=reason)
    if unknown:
        yield codes.SIZE_UNKNOWN.finding(f"Unknown sizes of {listed(unknown, 'module')}")
    if undivided:
        names = [site.module for site in undivided]
        yield codes.SIZE_MISMATCH.finding(
            f"The rank is not a multiple of the groups of {listed(names, 'module')}",
            found=f"rank {undivided[0].rank}",
            expected=f"a multiple of {layout.modules[names[0]].groups}",
        )


def _with_rank_of(found: Shape, expected: Shape, axis: int) -> Shape:
    """``expected`` with the rank of ``found``, which `ranks` compares; it reports factors without
    two dimensions or more too."""
    if len(found) < 2 or 0 in found:
        return found
    return (*expected[:axis], found[axis], *expected[axis + 1 :])


def _is_unsized(site: SitePlan, module: ModuleShape, layout: Layout) -> bool:
    parameter = site.settings.get("parameter")
    if parameter is not None:
        return parameter in layout.unsized.get(site.module, ())
    return module.kind in SIZED and None in (module.in_features, module.out_features)
