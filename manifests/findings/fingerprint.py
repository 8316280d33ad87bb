"""Codes AD4xx: whether a base is the one that a manifest or a lock names."""

from __future__ import annotations

from .code import Code
from .finding import Severity

ARCHITECTURE = Code("AD401", "base-architecture-differs")
HEAD = Code("AD402", "base-head-differs", Severity.WARNING)
HIDDEN_SIZE = Code("AD403", "base-hidden-size-differs")
STRUCTURE = Code("AD404", "base-structure-differs")
HEADS = Code("AD405", "base-heads-differ")
CONFIG = Code("AD406", "base-config-differs")
WEIGHTS = Code("AD407", "base-weights-differ")
HEAD_WEIGHTS = Code("AD408", "base-head-weights-differ")
TOKENIZER = Code("AD409", "base-tokenizer-differs")
CHAT_TEMPLATE = Code("AD410", "base-chat-template-differs", Severity.WARNING)
SAMPLES = Code("AD411", "sample-table-not-its-own")
TOKENIZER_FILE = Code("AD412", "tokenizer-file-malformed")
ARCHITECTURE_UNCHECKED = Code("AD431", "base-architecture-unchecked", Severity.UNCHECKED)
STRUCTURE_UNCHECKED = Code("AD432", "base-structure-unchecked", Severity.UNCHECKED)
CONFIG_UNCHECKED = Code("AD433", "base-config-unchecked", Severity.UNCHECKED)
WEIGHTS_UNCHECKED = Code("AD434", "base-weights-unchecked", Severity.UNCHECKED)
WEIGHTS_PARTLY = Code("AD435", "base-weights-partly-checked", Severity.UNCHECKED)
TOKENIZER_UNCHECKED = Code("AD436", "base-tokenizer-unchecked", Severity.UNCHECKED)
