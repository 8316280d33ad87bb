"""How many tokens a key-value cache holds."""

from __future__ import annotations

from typing import Any

CACHES = ("past_key_values", "cache_params")
"""The names under which a forward takes and returns caches."""


def cache_length(cache: Any) -> int:
    """The number of tokens in a cache; 0 for anything else."""
    if not hasattr(cache, "get_seq_length"):
        return 0
    try:
        return int(cache.get_seq_length())
    except (TypeError, ValueError, IndexError, RuntimeError):
        return 0
