"""What to do about a failure, for one kind of source: never Amazon's variables for the Hub."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...manifests.findings import sources as codes
from ...manifests.findings.code import Code
from ...manifests.language.names import did_you_mean
from ...manifests.language.source import HUB, LOCAL
from .ways import AZURE, GOOGLE, HTTP, S3, options_of

_BUCKETS = S3 | GOOGLE | AZURE
_OFFLINE = "To work with the caches only, use --offline."

_HINTS: Mapping[Code, Mapping[str, str | None]] = {
    codes.SOURCE_MISSING: {
        HUB: "Check the folder after the repository's name, and the revision after '@'.",
        **dict.fromkeys(
            _BUCKETS, "Check the bucket and the folder; upper and lower case are different."
        ),
        **dict.fromkeys(HTTP, "Check the address: a folder, whose files the server has."),
        "": "Check the address; upper and lower case are different.",
    },
    codes.FILE_MISSING: {
        LOCAL: "Check that the source names the right folder, and that nothing in it is missing.",
        HUB: None,
        "": "Check that the source names the right folder, and that the upload is complete.",
    },
    codes.NOT_AUTHENTICATED: {
        HUB: "Run `hf auth login`, or set HF_TOKEN to a token that may read it.",
        **dict.fromkeys(
            S3,
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role; for a public "
            "bucket, `storage_options: {anon: true}`.",
        ),
        **dict.fromkeys(
            GOOGLE,
            "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS.",
        ),
        **dict.fromkeys(AZURE, "Run `az login`, or set AZURE_STORAGE_CONNECTION_STRING."),
        **dict.fromkeys(HTTP, "Put the host's login into ~/.netrc."),
        "": "Give the driver credentials, as its documentation says.",
    },
    codes.RATE_LIMITED: {
        HUB: None,
        "": "Wait and run again, or use a lock and a filled cache, which need no requests.",
    },
    codes.SERVER_ERROR: {HUB: None, "": "Run again later."},
    codes.UNREACHABLE: {
        HUB: f"Check the network, the proxy and HF_ENDPOINT. {_OFFLINE}",
        **dict.fromkeys(
            S3,
            "Check the network, the proxy and the endpoint (AWS_ENDPOINT_URL, "
            f"storage_options.endpoint_url). {_OFFLINE}",
        ),
        "": f"Check the network, the proxy and the name of the host. {_OFFLINE}",
    },
    codes.BUCKET_NOT_FOUND: {
        **dict.fromkeys(S3),
        "": "Check the bucket's name and the endpoint.",
    },
}
"""By code, by a URL's scheme; ``""`` is any other scheme that is not local, and ``None`` what the
code itself says."""


def hint_for(code: Code, scheme: str) -> str | None:
    """What to do about ``code`` at a source with this scheme; ``None`` for what the code says."""
    known = _HINTS.get(code, {})
    return known.get(scheme, None if scheme == LOCAL else known.get(""))


def hint_for_error(text: str, scheme: str) -> str | None:
    """What to do about a mistake that only the text of a library's error tells: the scheme of an
    endpoint, a certificate, the name of an option."""
    endpoint = "the endpoint (AWS_ENDPOINT_URL, storage_options.endpoint_url)"
    if text.startswith("Invalid endpoint"):
        return f"Write {endpoint} with its scheme: https://HOST or http://HOST:PORT."
    if "WRONG_VERSION_NUMBER" in text:
        subject = endpoint if scheme in S3 else "the address"
        return (
            f"The host does not speak TLS there: check the port, or write {subject} with http://."
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        variable = "AWS_CA_BUNDLE" if scheme in S3 else "SSL_CERT_FILE"
        return f"If the host has a certificate of your own authority, name that in {variable}."
    unknown = re.search(r"unexpected keyword argument '(\w+)'", text)
    return unknown and did_you_mean(unknown[1], options_of(scheme))
