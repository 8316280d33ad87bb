"""Codes AD943 to AD988: serving, engines, exports."""

from __future__ import annotations

from .code import Code

NOT_SERVED = Code("AD950", "not-served")
MANIFEST_MISSING = Code("AD951", "manifest-missing")
MANIFEST_NOT_ALONE = Code("AD952", "manifest-not-alone")
NOT_JOINED = Code("AD953", "composition-not-joined")
ENGINE_REFUSED = Code("AD954", "engine-refused")
NO_FILES = Code("AD955", "adapter-without-files")
BAD_FOLLOW = Code("AD956", "bad-follow")
LOOK_BROKE_OFF = Code("AD957", "look-broke-off")
