"""Codes AD943 to AD988: serving, engines, exports."""

from __future__ import annotations

from .code import Code
from .finding import Severity

REPLICA_DIFFERS = Code("AD977", "replica-differs")
REPLICA_UNKNOWN = Code("AD978", "replica-unknown", Severity.UNCHECKED)
ADAPTER_WITHOUT_EFFECT = Code("AD979", "adapter-without-effect")
FLEET_ARGUMENT = Code("AD980", "fleet-argument")
