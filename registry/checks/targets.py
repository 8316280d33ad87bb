"""Do the config's targets and the file's tensors name the same modules?"""

from __future__ import annotations

from collections.abc import Iterator

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.facts import TARGET
from ..files.wording import count, some
from .candidate import Subject


def check(subject: Subject) -> Iterator[Finding]:
    """In both directions; that a selected module has tensors needs a layout. Raises
    ``PatternError``."""
    sites = subject.own_sites
    # the config does not name modules that are tied to an embedding
    modules = [site.module for site in sites if "follows" not in site.settings]
    modules += subject.plan.tuned
    if subject.config.targets is None:  # of tokens, the input embedding is meant
        if modules and not (sites and all("indices" in site.settings for site in sites)):
            message = "adapter_config.json does not set target_modules"
            yield codes.TARGETS_UNDECLARED.finding(message)
        return
    yield from _unselected(subject, modules)
    yield from _without_tensors(subject, modules)


def _unselected(subject: Subject, modules: list[str]) -> Iterator[Finding]:
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
    # `modules` reports a module that the base does not have
    odd = [m for m in modules if m not in chosen and (layout is None or m in layout.modules)]
    if odd:
        yield codes.TENSORS_WITHOUT_TARGET.finding(
            f"The file has factors for {count(len(odd), 'module')} that the config does not "
            f"select: {some(odd)}",
            found=_targets(subject),
        )


def _without_tensors(subject: Subject, modules: list[str]) -> Iterator[Finding]:
    layout = subject.layout
    attended = {s.settings[TARGET] for s in subject.plan.sites if TARGET in s.settings}
    present = {*modules, *attended}
    if layout is None or present.isdisjoint(layout.modules):
        return  # `modules` reports an adapter of another model
    selected = [
        *subject.selection.live_modules(layout, subject.naming),
        *subject.method.selects_too(layout, subject.selection, subject.naming),
    ]
    left_out = _tied_modules(subject) if subject.config.ensure_weight_tying else ()
    missing = [m for m in selected if m not in present and m not in left_out]
    if missing:
        missing.sort(key=list(layout.modules).index)
        yield codes.TARGETS_WITHOUT_TENSORS.finding(
            f"The file has no factors for {count(len(missing), 'module')} that the config selects: "
            f"{some(missing)}",
            found=f"factors for {count(len(present), 'module')}",
            expected=f"{len(present) + len(missing)}, by {_targets(subject)}",
        )


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
