"""How long something took, by name."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

Times = defaultdict[str, list[float]]
"""Seconds of each run, by what was run."""


def timed(times: Times, name: str, act: Callable[[], object]) -> None:
    """Run ``act`` once and note how long it took (seconds)."""
    start = time.perf_counter()
    act()
    times[name].append(time.perf_counter() - start)
