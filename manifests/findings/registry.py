"""Codes AD86x: publishing to a registry, and what is found in one."""

from __future__ import annotations

from .code import Code
from .finding import Severity

NOT_A_REGISTRY = Code("AD860", "not-a-registry")
NOT_PUBLISHED = Code("AD861", "not-published")
ENTRY_INVALID = Code("AD862", "entry-invalid")
HISTORY_BROKEN = Code("AD863", "registry-history-broken")
EXISTS_ALREADY = Code("AD864", "exists-already")
BAD_REFERENCE = Code("AD865", "registry-reference")
BAD_WEIGHTS = Code("AD866", "weights-unusable")
REGISTRY_READ_ONLY = Code("AD867", "registry-read-only")
NOT_PROMOTED = Code("AD868", "requirement-not-met")
VERSION_MARKED = Code("AD869", "version-marked", Severity.WARNING)
