"""Whether an engine can serve one adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...manifests.findings import serving as codes
from ...manifests.findings.finding import Finding, Where
from ...registry.files.facts import AdapterFacts, AdapterPlan, BaseFacts, Layout
from ...registry.files.wording import shown
from .engine import Feature, How, Need
from .models import models_of
from .needs import LORA, Asked, base_needs, feature_of, needs_of
from .target import Target

_SAVED_AGAIN = (
    "Load it and write it again with `AdaptedModel.save_adapter`, which uses PEFT's names and the "
    "base's."
)
_HINTS: Mapping[Feature, str] = {
    Feature.INIT: "Convert it with PEFT: "
    "save_pretrained(path_initial_model_for_weight_conversion=...).",
    Feature.FILES: _SAVED_AGAIN,
    Feature.KEYS: _SAVED_AGAIN,
    Feature.NAMES: _SAVED_AGAIN,
    Feature.OLDER: _SAVED_AGAIN,
    Feature.PREFIX: _SAVED_AGAIN,
    Feature.NEW: "Train it, and name its folder as `source`.",
    Feature.VOCABULARY: "Save the resized base, and name that as `base.model`.",
}
_TRY = "Try it on the engine, and accept this with `--accept AD948` if the answers are right."


def check_adapter(
    target: Target,
    facts: AdapterFacts,
    plan: AdapterPlan,
    where: Where,
    *,
    layout: Layout | None = None,
    base: BaseFacts | None = None,
) -> list[Finding]:
    """Everything that ``target`` cannot serve of the adapter. Reads nothing.

    Args:
        target: The engine.
        facts: Of the adapter's config and header.
        plan: Where its tensors go.
        where: The place for findings.
        layout: The base's modules, if they are known.
        base: The base's facts, if they are known.

    Returns:
        Findings; none where it can be served.
    """
    if facts.peft_type != LORA:
        return [
            codes.TARGET_CANNOT_SERVE.finding(
                f"{target.title} serves LoRA only",
                where,
                found=shown(str(facts.peft_type), 40),
                expected=LORA,
            )
        ]
    asked = Asked(facts, plan, layout, base)
    findings = [
        finding
        for need in needs_of(asked)
        if (finding := _refused(target, asked, need, where)) is not None
    ]
    return [*findings, *_rank(target, asked, where)]


def check_base(target: Target, base: BaseFacts | None, where: Where) -> list[Finding]:
    """What ``target`` cannot do with the base, whatever the adapters are."""
    if base is None:
        return []
    found = [
        finding
        for need in base_needs(base)
        if (finding := _finding(target, need, target.row.unserved.get(need.feature), where))
    ]
    return [*found, *_architecture(target, base, where)]


def _refused(target: Target, asked: Asked, need: Need, where: Where) -> Finding | None:
    how = target.row.unserved.get(need.feature)
    if need.feature is Feature.HEAD and asked.heads <= target.row.heads:
        how = None if asked.base is not None else How.UNKNOWN
    elif need.feature in (Feature.EMBEDDING, Feature.OUTPUT) and target.row.models:
        how = _beside_linear(target.row.models, asked, need, how)
    return _finding(target, need, how, where)


def _beside_linear(table: str, asked: Asked, need: Need, how: How | None) -> How | None:
    """``how``, unless the engine lists these modules of the architecture as taking LoRA; unknown
    where it does not list the architecture."""
    models = models_of(table)
    name = asked.base.architecture if asked.base is not None else None
    takes = models.serves.get(name or "") if models is not None else None
    if takes is None:
        return How.UNKNOWN
    wanted = {
        site.module.rpartition(".")[2]
        for site in asked.sites
        if feature_of(asked, site) is need.feature
    }
    return None if wanted <= takes else how


def _finding(target: Target, need: Need, how: How | None, where: Where) -> Finding | None:
    if how is None:
        return None
    if how is How.UNKNOWN:
        return codes.TARGET_UNCHECKED.finding(
            f"It is not known whether {target.title} serves {need.feature}",
            where,
            found=shown(need.found),
            hint=_HINTS.get(need.feature, _TRY),
        )
    effect = f": {how.value}" if how.value else ""
    return codes.TARGET_CANNOT_SERVE.finding(
        f"{target.title} does not serve {need.feature}{effect}",
        where,
        found=shown(need.found),
        hint=_HINTS.get(need.feature),
    )


def _architecture(target: Target, base: BaseFacts, where: Where) -> Iterator[Finding]:
    row, name = target.row, base.architecture
    if name is None:
        return
    if row.architectures is not None and name not in row.architectures:
        yield codes.TARGET_CANNOT_SERVE.finding(
            f"Adapters of this architecture cannot be written for {target.title}",
            where,
            found=shown(name, 80),
            expected=", ".join(sorted(row.architectures)),
        )
    models = models_of(row.models)
    if models is None:
        return
    if name in models.without:
        yield codes.TARGET_CANNOT_SERVE.finding(
            f"{target.title} does not serve LoRA on this architecture",
            where,
            found=name,
            hint="Serve it with `adapterdock serve`.",
        )
    elif name not in models.serves:
        yield codes.TARGET_UNCHECKED.finding(
            f"{target.title} does not list this architecture",
            where,
            found=shown(name, 80),
            hint=_TRY,
        )


def _rank(target: Target, asked: Asked, where: Where) -> Iterator[Finding]:
    """The largest rank that the config names, or that a module has."""
    said = (asked.config.get("rank_pattern") or {}).values()
    ranks = [one for one in (asked.config.get("r", 8), *said) if isinstance(one, int)]
    rank = max([*ranks, *(site.rank for site in asked.sites)])
    yield from check_rank(target, rank, where)


def check_rank(
    target: Target, rank: int, where: Where, what: str = "The rank"
) -> Iterator[Finding]:
    """A finding where ``rank`` is larger than the server's limit; it names the value to set."""
    limit, row = target.max_rank, target.row
    if limit is None or rank <= limit:
        return
    enough = next((one for one in row.ranks if one >= rank), None) if row.ranks else rank
    if enough is None:
        hint = f"{target.engine.title} has no larger value. Train an adapter of a smaller rank."
    else:
        own = f"{target.engine.max_rank} {enough}"
        hint = f"Start the server with {own}, and pass --max-rank {enough}."
    yield codes.TARGET_RANK.finding(
        f"{what} is larger than the limit of {target.title}",
        where,
        found=rank,
        expected=f"at most {limit}",
        hint=hint,
    )
