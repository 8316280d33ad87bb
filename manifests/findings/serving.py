"""Codes AD943 to AD988: serving, engines, exports."""

from __future__ import annotations

from .code import Code

EXPORT_OCCUPIED = Code("AD981", "export-occupied")
EXPORT_RECORD = Code("AD982", "export-record-invalid")
FORMAT_LACKS = Code("AD983", "export-format-lacks")
FORMAT_UNPROVED = Code("AD984", "export-format-unproved")
EXPORT_NEEDS = Code("AD985", "export-needs-package")
EXPORT_UNWRITTEN = Code("AD986", "export-not-written")
EXPORT_NO_FILES = Code("AD987", "export-without-files")
EXPORT_COMPOSITION = Code("AD988", "export-composition")
