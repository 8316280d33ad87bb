"""Whether an engine can serve a composition, which it does as one adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...manifests.findings import serving as codes
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.names import listed
from ...manifests.language.rules import check_active, flatten, is_made
from ...manifests.language.schema import Manifest
from ...registry.resolution import Opened
from .adapters import check_rank
from .needs import LORA, Asked
from .target import Target


def check_composition(
    target: Target, manifest: Manifest, name: str, adapters: Mapping[str, Opened], where: Where
) -> list[Finding]:
    """Why the composition ``name`` cannot be served as one adapter.

    A ``sum`` of plain LoRA can: its factors side by side are one LoRA, whose rank at each module is
    the sum of the members' there.
    """
    if is_made(manifest, name):  # a sum has only sums in it, by the language
        combine = manifest.compositions[name].combine
        return [
            codes.TARGET_CANNOT_COMBINE.finding(
                f"{target.title} cannot serve a composition by {combine}",
                where,
                found=combine,
                expected="sum",
                hint="Write it as one adapter with `adapterdock export`, and declare that.",
            )
        ]
    members = [one for one in flatten(manifest, name) if one in adapters]
    odd = [one for one in members if not is_plain(adapters[one])]
    if odd:
        return [
            codes.TARGET_CANNOT_COMBINE.finding(
                "Only plain LoRA can be joined to one adapter", where, found=listed(odd)
            )
        ]
    rank = joined_rank(adapters, members)
    what = "The joined rank" if len(members) > 1 else "The rank"
    return list(check_rank(target, rank, where, what))


def is_plain(opened: Opened) -> bool:
    """Whether the adapter is LoRA factors alone, so that it can be joined with others; true for one
    that could not be read."""
    facts, plan = opened.facts, opened.plan
    if facts is None or plan is None:
        return True
    others = (plan.saved, plan.biases, plan.embeddings, plan.tuned, plan.prompt, plan.peft)
    roles = frozenset({"A", "B", "embedding_A", "embedding_B"})
    return (
        facts.peft_type == LORA
        and not any(others)
        and all(site.method == LORA and site.tensors.keys() <= roles for site in plan.sites)
        and not facts.config.get("alora_invocation_tokens")
    )


def joined_rank(adapters: Mapping[str, Opened], members: list[str]) -> int:
    """The largest rank at any module, of these adapters side by side."""
    ranks: dict[str, int] = {}
    for name in members:
        facts, plan = adapters[name].facts, adapters[name].plan
        if facts is not None and plan is not None:
            for site in Asked(facts, plan).sites:
                ranks[site.module] = ranks.get(site.module, 0) + site.rank
    return max(ranks.values(), default=0)


def served_names(manifest: Manifest, ranks: Mapping[str, int]) -> tuple[str, ...]:
    """The names that a server may answer under: the compositions, and the adapters that the rules
    allow to be active alone."""
    alone = [name for name in manifest.adapters if not _forbidden(manifest, name, ranks)]
    return (*alone, *manifest.compositions)


def check_alone(
    target: Target, manifest: Manifest, ranks: Mapping[str, int], where: Mapping[str, Where]
) -> Iterator[Finding]:
    """Adapters that the rules do not allow alone: an engine applies one adapter to a request."""
    within = {
        name: other
        for other in manifest.compositions
        if not is_made(manifest, other)
        for name in flatten(manifest, other)
    }
    for name in manifest.adapters:
        reasons = _forbidden(manifest, name, ranks)
        if not reasons:
            continue
        said = "; ".join(reason.message for reason in reasons)
        if name in within:
            yield codes.TARGET_DIFFERS.finding(
                f"{target.title} does not serve {name} by its own name, only in compositions",
                where[name],
                found=said,
                hint=f"Ask for {within[name]}.",
            )
        else:
            yield codes.TARGET_CANNOT_COMBINE.finding(
                f"{target.title} applies one adapter to a request, and the rules do not allow "
                f"{name} alone",
                where[name],
                found=said,
                hint="Declare a composition by sum of the adapters that belong together.",
            )


def _forbidden(manifest: Manifest, name: str, ranks: Mapping[str, int]) -> list[Finding]:
    return check_active(manifest.rules, {name: 1.0}, ranks, Where())
