"""Codes AD5xx: the lock, and what differs between a manifest and its lock."""

from __future__ import annotations

from .code import Code
from .finding import Severity

LOCK_UNREADABLE = Code("AD501", "lock-unreadable")
LOCK_VERSION_UNKNOWN = Code("AD502", "lock-version-unknown")
LOCK_UNWRITABLE = Code("AD503", "lock-unwritable")
LOCK_MISSING = Code("AD504", "lock-missing")
LOCK_STALE = Code("AD505", "lock-stale")
LOCK_PARTIAL = Code("AD506", "lock-partial")
LOCK_MUTABLE = Code("AD507", "mutable-adapter", Severity.WARNING)
FROZEN_MUTABLE = Code("AD508", "mutable-when-frozen")
CHANGED_UNDER_LOCK = Code("AD509", "changed-under-lock")
UPGRADE_UNKNOWN = Code("AD510", "upgrade-unknown")
DIGEST_MISMATCH = Code("AD511", "declared-digest-mismatch")
NO_LOCK = Code("AD512", "resolved-without-lock", Severity.WARNING)
ACCEPT_NOT_UNCHECKED = Code("AD513", "cannot-accept")
STALE_LOCK_UNUSED = Code("AD514", "stale-lock-unused", Severity.WARNING)
BASE_OVERRIDDEN = Code("AD515", "base-overridden", Severity.WARNING)
SAMPLES_MISSING = Code("AD517", "lock-samples-missing")
LOCK_CONFLICT = Code("AD518", "lock-merge-conflict")
