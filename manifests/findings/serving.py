"""Codes AD943 to AD988: serving, engines, exports."""

from __future__ import annotations

from .code import Code
from .finding import Severity

BAD_TARGET = Code("AD943", "target-invalid")
TARGET_NEWER = Code("AD944", "target-newer", Severity.WARNING)
TARGET_CANNOT_SERVE = Code("AD945", "target-cannot-serve")
TARGET_RANK = Code("AD946", "target-rank-too-large")
TARGET_CANNOT_COMBINE = Code("AD947", "target-cannot-combine")
TARGET_UNCHECKED = Code("AD948", "target-unchecked", Severity.UNCHECKED)
TARGET_DIFFERS = Code("AD949", "target-differs", Severity.WARNING)
NOT_SERVED = Code("AD950", "not-served")
MANIFEST_MISSING = Code("AD951", "manifest-missing")
MANIFEST_NOT_ALONE = Code("AD952", "manifest-not-alone")
NOT_JOINED = Code("AD953", "composition-not-joined")
ENGINE_REFUSED = Code("AD954", "engine-refused")
NO_FILES = Code("AD955", "adapter-without-files")
BAD_FOLLOW = Code("AD956", "bad-follow")
LOOK_FAILED = Code("AD957", "look-failed")
BAD_MANIFEST_URL = Code("AD958", "manifest-url-invalid")
PLUGIN_SETTINGS = Code("AD960", "plugin-settings")
ENGINE_UNSUPPORTED = Code("AD961", "engine-unsupported")
OTHER_LOADERS = Code("AD962", "other-loaders")
SERVED_BASE_UNCHECKED = Code("AD963", "served-base-unchecked", Severity.UNCHECKED)
NAME_TAKEN = Code("AD964", "served-name-taken")
ENGINE_ID_TAKEN = Code("AD965", "engine-id-taken")
NOT_STARTED = Code("AD966", "serving-not-started")
BASE_MIXED = Code("AD967", "base-mixed-on-cpu", Severity.WARNING)
