"""Does every parameter that ``target_parameters`` selects have factors?"""

from __future__ import annotations

from ...manifests.codes import fit as codes
from ...manifests.findings import Finding
from ..methods.lora_config import LoraConfig
from ..methods.lora_parameters import selected
from .subject import Subject, count, some


def check(subject: Subject) -> list[Finding]:
    """One finding for all selected parameters without factors, and one for each entry of the
    config that selects none."""
    layout, config = subject.layout, subject.config
    if layout is None or not isinstance(config, LoraConfig) or not config.parameters:
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
    if unused:
        findings.append(
            codes.PARAMETER_MISSING.finding(
                f"target_parameters names what is no parameter of the base: {some(unused)}",
                subject.where,
            )
        )
    return findings
