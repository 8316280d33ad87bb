"""``oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:HEX]``: where an artifact is.

The grammar is that of https://github.com/opencontainers/distribution-spec (v1.1, "Pull").
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SCHEME = "oci://"
_LONGEST = 255
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    r"oci://(?P<host>[a-z0-9]+(?:[.-]+[a-z0-9]+)*(?::[0-9]{1,5})?|\[[0-9a-f:]+\](?::[0-9]{1,5})?)"
    rf"/(?P<repository>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?\Z",
    re.ASCII,
)
_LOOPBACK = re.compile(r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]+)?\Z")
_DOCKER_HUB = "docker.io"


@dataclass(frozen=True)
class OciReference:
    """``tag`` or ``digest`` or both, of which the digest counts; or none: a repository."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{SCHEME}{self.host}/{self.repository}{tag}{digest}"

    @property
    def plain(self) -> bool:
        """Whether HTTP without TLS is used: only with this machine itself, as docker does."""
        return _LOOPBACK.match(self.host) is not None

    @property
    def api(self) -> str:
        """The URL of the repository in the distribution protocol."""
        hub = self.host == _DOCKER_HUB
        host = "registry-1.docker.io" if hub else self.host
        official = hub and "/" not in self.repository
        repository = f"library/{self.repository}" if official else self.repository
        return f"{'http' if self.plain else 'https'}://{host}/v2/{repository}"


def parse_reference(text: str) -> OciReference | None:
    """The reference that ``text`` is, or ``None``."""
    if len(text) > 2 * _LONGEST:
        return None
    match = _REFERENCE.match(text)
    if match is None or len(match["host"]) + len(match["repository"]) > _LONGEST:
        return None
    return OciReference(match["host"], match["repository"], match["tag"], match["digest"])
