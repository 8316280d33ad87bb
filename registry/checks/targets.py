"""Do the config's targets and the file's tensors name the same modules?"""

from __future__ import annotations

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.facts import TARGET
from ..files.wording import count, some
from .candidate import Subject


def check(subject: Subject) -> list[Finding]:
    """Both ways; that a selected module has tensors needs a layout. Raises
    ``PatternError``."""
    sites = subject.own_sites
    # what is tied to an embedding is not named by the config
    modules = [site.module for site in sites if "follows" not in site.settings]
    modules += subject.plan.tuned
    if subject.config.targets is None:  # of tokens, the input embedding is meant
        if not modules or (sites and all("indices" in site.settings for site in sites)):
            return []
        message = "adapter_config.json leaves target_modules open"
        return [codes.TARGETS_UNDECLARED.finding(message, subject.where)]
    return [*_unselected(subject, modules), *_without_tensors(subject, modules)]


def _unselected(subject: Subject, modules: list[str]) -> list[Finding]:
    selection = subject.selection
    naming = subject.naming
    layout = subject.layout
    if selection.is_all_linear:
        known = selection.live_modules(layout, naming) if layout is not None else None
        chosen = {m for m in modules if known is None or m in known}
    else:
        chosen = {m for m in modules if selection.selects(naming.author(m))}
    if subject.config.ensure_weight_tying:
        chosen |= _tied_modules(subject)
    # a module that the base does not have is reported as such
    odd = [m for m in modules if m not in chosen and (layout is None or m in layout.modules)]
    if not odd:
        return []
    return [
        codes.TENSORS_WITHOUT_TARGET.finding(
            f"factors for {count(len(odd), 'module')} that the config does not select: {some(odd)}",
            subject.where,
            found=_targets(subject),
        )
    ]


def _without_tensors(subject: Subject, modules: list[str]) -> list[Finding]:
    layout = subject.layout
    attended = {s.settings[TARGET] for s in subject.plan.sites if TARGET in s.settings}
    present = {*modules, *attended}
    if layout is None or present.isdisjoint(layout.modules):
        return []  # an adapter of another model altogether is reported as such
    missing = [
        m for m in subject.selection.live_modules(layout, subject.naming) if m not in present
    ]
    others = subject.method.selects_too(layout, subject.selection, subject.naming)
    missing += [m for m in others if m not in present]
    if subject.config.ensure_weight_tying:
        missing = [m for m in missing if m not in _tied_modules(subject)]
    if not missing:
        return []
    ordered = sorted(missing, key=list(layout.modules).index)
    return [
        codes.TARGETS_WITHOUT_TENSORS.finding(
            f"{count(len(ordered), 'module')} selected by the config and without factors: "
            f"{some(ordered)}",
            subject.where,
            found=f"factors for {count(len(present), 'module')}",
            expected=f"{len(present) + len(ordered)}, by {_targets(subject)}",
        )
    ]


def _tied_modules(subject: Subject) -> set[str]:
    """Both sides of each tie: PEFT adapts them together under ``ensure_weight_tying``."""
    layout = subject.layout
    if layout is None:
        return {site.module for site in subject.own_sites}
    ends = [*layout.tied, *layout.tied.values()]
    return {parameter.rpartition(".")[0] for parameter in ends}


def _targets(subject: Subject) -> str:
    targets = subject.config.targets
    text = targets if isinstance(targets, str) else some(targets or ())
    return f"target_modules: {text[:200]}"
