"""Codes AD751 to AD755: changing a running model, and residency."""

from __future__ import annotations

from .code import Code

BASE_IS_ANOTHER = Code("AD751", "base-is-another")
PLAN_STALE = Code("AD752", "plan-stale")
WATCH_BROKE_OFF = Code("AD753", "watch-broke-off")
RESIDENCY_TOO_SMALL = Code("AD754", "residency-too-small")
RESIDENCY_BUSY = Code("AD755", "residency-busy")
