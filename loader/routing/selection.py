"""From what a user names (an adapter, several, a composition, weights) to a routing."""

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
from ..adapter.adapter import Adapter
from ..adapter.weights import SitePart
from .routing import BASE, Routing

Selection = str | Sequence[str] | Mapping[str, Written] | None
"""A name of an adapter or composition, several names (each at weight 1), names with weights (a
number, or globs of modules to numbers), or ``None`` (as PEFT's ``"__base__"``) for the base
alone."""

Rules = Callable[[Mapping[str, float]], Iterable[Finding]]
"""What a set of weighted adapters breaks; asked once for every set before it is first active. A
weight by module counts as 1; a composition that became an adapter counts as its members."""


class Merged(Protocol):
    """Adapters that are in the base's weights: ``modules`` are those whose parameters changed."""

    @property
    def terms(self) -> tuple[tuple[Adapter, Weight], ...]: ...

    @property
    def modules(self) -> frozenset[str]: ...

    @property
    def weights(self) -> Mapping[str, Weight]: ...


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
    """The routing that ``selection`` means.

    Several adapters are summed, each delta times its weight; an adapter at weight 0 is left out.
    Raises :class:`RoutingError` for what cannot be selected, :class:`PolicyError` for what the
    rules forbid. What is ``merged`` takes part in every answer, and so in what is asked.
    """
    weights = _weights(selection, adapters, compositions)
    terms = tuple((adapters[name], weight) for name, weight in weights.items() if weight)
    beside = merged.terms if merged is not None else ()
    if merged is not None and not terms:
        raise RoutingError(merging_codes.ADAPTERS_MERGED.finding("the base alone cannot answer"))
    problems = conflicts(terms, merged) or mix_problems((*beside, *terms))
    if problems:
        raise RoutingError(*problems)
    check_rules(rules, (*beside, *terms))
    return Routing(terms) if terms else BASE


def taking_part(terms: Iterable[tuple[Adapter, Weight]]) -> dict[str, float]:
    """The adapters that rules are about: those of a composition count one by one."""
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
    """Something hashable that stands for the selection, or ``None`` where nothing does."""
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
    """The composition's weights, checked: known adapters, finite weights, a mix that can be.
    Raises :class:`RoutingError` with ``where`` it was written."""
    try:
        return _checked(name, of, adapters)
    except RoutingError as error:
        raise RoutingError(*(replace(f, where=where) for f in error.findings)) from error


def _checked(
    name: str, of: Mapping[str, Written], adapters: Mapping[str, Adapter]
) -> dict[str, Weight]:
    weights = _weights(of, adapters, {})
    problems = mix_problems([(adapters[n], w) for n, w in weights.items() if w])
    if problems:
        raise RoutingError(*problems)
    if not any(weights.values()):
        raise _invalid(f"the composition {name!r} is empty")
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
        raise _invalid(f"a {type(selection).__name__} selects nothing")
    found: dict[str, Weight] = {}
    problems: list[Finding] = []
    for name, written in wanted:
        if not isinstance(name, str):
            raise _invalid(f"{name!r} is not a name")
        weight = _weight(name, written)
        try:
            members = _expand(name, weight, adapters, compositions)
        except RoutingError as error:
            problems += error.findings
            continue
        problems += _idle(name, weight, [adapters[member] for member in members])
        for member, share in members.items():
            if member in found:
                raise _invalid(f"{member!r} is selected twice")
            found[member] = share
    if problems:
        raise RoutingError(*problems)
    return found


def _idle(name: str, weight: Weight, members: Sequence[Adapter]) -> list[Finding]:
    """Globs of a weight that decide about no module of what it is the weight of."""
    if not isinstance(weight, ModuleWeights):
        return []
    modules = [module for member in members for module in member.modules]
    return [
        codes.WEIGHT_IDLE.finding(
            f"the weight {glob!r} is for no module of {name!r}",
            found=glob,
            expected=", ".join(modules[:3]),
        )
        for glob in weight.idle(modules)
    ]


def _weight(name: str, weight: object) -> Weight:
    """A weight that a caller wrote. Raises :class:`RoutingError` for what is none."""
    if isinstance(weight, ModuleWeights):
        return weight
    if isinstance(weight, Mapping):
        globs = cast("Mapping[object, object]", weight)
        if not globs or not all(isinstance(glob, str) for glob in globs):
            raise _invalid(f"the weight of {name!r} is {dict(globs)}")
        return ModuleWeights.of({str(g): _number(name, one) for g, one in globs.items()})
    return _number(name, weight)


def _number(name: str, weight: object) -> float:
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise _invalid(f"the weight of {name!r} is a {type(weight).__name__}")
    if not math.isfinite(weight):
        raise _invalid(f"the weight of {name!r} is {weight}")
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
    hint = did_you_mean(name, known)
    raise RoutingError(
        codes.ADAPTER_UNKNOWN.finding(
            f"there is no adapter or composition {name!r}",
            found=name,
            expected=", ".join(sorted(known)) or "none is attached",
            hint=hint,
        )
    )


def mix_problems(terms: Iterable[tuple[Adapter, Weight]]) -> list[Finding]:
    """Whole modules and virtual tokens do not add up; factors inside a replaced module would do
    nothing."""
    found: list[Finding] = []
    terms = list(terms)
    prompts = [
        (adapter, weight) for adapter, weight in terms if adapter.resident.prompt is not None
    ]
    if len(prompts) > 1:
        both = ", ".join(repr(adapter.name) for adapter, _ in prompts)
        found.append(codes.PROMPT_MIXED.finding(f"{both} have virtual tokens each"))
    found += [
        codes.PROMPT_MIXED.finding(
            f"{adapter.name!r} has virtual tokens",
            found=f"weight {shown(weight)}",
            expected="weight 1",
        )
        for adapter, weight in prompts
        if weight != 1
    ]
    for at, (adapter, weight) in enumerate(terms):
        if any(weight_at(weight, name) != 1 for name in adapter.whole):
            found.append(
                codes.WHOLE_MODULES_MIXED.finding(
                    f"{adapter.name!r} brings {min(adapter.whole)} whole",
                    found=f"weight {shown(weight)}",
                    expected="weight 1",
                )
            )
        for other, _ in terms[at + 1 :]:
            if both := sorted(adapter.whole & other.whole):
                found.append(
                    codes.WHOLE_MODULES_MIXED.finding(
                        f"{adapter.name!r} and {other.name!r} both bring {both[0]} whole"
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
    """A module of ``inner`` that lies within one that ``outer`` replaces, or that is one and would
    run with other weights."""
    if not outer.whole:
        return None
    prefixes = tuple(f"{name}." for name in outer.whole)
    lost = (name for name in inner.modules if name.startswith(prefixes))
    return next(iter(inner.reweighed & outer.whole), None) or next(lost, None)


def _invalid(message: str) -> RoutingError:
    return RoutingError(codes.SELECTION_INVALID.finding(message))


def conflicts(terms: Iterable[tuple[Adapter, Weight]], merged: Merged | None) -> list[Finding]:
    """Why ``terms`` cannot be active beside what is merged."""
    if merged is None:
        return []
    found: list[Finding] = []
    modules = merged.modules
    for adapter, _ in terms:
        if adapter.merged:
            found.append(
                merging_codes.ADAPTERS_MERGED.finding(
                    f"{adapter.name!r} is merged into the weights"
                )
            )
            continue
        for part in adapter.resident.parts:
            if part.of_input or part.site.module not in modules:
                continue
            if not _rows_apart(part, merged):
                found.append(
                    merging_codes.ADAPTERS_MERGED.finding(
                        f"{adapter.name!r} acts on what {part.site.module} returns, into which "
                        f"{', '.join(merged.weights)} is merged"
                    )
                )
                break
    return found


def _rows_apart(part: SitePart, merged: Merged) -> bool:
    """Whether all that is merged at the part's module are rows of trained tokens (``indices``), and
    others than the part's own: it then finds the base's rows where it acts."""
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
