"""Codes AD25x: what the files of a source must be to make an adapter or a base."""

from __future__ import annotations

from .code import Code
from .finding import Severity

NOT_AN_ADAPTER = Code("AD251", "not-an-adapter")
PICKLE_REFUSED = Code("AD252", "pickle-refused")
NOT_A_BASE = Code("AD253", "not-a-base")
BASE_DAMAGED = Code("AD254", "base-damaged")
FILE_TOO_LARGE = Code("AD255", "file-too-large")
BASE_HOLDS_ADAPTER = Code("AD256", "base-holds-adapter")
SOURCE_UNREACHABLE = Code("AD257", "source-unreachable", Severity.UNCHECKED)
TOKENIZER_DAMAGED = Code("AD258", "tokenizer-damaged")
BASE_NOT_READ = Code("AD259", "base-not-read", Severity.UNCHECKED)
