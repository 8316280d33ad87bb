"""Which adapters a key-value cache was filled with: it may be used with no others.

A cache says so by a mark on the object itself, which its copies keep. One without a mark is the
base's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ...manifests.language.names import listed
from ...manifests.language.weights import Weight, shown
from ..adapter.adapter import Adapter
from .activation import check_shared, remember
from .cache_length import CACHES, cache_length
from .routing import Call

CacheTerms = tuple[tuple[int, str, Weight], ...]
Made = tuple[CacheTerms, ...]
"""The serial numbers, names and weights of each row's adapters; of all rows where there is one
entry."""

_MARK = "_adapterdock_made_with"
_BY_BASE: Made = ((),)


def made_with(call: Call | None) -> Made:
    """What a cache that is filled by ``call`` is made with."""
    if call is None:
        return _BY_BASE
    if call.rows is None:
        return (_of(call.terms),)
    return tuple(_of(routing.terms) for routing in call.rows.routings)


def _of(terms: Iterable[tuple[Adapter, Weight]]) -> CacheTerms:
    return tuple((adapter.serial, adapter.name, weight) for adapter, weight in terms)


def _before(call: Call) -> Made:
    """What the tokens before an invocation are made with: aLoRAs do not act there."""
    rows = [call.terms] if call.rows is None else [r.terms for r in call.rows.routings]
    found = tuple(_of(one for one in row if one[0].invocation is None) for row in rows)
    return _BY_BASE if not any(found) else found


def check_cache(call: Call | None, kwargs: Mapping[str, Any]) -> None:
    """Raise :class:`RoutingError` if the caches among a forward's ``kwargs`` were made with other
    adapters than the call's; mark those that are still empty."""
    for cache in _caches(kwargs):
        now = made_with(call)
        if not cache_length(cache):
            _mark(cache, now)
            continue
        made = getattr(cache, _MARK, _BY_BASE)
        if call is not None and call.activation is not None and made == _before(call) != now:
            check_shared(call.activation, type(cache).__name__)
            _mark(cache, now)
        elif made != now:
            was, wanted = _shown(made), _shown(now)
            raise RoutingError(
                codes.CACHE_OF_ANOTHER.finding(
                    f"a {type(cache).__name__} of {cache_length(cache)} tokens was made with other "
                    "adapters",
                    found=was if was != wanted else f"{was}, of which some were replaced since",
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
    """Which adapters those are, for each row where rows differ."""
    rows = [
        " + ".join(name if weight == 1 else f"{shown(weight)} {name}" for _, name, weight in row)
        or "the base alone"
        for row in made
    ]
    return rows[0] if len(rows) == 1 else f"[{listed(rows, 8)}]"
