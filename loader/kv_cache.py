"""Which adapters a key-value cache was filled with: it may be used with no others.

A cache says so by a mark on the object itself, which its copies keep. One without a mark is the
base's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..manifests.codes import loader as codes
from ..manifests.errors import RoutingError
from ..manifests.weights import Weight
from .routing import Call

Terms = tuple[tuple[int, Weight], ...]
Made = tuple[Terms, ...]
"""The serial numbers and weights of each row's adapters; of all rows where there is one entry."""

_NAMES = ("past_key_values", "cache_params")
_MARK = "_adapterdock_made_with"
_BY_BASE: Made = ((),)


def made_with(call: Call | None) -> Made:
    """What a cache that is filled by ``call`` is made with."""
    if call is None:
        return _BY_BASE
    if call.rows is None:
        return (tuple((adapter.serial, weight) for adapter, weight in call.terms),)
    return tuple(
        tuple((adapter.serial, weight) for adapter, weight in routing.terms)
        for routing in call.rows.routings
    )


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
            raise RoutingError(
                codes.CACHE_OF_ANOTHER.finding(
                    f"a {type(cache).__name__} of {cache_length(cache)} tokens was made with "
                    f"{_shown(made)}",
                    expected=_shown(now),
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
    if made == _BY_BASE:
        return "the base alone"
    count = len({serial for row in made for serial, _ in row})
    return f"{count} adapters" if count != 1 else "another adapter or weight"
