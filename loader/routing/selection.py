"""From a user's selection (an adapter, several, a composition, weights) to a routing."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

from ...manifests.findings import loader as codes
from ...manifests.findings import merging as merging_codes
from ...manifests.findings.errors import PolicyError, RoutingError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.names import BASE_ROW, did_you_mean
from ...manifests.language.weights import ModuleWeights, Weight, Written, shown, times, weight_at
from ..adapter.adapter import Adapter, Terms
from ..adapter.weights import SitePart
from .routing import BASE, Routing

Selection = str | Sequence[str] | Mapping[str, Written] | None
"""A name of an adapter or composition, several names (each at weight 1), names with weights (a
number, or globs of modules to numbers), or ``None`` (as PEFT's ``"__base__"``) for the base
alone."""

_WEIGHT = "Pass a finite number."

Rules = Callable[[Mapping[str, float]], Iterable[Finding]]
"""The rules that a set of weighted adapters breaks; called once for each set before it is first
active. A weight by module counts as 1; a composition that became an adapter counts as its
members."""


class Merged(Protocol):
    """Adapters that are in the base's weights: ``modules`` are those whose parameters changed."""

    @property
    def terms(self) -> Terms: ...

    @property
    def modules(self) -> frozenset[str]: ...


def check_rules(rules: Rules | None, terms: Sequence[tuple[Adapter, Weight]]) -> None:
    """Raise :class:`PolicyError` if the rules forbid that these are active together."""
    broken = list(rules(taking_part(terms))) if rules and terms else []
    if broken:
        raise PolicyError(*broken)


def route(
    selection: Selection,
    adapters: Mapping[str, Adapter],
    compositions: Mapping[str, Mapping[str, Weight]],
    rules: Rules | None = None,
    merged: Merged | None = None,
) -> Routing:
    """The routing of ``selection``.

    Several adapters are summed, each delta times its weight; an adapter at weight 0 is left out.
    Raises :class:`RoutingError` for an invalid selection, :class:`PolicyError` for one that the
    rules forbid. The ``merged`` adapters act in every call, so the rules count them too.
    """
    weights = _weights(selection, adapters, compositions)
    terms = tuple((adapters[name], weight) for name, weight in weights.items() if weight)
    every = terms if merged is None else (*merged.terms, *terms)
    if every and not terms:
        message = "Cannot run the base model while adapters are merged"
        raise RoutingError(merging_codes.ADAPTERS_MERGED.finding(message))
    problems = conflicts(terms, merged) or mix_problems(every)
    if problems:
        raise RoutingError(*problems)
    check_rules(rules, every)
    return Routing(terms) if terms else BASE


def taking_part(terms: Iterable[tuple[Adapter, Weight]]) -> dict[str, float]:
    """The adapters that rules count: those of a composition one by one."""
    found: dict[str, float] = {}
    for adapter, weight in terms:
        share = 1.0 if isinstance(weight, ModuleWeights) else weight
        for name, part in (adapter.members or {adapter.name: 1.0}).items():
            found[name] = found.get(name, 0.0) + share * part
    return found


def names_in(selection: Selection) -> frozenset[str]:
    """Every name that a valid selection mentions."""
    if selection is None:
        return frozenset()
    return frozenset([selection] if isinstance(selection, str) else selection)


def without(selection: Selection, gone: Collection[str]) -> Selection:
    """The selection without these names."""
    if selection is None or isinstance(selection, str):
        return None if selection in gone else selection
    if isinstance(selection, Mapping):
        return {name: weight for name, weight in selection.items() if name not in gone}
    return [name for name in selection if name not in gone]


def key_of(selection: Any) -> Any:
    """A hashable key for the selection, or ``None`` if there is none."""
    if isinstance(selection, str):
        return selection
    if isinstance(selection, Mapping):
        items = tuple(cast("Mapping[Any, Any]", selection).items())
        return ("of", items) if all(type(w) in (int, float) for _, w in items) else None
    if isinstance(selection, (list, tuple)):
        names = tuple(cast("Sequence[Any]", selection))
        return names if all(isinstance(name, str) for name in names) else None
    return None


def snapshot(selection: Selection) -> Selection:
    """The selection as it is now, whatever its owner does with the list or mapping later."""
    if isinstance(selection, Mapping):
        return dict(selection)
    return tuple(selection) if isinstance(selection, list) else selection


def check_composition(
    name: str,
    of: Mapping[str, Written],
    adapters: Mapping[str, Adapter],
    where: Where = Where(),  # noqa: B008 - frozen
) -> dict[str, Weight]:
    """The composition's weights, checked: known adapters, finite weights, a possible mix. Raises
    :class:`RoutingError` with ``where`` it was written."""
    try:
        weights = _weights(of, adapters, {})
        if problems := mix_problems([(adapters[n], w) for n, w in weights.items() if w]):
            raise RoutingError(*problems)
        if not any(weights.values()):
            raise _invalid(f"The composition {name!r} is empty")
    except RoutingError as error:
        raise RoutingError(*(replace(f, where=where) for f in error.findings)) from error
    return weights


def _weights(
    selection: object,
    adapters: Mapping[str, Adapter],
    compositions: Mapping[str, Mapping[str, Weight]],
) -> dict[str, Weight]:
    if selection is None or selection == BASE_ROW:
        return {}
    if isinstance(selection, str):
        return _expand(selection, 1.0, adapters, compositions)
    if isinstance(selection, Mapping):
        wanted = list(cast("Mapping[object, object]", selection).items())
    elif isinstance(selection, (list, tuple)):
        wanted = [(name, 1.0) for name in cast("Sequence[object]", selection)]
    else:
        raise _invalid(f"Cannot select adapters by a {type(selection).__name__}")
    found: dict[str, Weight] = {}
    brought: dict[str, str] = {}
    problems: list[Finding] = []
    for name, written in wanted:
        if not isinstance(name, str):
            raise _invalid(f"Invalid adapter name {name!r}")
        weight = _weight(name, written)
        try:
            members = _expand(name, weight, adapters, compositions)
        except RoutingError as error:
            problems += error.findings
            continue
        problems += _idle(name, weight, [adapters[member] for member in members])
        for member, share in members.items():
            if member in found:
                raise _twice(member, brought[member], name)
            found[member], brought[member] = share, name
    if problems:
        raise RoutingError(*problems)
    return found


def _twice(member: str, first: str, second: str) -> RoutingError:
    if first == second:
        return _invalid(f"{member!r} is selected twice")
    hint = f"Write the adapters of the composition instead of its name, and {member!r} once."
    return _invalid(f"{member!r} is selected twice: by {first!r} and by {second!r}", hint)


def _idle(name: str, weight: Weight, members: Sequence[Adapter]) -> list[Finding]:
    """Globs of a weight that match no module of the adapters that have it."""
    if not isinstance(weight, ModuleWeights):
        return []
    modules = [module for member in members for module in member.modules]
    return [
        codes.WEIGHT_IDLE.finding(
            f"The weight {glob!r} does not apply to any module of {name!r}",
            found=glob,
            expected=", ".join(modules[:3]),
        )
        for glob in weight.idle(modules)
    ]


def _weight(name: str, weight: object) -> Weight:
    """A caller's weight. Raises :class:`RoutingError` for an invalid one."""
    if isinstance(weight, ModuleWeights):
        return weight
    if isinstance(weight, Mapping):
        globs = cast("Mapping[object, object]", weight)
        if not globs or not all(isinstance(glob, str) for glob in globs):
            hint = "Pass a finite number, or {glob of modules: number}."
            raise _invalid(f"Invalid weight of {name!r}: {dict(globs)}", hint)
        return ModuleWeights.of({str(g): _number(name, number) for g, number in globs.items()})
    return _number(name, weight)


def _number(name: str, weight: object) -> float:
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise _invalid(f"Invalid weight of {name!r}: a {type(weight).__name__}", _WEIGHT)
    if not math.isfinite(weight):
        raise _invalid(f"Invalid weight of {name!r}: {weight}", _WEIGHT)
    return float(weight)


def _expand(
    name: str,
    weight: Weight,
    adapters: Mapping[str, Adapter],
    compositions: Mapping[str, Mapping[str, Weight]],
) -> dict[str, Weight]:
    if name in adapters:
        return {name: weight}
    if name in compositions:
        members = compositions[name].items()
        return {member: times(weight, share) for member, share in members}
    known = [*adapters, *compositions]
    raise RoutingError(
        codes.ADAPTER_UNKNOWN.finding(
            f"Unknown adapter or composition {name!r}",
            found=name,
            expected=", ".join(sorted(known)) or "an attached adapter; there are none",
            hint=did_you_mean(name, known),
        )
    )


def mix_problems(terms: Iterable[tuple[Adapter, Weight]]) -> list[Finding]:
    """Why adapters cannot be combined: replaced modules and virtual tokens do not add up, and
    factors inside a replaced module would do nothing."""
    found: list[Finding] = []
    terms = list(terms)
    prompts = [(one, weight) for one, weight in terms if one.resident.prompt is not None]
    if len(prompts) > 1:
        names = " and ".join(repr(one.name) for one, _ in prompts)
        found.append(codes.PROMPT_MIXED.finding(f"{names} have virtual tokens each"))
    found += [
        codes.PROMPT_MIXED.finding(
            f"{one.name!r} has virtual tokens", found=f"weight {shown(weight)}", expected="weight 1"
        )
        for one, weight in prompts
        if weight != 1
    ]
    for at, (adapter, weight) in enumerate(terms):
        if any(weight_at(weight, name) != 1 for name in adapter.replaced):
            found.append(
                codes.REPLACEMENTS_MIXED.finding(
                    f"{adapter.name!r} replaces module {min(adapter.replaced)}",
                    found=f"weight {shown(weight)}",
                    expected="weight 1",
                )
            )
        for other, _ in terms[at + 1 :]:
            if both := sorted(adapter.replaced & other.replaced):
                found.append(
                    codes.REPLACEMENTS_MIXED.finding(
                        f"{adapter.name!r} and {other.name!r} both replace module {both[0]}; "
                        "adapters that replace the same module cannot be combined"
                    )
                )
        for other, _ in terms:
            if other is not adapter and (hidden := _inside(adapter, other)):
                found.append(
                    codes.SITE_INSIDE_SAVED.finding(
                        f"{other.name!r} acts on {hidden}, inside a module that "
                        f"{adapter.name!r} replaces"
                    )
                )
    return found


def _inside(outer: Adapter, inner: Adapter) -> str | None:
    """A module of ``inner`` inside one that ``outer`` replaces, or a replaced one that would run
    with other weights."""
    if not outer.replaced:
        return None
    prefixes = tuple(f"{name}." for name in outer.replaced)
    lost = (name for name in inner.modules if name.startswith(prefixes))
    return next(iter(inner.reweighed & outer.replaced), None) or next(lost, None)


def _invalid(message: str, hint: str | None = None) -> RoutingError:
    return RoutingError(codes.SELECTION_INVALID.finding(message, hint=hint))


def conflicts(terms: Iterable[tuple[Adapter, Weight]], merged: Merged | None) -> list[Finding]:
    """Why ``terms`` cannot be active together with the merged adapters."""
    if merged is None:
        return []
    found: list[str] = []
    for adapter, _ in terms:
        if adapter.merged:
            found.append(f"{adapter.name!r} is merged into the weights")
            continue
        changed = (
            part.site.module
            for part in adapter.resident.parts
            if not part.of_input
            and part.site.module in merged.modules
            and not _rows_apart(part, merged)
        )
        if (module := next(changed, None)) is not None:
            found.append(
                f"{adapter.name!r} changes the output of {module}, and "
                f"{', '.join(one.name for one, _ in merged.terms)} is merged into that module"
            )
    return [merging_codes.ADAPTERS_MERGED.finding(message) for message in found]


def _rows_apart(part: SitePart, merged: Merged) -> bool:
    """Whether only rows of trained tokens (``indices``) are merged at the part's module, and none
    of the part's own: those are still the base's."""
    name, mine = part.site.module, part.site.settings.get("indices")
    if mine is None:
        return False
    for adapter, _ in merged.terms:
        if name in adapter.resident.replaced or name in adapter.resident.biases:
            return False
        for other in adapter.resident.parts:
            if other.site.module == name:
                theirs = other.site.settings.get("indices")
                if theirs is None or not set(mine).isdisjoint(theirs):
                    return False
    return True
