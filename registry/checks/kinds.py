"""Are the adapted modules of the kind that the factors are for?"""

from __future__ import annotations

from ...manifests.codes import fit as codes
from ...manifests.findings import Finding
from ..facts import ModuleKind
from ..targets import TARGETABLE
from .subject import Subject, count, some

_LINEAR_KINDS = (ModuleKind.LINEAR, ModuleKind.CONV1D, ModuleKind.CONV)
_FACTORS_OF = {
    **dict.fromkeys(_LINEAR_KINDS, frozenset({"A", "B"})),
    ModuleKind.EMBEDDING: frozenset({"embedding_A", "embedding_B"}),
}
_MAMBA_TYPES = frozenset({"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"})
_MAMBA_UNCALLED = frozenset({"out_proj", "conv1d"})
_ALL_FACTORS = frozenset({"A", "B", "embedding_A", "embedding_B"})


def check(subject: Subject) -> list[Finding]:
    """Kinds that carry no LoRA, factors for another kind, and ``fan_in_fan_out``."""
    layout = subject.layout
    if layout is None:
        return []
    wrong: dict[tuple[ModuleKind, str], list[str]] = {}
    kinds: set[ModuleKind] = set()
    for site in subject.plan.sites:
        module = layout.modules.get(site.module)
        if module is None:
            continue
        kinds.add(module.kind)
        factors = _ALL_FACTORS & site.tensors.keys()
        foreign = sorted(factors - _FACTORS_OF.get(module.kind, frozenset()))
        if foreign:
            wrong.setdefault((module.kind, f"lora_{foreign[0]}"), []).append(site.module)
    findings = [
        codes.KIND_MISMATCH.finding(
            f"{factor} at {count(len(names), 'module')} of kind {kind.value}: {some(names)}",
            subject.where,
            found=f"{factor} on a module of kind {kind.value}",
            expected=_expected(kind),
        )
        for (kind, factor), names in wrong.items()
    ]
    return [*findings, *_never_called(subject), *_fan_in_fan_out(subject, kinds)]


def _never_called(subject: Subject) -> list[Finding]:
    """Mamba's kernels read some weights without calling their module; PEFT refuses these too."""
    if subject.base is None or subject.base.model_type not in _MAMBA_TYPES:
        return []
    names = [m for m in subject.plan.modules if m.rpartition(".")[2] in _MAMBA_UNCALLED]
    if not names:
        return []
    return [
        codes.KIND_MISMATCH.finding(
            f"{count(len(names), 'module')} that Mamba's kernels never call: {some(names)}",
            subject.where,
            expected="other targets than " + " and ".join(sorted(_MAMBA_UNCALLED)),
            hint="train the adapter without these targets",
        )
    ]


def _expected(kind: ModuleKind) -> str:
    if kind in TARGETABLE:
        return " and ".join(f"lora_{role}" for role in sorted(_FACTORS_OF[kind]))
    return "a linear layer, a convolution or an embedding"


def _fan_in_fan_out(subject: Subject, kinds: set[ModuleKind]) -> list[Finding]:
    said = subject.config.fan_in_fan_out
    odd = ModuleKind.LINEAR if said else ModuleKind.CONV1D
    if odd not in kinds:
        return []
    message = f"fan_in_fan_out is {str(said).lower()}, and adapted modules are of kind {odd.value}"
    return [codes.FAN_IN_FAN_OUT.finding(message, subject.where)]
