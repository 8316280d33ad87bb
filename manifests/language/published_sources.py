"""The grammar of sources that name something published.

``registry://REGISTRY/NAME@SELECTOR``   ``REGISTRY`` is the manifest's local name
``oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:HEX]``
``oci-archive:FILE[:REFERENCE][@sha256:HEX]``   skopeo's spelling of an OCI layout in a tar file

Each function returns the parts of a source: its location, its revision, and its path.
"""

from __future__ import annotations

import re

from .names import NAME_RULE, is_name
from .source_syntax import SourceSyntaxError

_PINNED = re.compile(r"(.*)@(sha256:[0-9a-f]{64})\Z", re.DOTALL)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
# The name of an image in a layout (image-spec, "annotations"), with any separators.
_REFERENCE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:@+/-]{0,253}[A-Za-z0-9])?\Z")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")

Parts = tuple[str, str | None, str]


def registry_parts(rest: str) -> Parts:
    """Of what follows ``registry://``."""
    from .published_names import wrong_name

    head, at, selector = rest.rstrip("/").partition("@")
    registry, _, name = head.partition("/")
    if not registry or not name:
        raise SourceSyntaxError(
            "write registry://REGISTRY/NAME@VERSION, for example registry://team/refunds@^2.1"
        )
    if not is_name(registry):
        raise SourceSyntaxError(f"invalid name {registry!r}: {NAME_RULE}")
    if (problem := wrong_name(name)) is not None:
        raise SourceSyntaxError(f"invalid name {name!r}: {problem}")
    if not at:
        raise SourceSyntaxError(
            f"the version is missing: write registry://{head}@ and a version (2.1.0), "
            "a range (^2.1), an alias (prod) or the digest of an entry (sha256:...)"
        )
    check_selector(selector)
    return head, selector, ""


def check_selector(text: str) -> None:
    """Raise :class:`SourceSyntaxError` for anything but a version, range, alias or digest."""
    from .selector import parse_selector

    if parse_selector(text) is None:
        raise SourceSyntaxError(
            f"invalid version {text[:80]!r} after '@': write a version (2.1.0), a range (^2.1, "
            "~2.1, >=2,<3), an alias (prod) or the digest of an entry (sha256:...)"
        )


def oci_parts(rest: str) -> Parts:
    """Of what follows ``oci://``."""
    from .oci_reference import SCHEME, parse_reference

    rest = rest.rstrip("/")
    reference = parse_reference(SCHEME + rest)
    if reference is None:
        raise SourceSyntaxError(
            "write oci://HOST/REPOSITORY:TAG or oci://HOST/REPOSITORY@sha256:HEX; "
            "host and repository are in lower case"
        )
    location = f"{reference.host}/{reference.repository}"
    if reference.tag is not None:
        location += f":{reference.tag}"
    return location, reference.digest, ""


def archive_parts(rest: str) -> Parts:
    """Of what follows ``oci-archive:``; the path is the reference of an image in the file."""
    match = _PINNED.match(rest)
    text, digest = (rest, None) if match is None else match.groups()
    file, colon, reference = text.partition(":")
    if rest.startswith("//") or not file or file.endswith("/") or file in (".", "..", "~"):
        raise SourceSyntaxError(
            "write oci-archive:FILE or oci-archive:FILE:REFERENCE, for example "
            "oci-archive:./adapters.oci.tar:refunds"
        )
    if _WINDOWS.match(text) or "\\" in text:
        raise SourceSyntaxError("use forward slashes, and a path relative to the manifest")
    if file != file.strip():
        raise SourceSyntaxError("the name of the file has spaces around it")
    if file.startswith("~") and not file.startswith("~/"):
        raise SourceSyntaxError("'~user' is not supported: write the full path")
    if colon and (not _REFERENCE.match(reference) or "//" in reference):
        raise SourceSyntaxError(f"invalid reference {reference[:80]!r} after the file")
    return file, digest, reference


def check_digest(text: str) -> None:
    """Raise :class:`SourceSyntaxError` for anything but ``sha256:HEX``."""
    if not _DIGEST.match(text):
        raise SourceSyntaxError(f"invalid digest {text[:80]!r} after '@': write sha256:HEX")
