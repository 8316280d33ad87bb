"""Codes AD6xx: the store, and bytes that are not what they should be."""

from __future__ import annotations

from .code import Code
from .finding import Severity

NO_CACHE = Code("AD399", "no-cache")
CACHE_NOT_A_FOLDER = Code("AD601", "cache-not-a-folder")
NO_SPACE = Code("AD602", "no-space")
CACHE_READ_ONLY = Code("AD603", "cache-read-only")
CACHE_PERMISSION = Code("AD604", "cache-permission")
PATH_TOO_LONG = Code("AD605", "path-too-long")
CACHE_IO = Code("AD606", "cache-io")
CACHE_UNKNOWN_PLACE = Code("AD607", "cache-unknown-place")
WRONG_DIGEST = Code("AD610", "wrong-digest")
WRONG_SIZE = Code("AD611", "wrong-size")
NOT_AS_LOCKED = Code("AD612", "not-as-locked")
DAMAGED_HUB_FILE = Code("AD613", "damaged-hub-file")
LOCAL_FILE_CHANGED = Code("AD614", "local-file-changed")
FILE_UNSTABLE = Code("AD615", "file-unstable")
DAMAGED_OBJECT = Code("AD616", "damaged-object")
STRAY_FILE = Code("AD617", "stray-file", Severity.WARNING)
UNSAFE_PATH = Code("AD620", "unsafe-path")
BAD_DIGEST = Code("AD621", "bad-digest")
OBJECT_MISSING = Code("AD622", "object-missing")
