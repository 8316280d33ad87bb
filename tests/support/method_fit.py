"""Whether an adapter that PEFT saved fits, and what is said when it was tampered with."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adapterdock.loader.base.layout import layout_of_model
from adapterdock.manifests.findings.finding import Finding
from adapterdock.registry.checks.check_adapter import check_adapter
from adapterdock.registry.files.facts import AdapterFacts, AdapterPlan, Layout, TensorInfo
from adapterdock.registry.files.header import parse_header
from adapterdock.registry.methods.patterns import Patterns
from adapterdock.registry.methods.table import SITES
from torch import nn

COMMON = frozenset({"peft_type", "peft_version", "base_model_name_or_path", "revision"})
AT = "base_model.model."
QUIET = frozenset({"AD363", "AD364", "AD366"})
"""That small adapters record no base."""


def facts_of(folder: Path) -> AdapterFacts:
    """The adapter in ``folder`` as the registry knows it."""
    data = (folder / "adapter_model.safetensors").read_bytes()
    config = json.loads((folder / "adapter_config.json").read_text())
    return AdapterFacts(folder.name, None, config, parse_header(data, len(data)))


def planned(
    method: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    layout: Layout | None = None,
) -> AdapterPlan:
    """The plan of a config with correct fields and these tensors, unchecked."""
    row = SITES[method]
    return row.make_plan(row.read_config(row.own(config)), tensors, layout, Patterns())[0]


def tampered(facts: AdapterFacts, **config: Any) -> AdapterFacts:
    """With other fields in its config; one that is given as ``...`` is left out."""
    fields = {**facts.config, **config}
    return dataclasses.replace(facts, config={n: v for n, v in fields.items() if v is not ...})


def retensored(facts: AdapterFacts, changes: dict[str, tuple[int, ...] | None]) -> AdapterFacts:
    """With tensors of other shapes, by their names without PEFT's prefix; ``None`` removes one."""
    tensors = dict(facts.header.tensors)
    for name, shape in changes.items():
        if shape is None:
            del tensors[AT + name]
        else:
            tensors[AT + name] = TensorInfo("F32", shape)
    return dataclasses.replace(facts, header=dataclasses.replace(facts.header, tensors=tensors))


def look(facts: AdapterFacts, base: nn.Module) -> tuple[list[Finding], AdapterPlan | None]:
    """Every finding that matters, and the plan."""
    findings, plan = check_adapter(facts, None, layout=layout_of_model(base))
    return [f for f in findings if f.code not in QUIET], plan


def codes(facts: AdapterFacts, base: nn.Module) -> list[str]:
    """The codes of the findings, each once."""
    return sorted({finding.code for finding in look(facts, base)[0]})


def text(facts: AdapterFacts, base: nn.Module) -> str:
    """The findings as text."""
    return "\n".join(str(finding) for finding in look(facts, base)[0])


def check_options(peft_type: str, config: Any, older: Iterable[str] = ()) -> None:
    """Every field of PEFT's config is classified, no other but ``older`` ones, each once."""
    fields = {field.name for field in dataclasses.fields(config)} - COMMON
    names = [option.name for option in SITES[peft_type].options]
    assert len(names) == len(set(names))
    assert set(names) == fields | set(older)
