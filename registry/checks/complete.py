"""Is the file complete: does it act at all, and does it have each tensor that it needs?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files import foreign
from ..files.wording import count, listed
from .candidate import Subject

_NAMED = re.compile(r"\.lora_(A|B|embedding_A|embedding_B)\.[^.]+(\.weight)?$")


def check(subject: Subject) -> Iterator[Finding]:
    """Empty adapters, missing factors, unexpected tensors, and those that no field asks for."""
    yield from _empty(subject)
    yield from _missing(subject)
    if leftovers := subject.plan.leftovers:
        yield codes.TENSOR_UNEXPECTED.finding(
            f"No place for {listed(leftovers, 'tensor')}", hint=_hint(leftovers[0])
        )
    yield from _without_option(subject)


def _empty(subject: Subject) -> Iterator[Finding]:
    plan = subject.plan
    stored = plan.saved or plan.biases or plan.embeddings or plan.tuned or plan.prompt
    if plan.peft is not None and not plan.peft.authors:  # which modules it is for needs the base
        stored = stored or (plan.peft.shared and subject.layout is None)
    if not plan.sites and not stored:
        message = f"{subject.name} has no tensor that changes the base"
        yield codes.EMPTY.finding(message, found=count(len(subject.tensors), "tensor"))
    elif not stored and all(site.scale == 0 for site in plan.sites):
        message = f"{subject.name} has a scale of zero at every module"
        yield codes.EMPTY.finding(message, found="alpha: 0", expected="not 0")


def _missing(subject: Subject) -> Iterator[Finding]:
    """Sites without a factor, or without a tensor that a field of the config asks for."""
    config, own = subject.adapter.config, subject.method
    asked = [(role, option) for role, option in own.asked_by.items() if config.get(option)]
    missing: dict[tuple[str, str | None], list[str]] = {}
    for site in subject.plan.sites:
        method, present = subject.row(site), site.tensors.keys()
        for role, option in asked if method is own else ():
            if role not in present:
                missing.setdefault((own.spelling(role), option), []).append(site.module)
        if any(roles <= present for roles in method.role_sets):
            continue
        nearest = max(method.role_sets, key=lambda roles: (len(roles & present), -len(roles)))
        for role in nearest - present:
            missing.setdefault((method.spelling(role), None), []).append(site.module)
    for (name, option), modules in sorted(missing.items(), key=lambda item: item[0][0]):
        yield codes.HALF_PRESENT.finding(
            f"{name} is missing for {listed(modules, 'module')}",
            found="only the other factor" if option is None else f"{option}: true, and no {name}",
            expected=f"{name} for each adapted module",
        )


def _without_option(subject: Subject) -> Iterator[Finding]:
    """Sites with a tensor that no field of the config asks for."""
    asked_by, config = subject.method.asked_by, subject.adapter.config
    found: dict[str, list[str]] = {}
    for site in subject.plan.sites:
        for role, option in asked_by.items():
            if role in site.tensors and not config.get(option):
                found.setdefault(role, []).append(site.module)
    for role, modules in found.items():
        name, option = subject.method.spelling(role), asked_by[role]
        yield codes.TENSOR_UNEXPECTED.finding(
            f"Unexpected {name} for {listed(modules, 'module')}",
            found=f"{name} without {option}",
            hint=f"Set {option} in adapter_config.json to the value of the training.",
        )


def _hint(name: str) -> str | None:
    """Where a tensor of this name comes from, and what to do about it."""
    other = foreign.by_tensors([name])
    if other is not None and other.what != foreign.RENAMED.what:
        return f"This is {other.what}. {other.hint}"
    if not _NAMED.search(name):
        return None
    return f"The name of an adapter is inside. {codes.TENSOR_UNEXPECTED.fix}"
