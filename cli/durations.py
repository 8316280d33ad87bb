"""Durations on the command line: ``30s``, ``90m``, ``24h``, ``7d``."""

from __future__ import annotations

import re

_DURATION = re.compile(r"([0-9]{1,6})(s|m|h|d)\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> float | None:
    """Seconds; ``None`` for invalid text."""
    match = _DURATION.match(text)
    return None if match is None else float(int(match[1]) * _SECONDS[match[2]])
