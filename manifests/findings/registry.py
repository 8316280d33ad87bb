"""Codes AD86x to AD89x: the registry of published adapters."""

from __future__ import annotations

from .code import Code

CREATES_TWICE = Code("AD870", "creates-twice")
STORAGE_READ_ONLY = Code("AD871", "storage-read-only")
BAD_REGISTRY_URL = Code("AD872", "bad-registry-url")
STORAGE_CONTRADICTS = Code("AD873", "storage-contradicts")
STORAGE_LISTS_NOTHING = Code("AD874", "storage-lists-nothing")
