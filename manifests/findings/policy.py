"""Codes AD85x: what a platform's policy forbids."""

from __future__ import annotations

from .code import Code
from .finding import Severity

CREDENTIALS_BY_MANIFEST = Code(
    "AD393",
    "credentials-by-manifest",
    Severity.ERROR,
    "A manifest lists hosts that credentials may be sent to.",
    "Move `allow_credentials` into a policy file, and pass it by --policy or ADAPTERDOCK_POLICY.",
)
SOURCE_FORBIDDEN = Code(
    "AD851",
    "source-forbidden",
    Severity.ERROR,
    "A policy does not allow this source.",
    "Use an allowed source, or ask the owner of the policy.",
)
BASE_FORBIDDEN = Code(
    "AD852",
    "base-forbidden",
    Severity.ERROR,
    "A policy does not allow this base model.",
    "Use an allowed base, or ask the owner of the policy.",
)
DIGEST_REQUIRED = Code(
    "AD853",
    "digest-required",
    Severity.ERROR,
    "A policy requires a digest and this adapter has none.",
    "Run `adapterdock lock`, or write `sha256:` beside the source.",
)
TOO_LARGE = Code(
    "AD854",
    "adapter-too-large",
    Severity.ERROR,
    "An adapter is larger than a policy allows.",
    "Use a smaller adapter (a lower rank, or half precision), or ask the owner of the policy.",
)
REDIRECT_FORBIDDEN = Code(
    "AD855",
    "redirect-forbidden",
    Severity.ERROR,
    "A web server redirects to a URL that a policy does not allow.",
    "Use the final URL as the source, or ask the owner of the policy to allow it too.",
)
