"""Codes AD751 to AD755: changing a running model, and residency."""

from __future__ import annotations

from .code import Code
from .finding import Severity

BASE_IS_ANOTHER = Code(
    "AD751",
    "base-is-another",
    Severity.ERROR,
    "The manifest is for another base than the one that is running.",
    "Load the manifest with adapterdock.load, or keep `base` as it is.",
)
PLAN_STALE = Code(
    "AD752",
    "plan-stale",
    Severity.ERROR,
    "The plan was made for an earlier state of the model or of its adapters.",
    "Make the plan again, and apply the new one.",
)
WATCH_BROKE_OFF = Code(
    "AD753",
    "watch-broke-off",
    Severity.ERROR,
    "Failed to follow the manifest, for a reason that no check covers.",
    "Check the cause. To debug it, call `model.plan(path)` and `model.apply(plan)` yourself.",
)
RESIDENCY_TOO_SMALL = Code(
    "AD754",
    "residency-too-small",
    Severity.ERROR,
    "The residency budget is too small for this, even if everything else is unloaded.",
    "Raise the budget, or use fewer or smaller adapters in one call.",
)
RESIDENCY_BUSY = Code(
    "AD755",
    "residency-busy",
    Severity.ERROR,
    "A call inside another call needs an adapter for which there is no room until the outer call "
    "ends.",
    "Raise the budget so that both fit.",
)
