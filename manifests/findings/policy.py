"""Codes AD85x: what a platform's policy forbids."""

from __future__ import annotations

from .code import Code
from .finding import Severity

SOURCE_FORBIDDEN = Code(
    "AD851",
    "source-forbidden",
    Severity.ERROR,
    "A policy does not allow this source.",
    "`allow_sources` lists globs. They are matched, case and all, against the whole normalised "
    "URL (no `..` steps left in it), with and without its revision; a local folder inside the "
    "manifest's own is written ./folder, any other by its absolute path. Every policy in force "
    "must allow the source: the manifest's own, those of the files that it extends, and the "
    "platform's. The declared source must be allowed, and so must the mirror or endpoint that the "
    "manifest has it fetched from (not one that is a whole ${VARIABLE} of your environment).",
    "policy: {allow_sources: ['hf://acme/*']}   # and an adapter from hf://other/tone",
    "use an allowed source, or ask whoever keeps the policy",
)
BASE_FORBIDDEN = Code(
    "AD852",
    "base-forbidden",
    Severity.ERROR,
    "A policy does not allow this base model.",
    "`allow_bases` lists globs over the normalised URL of base.model, --model included. A "
    "mirror or endpoint that the manifest has it fetched from must be allowed as well.",
    "policy: {allow_bases: ['hf://HuggingFaceTB/*']}   # and base.model: ./my-model",
    "use an allowed base, or ask whoever keeps the policy",
)
DIGEST_REQUIRED = Code(
    "AD853",
    "digest-required",
    Severity.ERROR,
    "A policy requires a digest and this adapter has none.",
    "`require_digest` is satisfied by `sha256:` in the manifest or by the lock.",
    "policy: {require_digest: true}   # an adapter without sha256, and no lock",
    "run `adapterdock lock`, or write `sha256:` beside the source",
)
TOO_LARGE = Code(
    "AD854",
    "adapter-too-large",
    Severity.ERROR,
    "An adapter is larger than a policy allows.",
    "`max_adapter_bytes` bounds the sum of an adapter's consumed files. It is decided from the "
    "listing, before anything is downloaded.",
    "policy: {max_adapter_bytes: 100MiB}",
    "use a smaller adapter (a lower rank, or half precision), or ask whoever keeps the policy",
)
REDIRECT_FORBIDDEN = Code(
    "AD855",
    "redirect-forbidden",
    Severity.ERROR,
    "A web server sends on to a URL that a policy does not allow.",
    "Where a policy lists what it allows, every URL on the way is matched, without its query: the "
    "declared one, and each that a server redirects to. The request was not sent on.",
    "policy: {allow_sources: ['https://models.acme.example/*']}   # which redirects to a CDN",
    "use the final URL as the source, or ask whoever keeps the policy to list it too",
)
CREDENTIALS_BY_MANIFEST = Code(
    "AD393",
    "credentials-by-manifest",
    Severity.ERROR,
    "A manifest lists where credentials may be sent.",
    "`allow_credentials` lets your credentials go to a host that a manifest's storage options "
    "name. Only a policy from outside (--policy FILE, ADAPTERDOCK_POLICY) can say so: a manifest "
    "may come from anybody, and would allow itself.",
    "policy: {allow_credentials: ['https://storage.example']}   # in a manifest",
    "move `allow_credentials` into a policy file, and give it by --policy or ADAPTERDOCK_POLICY",
)
