"""What a target says of one adapter on a tiny base, from facts alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adapterdock.manifests.findings.finding import Finding, Where
from adapterdock.registry.checks.check_adapter import plan_on
from adapterdock.registry.files.facts import AdapterFacts, BaseFacts
from adapterdock.serving.targets.adapters import check_adapter
from adapterdock.serving.targets.target import Target

from .bad_adapters import TINY, Files, plain
from .builders import Spec, adapter_facts, base_facts

NAME = "adapter_model.safetensors"


def facts_of(files: Files) -> AdapterFacts:
    facts = adapter_facts(files.config, files.tensors)
    return replace(facts, headers={NAME: facts.header})


def asked(
    target: str | Target,
    files: Files | None = None,
    *,
    base: BaseFacts | None = None,
    alone: bool = False,
    **config: Any,
) -> list[Finding]:
    """Findings on ``files`` (or LoRA of q and v with ``config``); ``alone`` without a base."""
    facts = facts_of(files or plain(TINY, **config))
    if base is None and not alone:
        base = base_facts()
    layout = base.layout if base is not None else None
    plan = plan_on(facts, layout)
    assert plan is not None
    aim = Target.parse(target) if isinstance(target, str) else target
    return check_adapter(aim, facts, plan, Where(), layout=layout, base=base)


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


def with_tensors(files: Files, tensors: Mapping[str, Spec], **config: Any) -> Files:
    return replace(files, tensors={**files.tensors, **tensors}, config={**files.config, **config})
