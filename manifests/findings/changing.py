"""Codes AD751 to AD755: changing a running model, and residency."""

from __future__ import annotations

from .code import Code
from .finding import Severity

BASE_IS_ANOTHER = Code(
    "AD751",
    "base-is-another",
    Severity.ERROR,
    "The manifest is for another base than the one that is running.",
    "load the manifest anew with adapterdock.load, or keep `base` as it is",
)
PLAN_STALE = Code(
    "AD752",
    "plan-stale",
    Severity.ERROR,
    "The plan was made for another state of the model, or of the adapters, than the present one.",
    "make the plan again, and apply that one",
)
WATCH_BROKE_OFF = Code(
    "AD753",
    "watch-broke-off",
    Severity.ERROR,
    "Following the manifest broke off in a way that no check foresees.",
    "see the cause; `model.plan(path)` and `model.apply(plan)` show it where you can debug it",
)
RESIDENCY_TOO_SMALL = Code(
    "AD754",
    "residency-too-small",
    Severity.ERROR,
    "The residency budget has no room for this, whatever else makes room.",
    "raise the budget, or use fewer or smaller adapters in one call",
)
RESIDENCY_BUSY = Code(
    "AD755",
    "residency-busy",
    Severity.ERROR,
    "A call inside another call needs an adapter for which there is no room until the outer ends.",
    "raise the budget so that both fit",
)
