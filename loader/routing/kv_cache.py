"""The adapters that filled a key-value cache: it may be used with no others.

The cache object itself is marked with them, and its copies keep the mark. A cache without a mark is
the base's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ...manifests.language.names import listed
from ...manifests.language.weights import Weight, shown
from .activation import check_shared, remember
from .cache_length import CACHES, cache_length
from .routing import Call

CacheTerms = tuple[tuple[int, str, Weight], ...]
Made = tuple[CacheTerms, ...]
"""The serial numbers, names and weights of each row's adapters; one entry if all rows are alike."""

_MARK = "_adapterdock_made_with"
_BY_BASE: Made = ((),)


def made_with(call: Call | None, *, before_invocation: bool = False) -> Made:
    """The adapters of a cache that ``call`` fills; with ``before_invocation``, those of its tokens
    before an invocation, where aLoRAs do not act."""
    if call is None:
        return _BY_BASE
    rows = (call.terms,) if call.rows is None else call.rows.terms
    if before_invocation:
        rows = [tuple(term for term in row if term[0].invocation is None) for row in rows]
    found = tuple(tuple((a.serial, a.name, weight) for a, weight in row) for row in rows)
    return _BY_BASE if before_invocation and not any(found) else found


def check_cache(call: Call | None, kwargs: Mapping[str, Any]) -> None:
    """Raise :class:`RoutingError` if a cache among a forward's ``kwargs`` was made with other
    adapters than the call's; mark the empty ones."""
    for cache in _caches(kwargs):
        now = made_with(call)
        if not cache_length(cache):
            _mark(cache, now)
            continue
        made = getattr(cache, _MARK, _BY_BASE)
        activation = None if call is None else call.activation
        if activation is not None and made == made_with(call, before_invocation=True) != now:
            check_shared(activation, type(cache).__name__)
            _mark(cache, now)
        elif made != now:
            was, wanted = _shown(made), _shown(now)
            raise RoutingError(
                codes.CACHE_OF_ANOTHER.finding(
                    f"Other adapters filled this {type(cache).__name__} of {cache_length(cache)} "
                    "tokens",
                    found=was if was != wanted else f"{was}, some of them replaced since then",
                    expected=wanted,
                )
            )


def mark_cache(call: Call | None, output: Any) -> None:
    """Mark the cache that a forward returned."""
    for name in CACHES:
        cache = getattr(output, name, None)
        if cache is None or isinstance(cache, tuple):
            continue
        if not hasattr(cache, _MARK):
            _mark(cache, made_with(call))
        if call is not None and call.activation is not None:
            remember(call.activation, cache)


def _caches(kwargs: Mapping[str, Any]) -> list[Any]:
    found = [kwargs.get(name) for name in CACHES]
    return [cache for cache in found if cache is not None and hasattr(cache, "get_seq_length")]


def _mark(cache: Any, made: Made) -> None:
    if made == _BY_BASE:
        cache.__dict__.pop(_MARK, None)
    else:
        cache.__dict__[_MARK] = made


def _shown(made: Made) -> str:
    """The names of the adapters, for each row if rows differ."""
    rows = [
        " + ".join(name if weight == 1 else f"{shown(weight)} {name}" for _, name, weight in row)
        or "the base alone"
        for row in made
    ]
    return rows[0] if len(rows) == 1 else f"[{listed(rows, 8)}]"
