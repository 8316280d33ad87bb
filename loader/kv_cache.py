"""Which adapters a key-value cache was filled with: it may be used with no others.

A cache says so by a mark on the object itself, which its copies keep. One without a mark is the
base's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..manifests.codes import loader as codes
from ..manifests.errors import RoutingError
from ..manifests.names import listed
from ..manifests.weights import Weight, shown
from .adapter import Adapter
from .routing import Call

Terms = tuple[tuple[int, str, Weight], ...]
Made = tuple[Terms, ...]
"""The serial numbers, names and weights of each row's adapters; of all rows where there is one
entry."""

_NAMES = ("past_key_values", "cache_params")
_MARK = "_adapterdock_made_with"
_BY_BASE: Made = ((),)


def made_with(call: Call | None) -> Made:
    """What a cache that is filled by ``call`` is made with."""
    if call is None:
        return _BY_BASE
    if call.rows is None:
        return (_of(call.terms),)
    return tuple(_of(routing.terms) for routing in call.rows.routings)


def _of(terms: Iterable[tuple[Adapter, Weight]]) -> Terms:
    return tuple((adapter.serial, adapter.name, weight) for adapter, weight in terms)


def check_cache(call: Call | None, kwargs: Mapping[str, Any]) -> None:
    """Raise :class:`RoutingError` if the caches among a forward's ``kwargs`` were made with other
    adapters than the call's; mark those that are still empty."""
    for cache in _caches(kwargs):
        now = made_with(call)
        if not cache_length(cache):
            _mark(cache, now)
            continue
        made = getattr(cache, _MARK, _BY_BASE)
        if made != now:
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
    for name in _NAMES:
        cache = getattr(output, name, None)
        if cache is not None and not isinstance(cache, tuple) and not hasattr(cache, _MARK):
            _mark(cache, made_with(call))


def _caches(kwargs: Mapping[str, Any]) -> list[Any]:
    found = [kwargs.get(name) for name in _NAMES]
    return [cache for cache in found if cache is not None and hasattr(cache, "get_seq_length")]


def cache_length(cache: Any) -> int:
    """The number of tokens in a cache; 0 for what is none."""
    if not hasattr(cache, "get_seq_length"):
        return 0
    try:
        return int(cache.get_seq_length())
    except (TypeError, ValueError, IndexError, RuntimeError):
        return 0


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
