"""From what a user names (an adapter, several, a composition, weights) to a routing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from ..manifests.codes import loader as codes
from ..manifests.errors import PolicyError, RoutingError
from ..manifests.findings import Finding
from ..manifests.names import BASE_ROW, did_you_mean
from .adapter import Adapter
from .routing import BASE, Routing

Selection = str | Sequence[str] | Mapping[str, float] | None
"""A name of an adapter or composition, several names (each at weight 1), names with weights, or
``None`` (as PEFT's ``"__base__"``) for the base alone."""

Rules = Callable[[Mapping[str, float]], Iterable[Finding]]
"""What a set of weighted adapters breaks; asked once for every set before it is first active."""


def route(
    selection: Selection,
    adapters: Mapping[str, Adapter],
    compositions: Mapping[str, Mapping[str, float]],
    rules: Rules | None = None,
) -> Routing:
    """The routing that ``selection`` means.

    Several adapters are summed, each delta times its weight; an adapter at weight 0 is left out.
    Raises :class:`RoutingError` for what cannot be selected, :class:`PolicyError` for what the
    rules forbid.
    """
    weights = _weights(selection, adapters, compositions)
    terms = tuple((adapters[name], weight) for name, weight in weights.items() if weight)
    problems = mix_problems(terms)
    if problems:
        raise RoutingError(*problems)
    if rules is not None and (broken := list(rules({a.name: w for a, w in terms}))):
        raise PolicyError(*broken)
    return Routing(terms) if terms else BASE


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
    name: str, of: Mapping[str, float], adapters: Mapping[str, Adapter]
) -> dict[str, float]:
    """The composition's weights, checked: known adapters, finite weights, a mix that can be."""
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
    compositions: Mapping[str, Mapping[str, float]],
) -> dict[str, float]:
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
    found: dict[str, float] = {}
    for name, weight in wanted:
        if not isinstance(name, str):
            raise _invalid(f"{name!r} is not a name")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise _invalid(f"the weight of {name!r} is a {type(weight).__name__}")
        if not math.isfinite(weight):
            raise _invalid(f"the weight of {name!r} is {weight}")
        for member, share in _expand(name, float(weight), adapters, compositions).items():
            if member in found:
                raise _invalid(f"{member!r} is selected twice")
            found[member] = share
    return found


def _expand(
    name: str,
    weight: float,
    adapters: Mapping[str, Adapter],
    compositions: Mapping[str, Mapping[str, float]],
) -> dict[str, float]:
    if name in adapters:
        return {name: weight}
    if name in compositions:
        return {member: weight * share for member, share in compositions[name].items()}
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


def mix_problems(terms: Iterable[tuple[Adapter, float]]) -> list[Finding]:
    """Whole modules and virtual tokens do not add up; factors inside a replaced module would do
    nothing."""
    found: list[Finding] = []
    terms = list(terms)
    prompts = [(adapter, weight) for adapter, weight in terms if adapter.prompt is not None]
    if len(prompts) > 1:
        both = ", ".join(repr(adapter.name) for adapter, _ in prompts)
        found.append(codes.PROMPT_MIXED.finding(f"{both} have virtual tokens each"))
    found += [
        codes.PROMPT_MIXED.finding(
            f"{adapter.name!r} has virtual tokens", found=f"weight {weight:g}", expected="weight 1"
        )
        for adapter, weight in prompts
        if weight != 1
    ]
    for at, (adapter, weight) in enumerate(terms):
        if adapter.whole and weight != 1:
            found.append(
                codes.WHOLE_MODULES_MIXED.finding(
                    f"{adapter.name!r} brings {min(adapter.whole)} whole",
                    found=f"weight {weight:g}",
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
    """A module of ``inner`` that lies within one that ``outer`` replaces."""
    if not outer.whole:
        return None
    prefixes = tuple(f"{name}." for name in outer.whole)
    return next((name for name in inner.modules if name.startswith(prefixes)), None)


def _invalid(message: str) -> RoutingError:
    return RoutingError(codes.SELECTION_INVALID.finding(message))
