"""Codes AD80x: rules."""

from __future__ import annotations

from .code import Code
from .finding import Severity

EXCLUSIVE_GROUP = Code("AD801", "exclusive-group-too-small")
CONTRADICTION = Code("AD802", "rules-contradict")
RULE_ON_COMPOSITION = Code("AD803", "rule-on-composition")
EXCLUSIVE = Code("AD804", "exclusive-together")
REQUIRED = Code("AD805", "required-not-active")
TOO_MANY_ACTIVE = Code("AD806", "too-many-active")
TOTAL_RANK = Code("AD807", "total-rank-too-large")
RANK_UNKNOWN = Code("AD808", "rank-unknown", Severity.UNCHECKED)
