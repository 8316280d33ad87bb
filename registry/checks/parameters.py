"""Does every parameter that ``target_parameters`` selects have factors, and do they tell how they
lie?"""

from __future__ import annotations

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.facts import Layout
from ..files.wording import count, shown, some
from ..methods.lora_parameters import IN_FIRST, is_ambiguous, selected, turned_since
from .candidate import Subject


def check(subject: Subject) -> list[Finding]:
    """One finding for all selected parameters without factors, and one for each entry of the
    config that selects none."""
    layout, config = subject.layout, subject.config
    if layout is None or not config.parameters:
        return []
    present = {(s.module, s.settings.get("parameter")) for s in subject.plan.sites}
    missing: list[str] = []
    unused = dict.fromkeys(config.parameters)
    for live, module in layout.modules.items():
        author = subject.naming.author(live)
        names = [*module.parameters, *layout.unsized.get(live, ())]
        for name in selected(author, config.parameters, names):
            if (live, name) not in present:
                missing.append(f"{live}.{name}")
        for target in list(unused):
            if selected(author, (target,), names):
                del unused[target]
    findings: list[Finding] = []
    if missing:
        findings.append(
            codes.TARGETS_WITHOUT_TENSORS.finding(
                f"{count(len(missing), 'parameter')} selected by the config and without factors: "
                f"{some(missing)}",
                subject.where,
                expected=f"factors, by target_parameters: {some(config.parameters)}",
            )
        )
    if unused and (subject.plan.leftovers or len(unused) == len(set(config.parameters))):
        findings.append(
            codes.PARAMETER_MISSING.finding(
                f"target_parameters names what is no parameter of the base: {some(unused)}",
                subject.where,
            )
        )
    elif unused:  # all factors have a place: PEFT trained none for these
        findings.append(
            codes.PATTERN_UNUSED.finding(
                f"target_parameters has entries for no parameter of the base: {some(unused)}",
                subject.where,
            )
        )
    return [*findings, *_turned(subject, layout)]


def _turned(subject: Subject, layout: Layout) -> list[Finding]:
    """One finding for all factors of experts of which nothing tells which side is `in`."""
    found: list[str] = []
    renamed: set[str] = set()
    for site in subject.plan.sites:
        name = site.settings.get("parameter")
        module = layout.modules.get(site.module)
        shape = () if module is None else module.parameters.get(name or "", ())
        if not is_ambiguous(shape):
            continue
        full = f"{site.module}.{name}"
        if turned_since(full, layout):
            renamed.add(full)
        elif IN_FIRST in site.settings:
            continue
        found.append(full)
    if not found:
        return []
    said = subject.adapter.config.get("peft_version")
    why = f"peft_version: {shown(str(said), 40)}" if said is not None else "no peft_version"
    if renamed:
        why = f"{why}, and transformers 5 has turned these parameters"
    return [
        codes.EXPERTS_UNCLEAR.finding(
            f"{count(len(found), 'parameter')} of experts with two sides of one size, and nothing "
            f"tells which of them A is for: {some(found)}",
            subject.where,
            found=why,
            expected="a released version of PEFT, and parameters that every transformers lays out "
            "alike"
            if renamed
            else "the version of PEFT that trained the adapter",
        )
    ]
