"""Codes AD943 to AD988: serving, engines, exports."""

from __future__ import annotations

from .code import Code
from .finding import Severity

# targets
BAD_TARGET = Code("AD943", "target-invalid")
TARGET_NEWER = Code("AD944", "target-newer", Severity.WARNING)
TARGET_CANNOT_SERVE = Code("AD945", "target-cannot-serve")
TARGET_RANK = Code("AD946", "target-rank-too-large")
TARGET_CANNOT_COMBINE = Code("AD947", "target-cannot-combine")
TARGET_UNCHECKED = Code("AD948", "target-unchecked", Severity.UNCHECKED)
TARGET_DIFFERS = Code("AD949", "target-differs", Severity.WARNING)
