"""Codes AD9xx: commands and calls with arguments that have no meaning."""

from __future__ import annotations

from .code import Code

NO_SUCH_FILE = Code("AD901", "no-such-manifest")
UNKNOWN_CODE = Code("AD902", "unknown-code")
NEEDS_TORCH = Code("AD903", "needs-torch")
NEEDS_BASE = Code("AD904", "no-base-declared")
NO_PROMPT = Code("AD905", "no-prompt")
BAD_SIZE = Code("AD906", "bad-size")
EXISTS = Code("AD907", "file-exists")
NOTHING_TO_FINGERPRINT = Code("AD908", "nothing-to-fingerprint")
UNWRITABLE = Code("AD909", "unwritable")
IN_MEMORY_UNDECLARED = Code("AD910", "given-undeclared")
ONE_SOURCE = Code("AD911", "one-source")
BAD_DTYPE = Code("AD913", "bad-dtype")
OPTIONS_CONFLICT = Code("AD914", "options-conflict")
NOT_YAML = Code("AD915", "manifest-not-yaml")
BAD_MODEL = Code("AD916", "bad-model-option")
OVERRIDE_TOO_LATE = Code("AD919", "override-too-late")
OUT_NOT_EMPTY = Code("AD930", "out-not-empty")
BAD_INTERVAL = Code("AD940", "bad-interval")
LAZY_TRAINABLE = Code("AD941", "lazy-and-trainable")
BAD_RESIDENCY = Code("AD942", "bad-residency")
BUG = Code("AD990", "bug")
