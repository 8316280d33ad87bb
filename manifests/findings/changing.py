"""Codes AD751 to AD755: changing a running model, and residency."""

from __future__ import annotations

from .code import Code
from .finding import Severity

BASE_IS_ANOTHER = Code(
    "AD751",
    "base-is-another",
    Severity.ERROR,
    "The manifest is for another base than the one that is running.",
    "`model.plan` and `model.apply` change the adapters of a running model and never its base: "
    "adapters that are right for one base are wrong for another, and how a base is loaded (its "
    "dtype, devices, quantisation) is settled when it is loaded.",
    "a manifest with base.model: ./llama-b, planned on a model that was loaded from ./llama-a",
    "load the manifest anew with adapterdock.load, or keep `base` as it is",
)
PLAN_STALE = Code(
    "AD752",
    "plan-stale",
    Severity.ERROR,
    "The plan was made for another state of the model, or of the adapters, than the present one.",
    "A plan says what will change. If adapters, compositions or rules were changed since, if it "
    "was made for another model, or if a mutable adapter was written to, something else would.",
    "model.load_adapter(...) between model.plan(...) and model.apply(plan)",
    "make the plan again, and apply that one",
)
WATCH_BROKE_OFF = Code(
    "AD753",
    "watch-broke-off",
    Severity.ERROR,
    "Following the manifest broke off in a way that no check foresees.",
    "The cause is in the message. The adapters stay as they were, and it is tried again.",
    "the disk is full while an adapter is fetched",
    "see the cause; `model.plan(path)` and `model.apply(plan)` show it where you can debug it",
)
RESIDENCY_TOO_SMALL = Code(
    "AD754",
    "residency-too-small",
    Severity.ERROR,
    "The residency budget has no room for this, whatever else makes room.",
    "`residency` bounds the bytes of adapter weights on the model's device. All adapters of one "
    "call are there together, and trainable ones always are.",
    "residency: 10MB beside an adapter of 18 MB",
    "raise the budget, or use fewer or smaller adapters in one call",
)
RESIDENCY_BUSY = Code(
    "AD755",
    "residency-busy",
    Severity.ERROR,
    "A call inside another call needs an adapter for which there is no room until the outer ends.",
    "Adapters that a call runs on are never sent away. A call waits for others to end, but not "
    "for the one that it is a part of.",
    "a logits processor that asks the model with another adapter, under a budget for one",
    "raise the budget so that both fit",
)
