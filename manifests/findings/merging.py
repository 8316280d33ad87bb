"""Codes AD756 to AD768: merging adapters into the base's weights, in memory and on disk."""

from __future__ import annotations

from .code import Code

MERGE_READ = Code("AD388", "merge-read-elsewhere")
ADAPTERS_MERGED = Code("AD756", "adapters-merged")
MERGE_METHOD = Code("AD757", "merge-not-possible")
MERGE_WEIGHT = Code("AD758", "merge-weight-unusable")
MERGE_NOT_FINITE = Code("AD759", "merge-not-finite")
MERGE_TIED = Code("AD760", "merge-tied")
MERGE_NOTHING = Code("AD761", "merge-nothing")
MERGE_REREAD = Code("AD762", "merge-cannot-reread")
MERGE_GROWN = Code("AD763", "merge-grown")
MERGE_NOT_ON_DISK = Code("AD764", "merge-not-on-disk")
MERGE_FAILED = Code("AD765", "merge-failed")
MERGE_QUANTIZED = Code("AD766", "merge-quantized-base")
MERGE_BUSY = Code("AD768", "merge-busy")
