"""Which adapters are active, with which weights, and whether the rules allow them together.

Pure functions, used by the check of a manifest and by the loader at run time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ..findings import language
from ..findings import rules as codes
from ..findings.errors import RoutingError
from ..findings.finding import Finding, Where
from .names import did_you_mean, listed
from .schema import Manifest, Rules
from .weights import Weight, plus, times, weight_of

MAX_NESTING = 32
"""Levels of nested compositions."""


def flatten(
    manifest: Manifest, names: str | Iterable[str] | Mapping[str, float]
) -> dict[str, Weight]:
    """The adapters that ``names`` activate, each with its weight.

    ``names`` is an adapter or composition, several of them (each at weight 1), or a mapping from
    them to weights. A composition counts as its members, each at the weight that it has there
    (times the weight of the composition). An adapter that is reached in several ways has the sum of
    the weights. With a method other than ``sum``, the result says which adapters take part, not
    what the combination computes.

    Raises :class:`RoutingError` for an unknown name, and for a composition that contains itself or
    is nested more than 32 levels deep.
    """
    if isinstance(names, str):
        weights = [(names, 1.0)]
    elif isinstance(names, Mapping):
        weights = list(names.items())
    else:
        weights = [(name, 1.0) for name in names]
    active: dict[str, Weight] = {}
    known: dict[str, Flat] = {}
    for name, weight in weights:
        _add(active, members_of(manifest, name, known).weights, weight)
    return active


def is_made(manifest: Manifest, name: str) -> bool:
    """Whether ``name`` is a composition that is computed as one adapter: not a ``sum``."""
    return name in manifest.compositions and manifest.compositions[name].combine != "sum"


def answering(manifest: Manifest, names: str | Iterable[str]) -> dict[str, Weight]:
    """The adapters that answer where ``names`` are active, each with its weight; a composition of
    another method than ``sum`` counts as one adapter. Raises like :func:`flatten`."""
    every = [names] if isinstance(names, str) else list(names)
    sums = [name for name in every if not is_made(manifest, name)]
    return {**flatten(manifest, sums), **{n: 1.0 for n in every if is_made(manifest, n)}}


@dataclass(frozen=True)
class Flat:
    """The adapters of one name with their weights, and how many levels of compositions it has."""

    weights: Mapping[str, Weight]
    depth: int = 0


def members_of(
    manifest: Manifest, name: str, known: dict[str, Flat], within: tuple[str, ...] = ()
) -> Flat:
    """The adapters of one name at weight 1; ``known`` caches results."""
    if name in manifest.adapters:
        return Flat({name: 1.0})
    if name in known:
        return known[name]
    composition = manifest.compositions.get(name)
    if composition is None:
        raise RoutingError(unknown_adapter(name, [*manifest.adapters, *manifest.compositions]))
    if name in within:
        trail = " > ".join((*within, name))
        message = f"The composition contains itself: {trail}"
        raise RoutingError(language.COMPOSITION_CYCLE.finding(message))
    if len(within) >= MAX_NESTING:
        raise _too_deep(within[0])
    active: dict[str, Weight] = {}
    depth = 0
    for member, weight in composition.of.items():
        inner = members_of(manifest, member, known, (*within, name))
        _add(active, inner.weights, weight_of(weight))
        depth = max(depth, inner.depth + 1)
    if depth > MAX_NESTING:
        raise _too_deep(name)
    known[name] = Flat(active, depth)
    return known[name]


def unknown_adapter(
    name: str,
    known: Collection[str],
    where: Where = Where(),  # noqa: B008 - frozen
    suggest: bool = True,
) -> Finding:
    """A name that no adapter or composition has; ``suggest`` looks for the nearest known one."""
    return language.UNKNOWN_ADAPTER.finding(
        f"Unknown adapter or composition {name!r}",
        where,
        found=name,
        expected=listed(known),
        hint=did_you_mean(name, known) if suggest else None,
    )


def _too_deep(name: str) -> RoutingError:
    return RoutingError(
        language.COMPOSITION_CYCLE.finding(
            f"Compositions are nested too deep in {name!r}",
            expected=f"at most {MAX_NESTING} levels",
        )
    )


def _add(active: dict[str, Weight], more: Mapping[str, Weight], weight: Weight) -> None:
    for adapter, share in more.items():
        part = times(weight, share)
        active[adapter] = plus(active[adapter], part) if adapter in active else part


def cycles(manifest: Manifest, limit: int = 50) -> list[tuple[str, ...]]:
    """The cycles among compositions (the first ``limit``), each from the member reached first."""
    compositions = manifest.compositions
    found: list[tuple[str, ...]] = []
    done: set[str] = set()
    for root in compositions:
        trail = {} if root in done else {root: iter(compositions[root].of)}
        while trail and len(found) < limit:
            name = next(reversed(trail))
            for member in trail[name]:
                if member in trail:
                    names = list(trail)
                    found.append(tuple(names[names.index(member) :]))
                    break
                if member in compositions and member not in done:
                    trail[member] = iter(compositions[member].of)
                    break
            else:
                done.add(name)
                del trail[name]
    return found


def check_active(
    rules: Rules,
    active: Collection[str],
    ranks: Mapping[str, int] | None = None,
    where: Where = Where(),  # noqa: B008 - frozen
) -> list[Finding]:
    """Which rules do not allow these adapters to be active together.

    ``active`` has their names, as :func:`flatten` returns them. ``ranks`` has the largest rank of
    each. Without it (before any file was read) ``max_total_rank`` is not checked; an adapter that
    is missing in it is *unchecked*.
    """
    findings: list[Finding] = []
    for group in rules.exclusive:
        together = [name for name in dict.fromkeys(group) if name in active]
        if len(together) > 1:
            findings.append(
                codes.EXCLUSIVE.finding(
                    f"{_and(together)} cannot be active together",
                    where,
                    found=", ".join(active),
                    expected="at most one of " + ", ".join(group),
                )
            )
    for name, needed in rules.requires.items():
        missing = [other for other in needed if other not in active]
        if name in active and missing:
            findings.append(
                codes.REQUIRED.finding(
                    f"{name!r} is active without {_and(missing)}",
                    where,
                    found=", ".join(active),
                    expected=f"{_and(missing)} active as well",
                )
            )
    if rules.max_active is not None and len(active) > rules.max_active:
        findings.append(
            codes.TOO_MANY_ACTIVE.finding(
                f"{len(active)} adapters would be active together",
                where,
                found=", ".join(active),
                expected=f"at most {rules.max_active}",
            )
        )
    if rules.max_total_rank is not None and ranks is not None:
        findings += _check_ranks(rules.max_total_rank, active, ranks, where)
    return findings


def _check_ranks(
    limit: int, active: Collection[str], ranks: Mapping[str, int], where: Where
) -> list[Finding]:
    total = sum(ranks.get(name, 0) for name in active)
    unknown = [name for name in active if name not in ranks]
    if total > limit:
        summands = ", ".join(f"{name} {ranks[name]}" for name in active if name in ranks)
        return [
            codes.TOTAL_RANK.finding(
                f"The active adapters have a total rank of {total}",
                where,
                found=summands,
                expected=f"at most {limit}",
            )
        ]
    if unknown:
        return [
            codes.RANK_UNKNOWN.finding(
                f"Cannot check the total rank: the rank of {_and(unknown)} is not known",
                where,
                expected=f"at most {limit} in total",
            )
        ]
    return []


def _and(names: Iterable[str]) -> str:
    *first, last = [repr(name) for name in names]
    return f"{', '.join(first)} and {last}" if first else last
