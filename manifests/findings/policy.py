"""Codes AD85x: what a platform's policy forbids."""

from __future__ import annotations

from .code import Code

CREDENTIALS_BY_MANIFEST = Code("AD393", "credentials-by-manifest")
MODEL_SIGNATURE = Code("AD850", "model-signature")
SOURCE_FORBIDDEN = Code("AD851", "source-forbidden")
BASE_FORBIDDEN = Code("AD852", "base-forbidden")
DIGEST_REQUIRED = Code("AD853", "digest-required")
TOO_LARGE = Code("AD854", "adapter-too-large")
REDIRECT_FORBIDDEN = Code("AD855", "redirect-forbidden")
REGISTRY_FORBIDDEN = Code("AD856", "registry-forbidden")
