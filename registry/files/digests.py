"""Digests of bytes, files and folders, always written ``sha256:HEX``.

The digest of a folder is part of every lock, so it must never change: SHA-256 over one line
``sha256:HEX SIZE PATH`` and a line feed for each consumed file, in UTF-8, the lines sorted as
bytes. Golden vectors are in the tests.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Protocol

from ...manifests.findings.errors import IntegrityError
from ...manifests.findings.finding import Finding
from ...manifests.findings.store import BAD_DIGEST, UNSAFE_PATH
from .facts import FileFact

PREFIX = "sha256:"
CHUNK = 1 << 20

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})\Z")
_EXPECTED = "sha256: and 64 of 0-9 a-f"


class Hasher(Protocol):
    """A hash object of ``hashlib``."""

    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


def is_digest(text: str) -> bool:
    """Whether ``text`` is ``sha256:`` and 64 lower-case hexadecimal digits."""
    return _DIGEST.match(text) is not None


def parse_digest(text: str) -> str:
    """The 64 hexadecimal digits of a digest. Raises :class:`IntegrityError` for other text."""
    match = _DIGEST.match(text)
    if match is None:
        raise IntegrityError(
            BAD_DIGEST.finding(f"Invalid digest {text[:100]!r}", expected=_EXPECTED)
        )
    return match.group(1)


def sha256_bytes(data: bytes | bytearray | memoryview) -> str:
    """``sha256:HEX`` of a buffer."""
    return PREFIX + hashlib.sha256(data).hexdigest()


def versioned_digest(kind: str, content: bytes | bytearray) -> str:
    """``v1:sha256:HEX`` of a part of a base's fingerprint: ``adapterdock KIND v1``, a line feed and
    ``content``."""
    title = f"adapterdock {kind} v1\n".encode()
    return f"v1:{sha256_bytes(title + content)}"


def sha256_stream(
    stream: BinaryIO, on_bytes: Callable[[int], None] | None = None, limit: int | None = None
) -> str:
    """``sha256:HEX`` of the rest of ``stream``, read one MiB at a time.

    ``on_bytes`` gets the number of bytes after each read; what it raises ends the hashing. At most
    ``limit`` bytes are read: a file that is appended to would not end.
    """
    # hashlib.file_digest (Python 3.11) cannot report progress, and is not faster
    digest = hashlib.sha256()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    left = limit
    while count := stream.readinto(view[:left]):  # type: ignore[attr-defined]
        digest.update(view[:count])
        if left is not None:
            left -= count
        if on_bytes is not None:
            on_bytes(count)
    return PREFIX + digest.hexdigest()


def sha256_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """``sha256:HEX`` of a file, streamed. Raises ``OSError`` where it cannot be read."""
    with path.open("rb", buffering=0) as stream:
        return sha256_stream(stream, on_bytes)


def git_blob_sha1(path: Path) -> str:
    """The git object id of a file's content: the Hub's blob id of a file that is not in LFS. It
    shows damage but not manipulation: SHA-1 can be forged."""
    digest = hashlib.sha1(usedforsecurity=False)
    with path.open("rb") as stream:
        digest.update(b"blob %d\0" % path.stat().st_size)
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def path_problem(path: str) -> str | None:
    """Why ``path`` cannot name a file inside a folder, or ``None`` if it can.

    A valid path is relative, in valid Unicode, with forward slashes, and without backslashes,
    control characters, and empty, ``.`` or ``..`` parts.
    """
    parts = path.split("/")
    controls = "\u2028\u2029"
    problems = (
        ("it is empty", not path),
        ("it is absolute", path.startswith("/") or re.match(r"[A-Za-z]:", path)),
        ("it has a backslash", "\\" in path),
        (
            "it has a control character",
            any(ord(c) < 32 or 127 <= ord(c) < 160 or c in controls for c in path),
        ),
        ("it is not valid Unicode", any(0xD800 <= ord(c) < 0xE000 for c in path)),
        ("it has an empty part", "" in parts),
        ("it has a '.' or '..' part", not {".", ".."}.isdisjoint(parts)),
    )
    return next((problem for problem, found in problems if found), None)


def check_paths(paths: Iterable[str]) -> list[Finding]:
    """What is wrong with these paths as the files of one folder: unsafe, duplicate, or both a file
    and a folder."""
    findings: list[Finding] = []
    seen: set[str] = set()
    good: list[str] = []
    for path in paths:
        problem = "it is a duplicate" if path in seen else path_problem(path)
        seen.add(path)
        if problem is None:
            good.append(path)
        else:
            findings.append(_unsafe(path, problem))
    for path in good:
        parents = path.split("/")[:-1]
        above = ("/".join(parents[: i + 1]) for i in range(len(parents)))
        if clash := next((parent for parent in above if parent in seen), None):
            findings.append(_unsafe(path, f"{clash!r} is a file and a folder"))
    return findings


def folder_digest(files: Iterable[FileFact]) -> str:
    """``sha256:HEX`` of a folder, from the digests, sizes and paths of its consumed files.

    The order does not matter. Raises :class:`IntegrityError` for an invalid path (see
    :func:`check_paths`) and for a file without a digest.
    """
    facts = list(files)
    findings = check_paths(fact.path for fact in facts)
    findings.extend(
        BAD_DIGEST.finding(
            f"Invalid digest of {fact.path!r}, which the folder's digest needs",
            found=repr(fact.sha256),
            expected=_EXPECTED,
        )
        for fact in facts
        if fact.sha256 is None or not is_digest(fact.sha256)
    )
    if findings:
        raise IntegrityError(*findings)
    lines = sorted(f"{fact.sha256} {fact.size} {fact.path}\n".encode() for fact in facts)
    return sha256_bytes(b"".join(lines))


def _unsafe(path: str, problem: str) -> Finding:
    return UNSAFE_PATH.finding(f"Unsafe path {path!r}: {problem}", found=repr(path[:200]))
