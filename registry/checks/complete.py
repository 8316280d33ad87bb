"""Is the file whole: does it act at all, has each site both factors, has each tensor a place?"""

from __future__ import annotations

import re

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files import foreign
from ..files.wording import count, some
from .candidate import Subject

_NAMED = re.compile(r"\.lora_(A|B|embedding_A|embedding_B)\.[^.]+(\.weight)?$")


def check(subject: Subject) -> list[Finding]:
    """Empty adapters, half-present pairs, leftovers, and parts that the config does not ask for."""
    return [
        *_empty(subject),
        *_halves(subject),
        *_lacking(subject),
        *_leftovers(subject),
        *_unasked(subject),
    ]


def _empty(subject: Subject) -> list[Finding]:
    plan = subject.plan
    stored = plan.saved or plan.biases or plan.embeddings or plan.tuned or plan.prompt
    if plan.peft is not None and not plan.peft.authors:  # which modules it is for needs the base
        stored = stored or (plan.peft.shared and subject.layout is None)
    if not plan.sites and not stored:
        message = f"{subject.name} has no tensor that acts anywhere"
        return [
            codes.EMPTY.finding(message, subject.where, found=count(len(subject.tensors), "tensor"))
        ]
    if not stored and all(site.scale == 0 for site in plan.sites):
        message = f"{subject.name} has a scale of zero everywhere"
        return [codes.EMPTY.finding(message, subject.where, found="alpha: 0", expected="not 0")]
    return []


def _halves(subject: Subject) -> list[Finding]:
    missing: dict[str, list[str]] = {}
    for site in subject.plan.sites:
        method, present = subject.row(site), site.tensors.keys()
        if any(roles <= present for roles in method.role_sets):
            continue
        nearest = max(method.role_sets, key=lambda roles: (len(roles & present), -len(roles)))
        for role in nearest - present:
            missing.setdefault(method.spelling(role), []).append(site.module)
    return [
        codes.HALF_PRESENT.finding(
            f"{factor} is missing for {count(len(modules), 'module')}: {some(modules)}",
            subject.where,
            found="the other factor alone",
            expected="all factors",
        )
        for factor, modules in sorted(missing.items())
    ]


def _lacking(subject: Subject) -> list[Finding]:
    """Sites without a part that the config says they were trained with."""
    method, config = subject.method, subject.adapter.config
    findings: list[Finding] = []
    for role, option in method.asked_by.items():
        if not config.get(option):
            continue
        modules = [site.module for site in subject.own_sites if role not in site.tensors]
        if modules:
            findings.append(
                codes.HALF_PRESENT.finding(
                    f"{method.spelling(role)} is missing for {count(len(modules), 'module')}: "
                    f"{some(modules)}",
                    subject.where,
                    found=f"{option}: true, and no {method.spelling(role)}",
                    expected=f"{method.spelling(role)} for each adapted module",
                )
            )
    return findings


def _leftovers(subject: Subject) -> list[Finding]:
    names = subject.plan.leftovers
    if not names:
        return []
    return [
        codes.TENSOR_UNEXPECTED.finding(
            f"{count(len(names), 'tensor')} with no place: {some(names)}",
            subject.where,
            hint=_origin(names[0]),
        )
    ]


def _unasked(subject: Subject) -> list[Finding]:
    method = subject.method
    found: dict[str, list[str]] = {}
    for site in subject.plan.sites:
        for role, option in subject.method.asked_by.items():
            if role in site.tensors and not subject.adapter.config.get(option):
                found.setdefault(role, []).append(site.module)
    return [
        codes.TENSOR_UNEXPECTED.finding(
            f"{method.spelling(role)} for {count(len(modules), 'module')}: {some(modules)}",
            subject.where,
            found=f"{method.spelling(role)} without {method.asked_by[role]}",
            hint=f"{method.asked_by[role]} in adapter_config.json must say how it was trained",
        )
        for role, modules in found.items()
    ]


def _origin(name: str) -> str | None:
    """Where a stranger's key comes from, and what to do about it."""
    other = foreign.by_tensors([name])
    if other is not None and other.what != foreign.RENAMED.what:
        return f"This is {other.what}. {other.hint}"
    return f"adapter names inside: {codes.TENSOR_UNEXPECTED.fix}" if _NAMED.search(name) else None
