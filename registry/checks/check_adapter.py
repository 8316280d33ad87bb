"""Does this adapter fit this base? Decided from configs and headers, before any weight is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Severity, Where
from ...manifests.language.source import Source
from ..files.facts import AdapterFacts, AdapterPlan, BaseFacts, Layout, TensorInfo
from ..files.wording import shown
from ..methods import older
from ..methods.heads import unnamed_heads
from ..methods.method import Method
from ..methods.naming import Naming
from ..methods.patterns import PatternError, Patterns
from ..methods.tuner_config import TunerConfig
from . import dtypes, options, recorded_base, saved_together, version, vocabulary
from .candidate import Ask, Subject
from .table import CHECKS


def check_adapter(
    adapter: AdapterFacts,
    base: BaseFacts | None,
    *,
    where: Where = Where(),  # noqa: B008 - frozen
    layout: Layout | None = None,
    declared: Source | None = None,
    aliases: Collection[str] = (),
    recorded: BaseFacts | None = None,
    ask: Ask = Ask(),  # noqa: B008 - frozen
) -> tuple[list[Finding], AdapterPlan | None]:
    """Every finding on ``adapter``, and where its tensors go (``None`` for an invalid config).

    ``layout`` is a live model's, where there is one; else ``base.layout`` is used. Without
    either, the adapter is checked by itself, and a finding says that the rest is *unchecked*.
    ``declared`` is the manifest's ``base.model`` (else ``base.source``), ``aliases`` are the base's
    other names (for a loaded model, also the name that it was loaded by); ``recorded`` is what was
    found under the base's name that the adapter records. ``ask`` answers what no header tells.
    Reads no files by itself, and raises nothing for bad input.
    """
    config = adapter.config
    findings = [*version.check(config, where), *dtypes.check(adapter.header.tensors, where)]
    findings += saved_together.check(config, adapter.header.metadata, where)
    if declared is None and base is not None:
        declared = base.source
    if base is not None or layout is not None or declared is not None:
        findings += recorded_base.check(
            config, where, declared=declared, aliases=aliases, base=base, recorded=recorded
        )
    method, missing = options.check_method(config, where)
    if method is None:
        return [*missing, *findings], None
    wrong_types = options.check_types(config, method, where)
    findings = [*wrong_types, *options.check_options(config, method, where), *findings]
    if wrong_types:
        return findings, None
    own = method.own(config)
    findings += options.check_contradictions(own, where)
    findings += method.check_trained(own, where)
    findings += method.check_config(own, where)
    patterns = Patterns()
    invalid = check_patterns(own, patterns, where)
    if invalid:
        return [*findings, *invalid], None
    try:
        subject, older = _subject(adapter, base, layout, method, patterns, where, ask)
        findings += older
        if any(finding.severity is Severity.ERROR for finding in older):
            return findings, None  # the base does not have the names that the checks look for
        for check in CHECKS:
            findings += [replace(finding, where=where) for finding in check(subject)]
        if not any(finding.severity is Severity.ERROR for finding in findings):
            tokens = vocabulary.check_tokens(subject)  # last, because it reads the tokenizer
            findings += [replace(finding, where=where) for finding in tokens]
    except PatternError as error:
        return [*findings, pattern_finding(error, where)], None
    return findings, subject.plan


def plan_on(adapter: AdapterFacts, layout: Layout | None) -> AdapterPlan | None:
    """Where the adapter's tensors would go, unchecked; ``None`` where its config is invalid."""
    config, patterns = adapter.config, Patterns()
    method, _ = options.check_method(config, Where())
    if method is None or options.check_types(config, method, Where()):
        return None
    if check_patterns(config, patterns, Where()):
        return None
    try:
        return _subject(adapter, None, layout, method, patterns, Where())[0].plan
    except PatternError:
        return None


def _subject(
    adapter: AdapterFacts,
    base: BaseFacts | None,
    layout: Layout | None,
    method: Method,
    patterns: Patterns,
    where: Where,
    ask: Ask = Ask(),  # noqa: B008 - frozen
) -> tuple[Subject, list[Finding]]:
    known = layout if layout is not None or base is None else base.layout
    tensors = stored = adapter.header.tensors
    config, plan, naming = _planned(adapter.config, tensors, known, method, patterns)
    findings: list[Finding] = []
    if known is not None and method.kinds and older.is_older(plan, known):
        findings, conversion = older.read_as_today(adapter, method, config, known, patterns, where)
        if conversion is not None:
            adapter = replace(adapter, config=conversion.config, header=conversion.header)
            tensors = adapter.header.tensors
            config, plan, naming = _planned(adapter.config, tensors, known, method, patterns)
            plan = replace(plan, conversion=conversion)
    subject = Subject(
        adapter, method, config, plan, naming, patterns, base, known, where, stored, ask
    )
    return subject, findings


def _planned(
    said: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    layout: Layout | None,
    method: Method,
    patterns: Patterns,
) -> tuple[TunerConfig, AdapterPlan, Naming]:
    """The typed config and the plan, with the head of the adapter's task, which PEFT up to 0.10
    saves without naming it."""
    config = method.read_config(method.own(said))
    plan, naming = method.make_plan(config, tensors, layout, patterns)
    if heads := unnamed_heads(method.own(said), plan):
        config = replace(config, modules_to_save=(*config.modules_to_save, *heads))
        plan, naming = method.make_plan(config, tensors, layout, patterns)
    return config, plan, naming


def check_patterns(config: Mapping[str, Any], patterns: Patterns, where: Where) -> list[Finding]:
    """Every text that PEFT reads as a pattern must be valid, even if it is never used."""
    texts: list[str] = []
    for name in ("target_modules", "exclude_modules", "feedforward_modules"):
        if isinstance(config.get(name), str):
            texts.append(config[name])
    layers = config.get("layers_pattern") or ()
    texts += [layers] if isinstance(layers, str) else layers
    for name in ("rank_pattern", "alpha_pattern", "modules_to_save"):
        texts += config.get(name) or ()
    findings: list[Finding] = []
    for text in dict.fromkeys(texts):
        try:
            patterns.check(text)
        except PatternError as error:
            findings.append(pattern_finding(error, where))
            if error.too_slow and patterns.exhausted:
                break
    return findings


def pattern_finding(error: PatternError, where: Where) -> Finding:
    """The finding for an invalid pattern of a config."""
    code = codes.PATTERN_TOO_SLOW if error.too_slow else codes.PATTERN_INVALID
    return code.finding(
        f"Invalid pattern {shown(error.pattern, 120)}: {error.reason}",
        where,
        found=shown(error.pattern),
    )
