"""Codes AD746 to AD748, AD769, AD793 to AD799, AD82x: new adapters, training and saving."""

from __future__ import annotations

from .code import Code
from .finding import Severity

SAVED_MERGED = Code("AD746", "saved-merged", Severity.WARNING)
ACTIVE_NOT_SAVED = Code("AD747", "active-not-saved", Severity.WARNING)
NEW_TOKENIZER = Code("AD748", "fresh-tokenizer")
SAVE_THROUGH_PEFT = Code("AD769", "save-through-peft")
SAVE_WITHOUT_CONFIG = Code("AD793", "save-without-config")
SAVE_FAILED = Code("AD794", "save-failed")
NEW_SELECTS_NOTHING = Code("AD795", "fresh-selects-nothing")
NEW_INIT = Code("AD796", "fresh-init")
NEW_METHOD = Code("AD797", "fresh-method")
BASE_NOT_NAMED = Code("AD798", "base-not-named", Severity.WARNING)
RULES_NOT_SAVED = Code("AD799", "rules-not-saved", Severity.WARNING)
ADAPTER_ORIGIN = Code("AD820", "adapter-origin")
NEW_NOT_TRAINABLE = Code("AD821", "fresh-not-trainable")
NEW_FIELD = Code("AD822", "fresh-field")
NEW_UNPLACED = Code("AD823", "fresh-unplaced", Severity.UNCHECKED)
BASE_TRAINED = Code("AD824", "base-trained", Severity.WARNING)
