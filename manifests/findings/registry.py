"""Codes AD86x to AD89x: the registry of published adapters."""

from __future__ import annotations

from .code import Code
from .finding import Severity

NOT_A_REGISTRY = Code("AD860", "not-a-registry")
NOT_PUBLISHED = Code("AD861", "not-published")
ENTRY_INVALID = Code("AD862", "entry-invalid")
HISTORY_BROKEN = Code("AD863", "registry-history-broken")
EXISTS_ALREADY = Code("AD864", "exists-already")
BAD_REFERENCE = Code("AD865", "registry-reference")
BAD_WEIGHTS = Code("AD866", "weights-unusable")
REGISTRY_READ_ONLY = Code("AD867", "registry-read-only")
NOT_PROMOTED = Code("AD868", "requirement-not-met")
VERSION_MARKED = Code("AD869", "version-marked", Severity.WARNING)
CREATES_TWICE = Code("AD870", "creates-twice")
STORAGE_READ_ONLY = Code("AD871", "storage-read-only")
BAD_REGISTRY_URL = Code("AD872", "bad-registry-url")
STORAGE_CONTRADICTS = Code("AD873", "storage-contradicts")
STORAGE_LISTS_NOTHING = Code("AD874", "storage-lists-nothing")
SIGNING_UNAVAILABLE = Code("AD880", "signing-unavailable")
KEY_UNREADABLE = Code("AD881", "key-unreadable")
KEY_WEAK = Code("AD882", "key-weak")
KEY_UNWRITTEN = Code("AD883", "key-not-written")
SIGNATURE_INVALID = Code("AD884", "signature-invalid", Severity.WARNING)
SIGNATURES_MISSING = Code("AD885", "signatures-missing")
SIGNING_FAILED = Code("AD886", "signing-failed")
THRESHOLD_IMPOSSIBLE = Code("AD887", "threshold-impossible")
OCI_ARCHIVE_INVALID = Code("AD888", "oci-archive-invalid")
OCI_ARTIFACT_INVALID = Code("AD889", "oci-artifact-invalid")
OCI_REFERENCE_INVALID = Code("AD890", "oci-reference-invalid")
DOCKER_LOGIN_UNUSABLE = Code("AD891", "docker-login-unusable")
OCI_PUSH_REFUSED = Code("AD892", "oci-push-refused")
SETUP_NOT_MOVABLE = Code("AD897", "setup-not-movable")
SETUP_INVALID = Code("AD898", "setup-invalid")
TARGET_OCCUPIED = Code("AD899", "target-occupied")
