"""One file, copied so that nobody else's change reaches it, and hashed while it is copied."""

from __future__ import annotations

import hashlib
import os
from io import FileIO
from pathlib import Path

from ...manifests.findings import store as codes
from ...manifests.findings.errors import IntegrityError
from ...registry.files.digests import CHUNK, PREFIX, sha256_stream
from ...registry.files.facts import FileFact
from .reflink import clone


def copy_verified(source: Path, target: Path, fact: FileFact) -> None:
    """Copy ``source`` to the new file ``target``, read-only and flushed to the disk.

    What is hashed is what was copied: a source that changes meanwhile cannot slip in.

    Raises:
        IntegrityError: The copy is not what ``fact`` says (size in bytes, ``sha256:HEX``).
        OSError: The disk refuses.
    """
    with source.open("rb", buffering=0) as old, target.open("x+b", buffering=0) as new:
        if clone(old.fileno(), new.fileno()):
            found = sha256_stream(new, limit=fact.size + 1)
            size = os.fstat(new.fileno()).st_size
        else:
            found, size = _copy(old, new, fact.size + 1)
        if size != fact.size or found != fact.sha256:
            raise IntegrityError(
                codes.LOCAL_FILE_CHANGED.finding(
                    f"{fact.path} changed after it was verified",
                    found=f"{found}, {size} bytes",
                    expected=f"{fact.sha256}, {fact.size} bytes",
                )
            )
        target.chmod(0o444)
        os.fsync(new.fileno())


def _copy(old: FileIO, new: FileIO, limit: int) -> tuple[str, int]:
    """Copy at most ``limit`` bytes; their digest and number. A source that somebody appends to
    would not end."""
    digest = hashlib.sha256()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    size = 0
    while count := old.readinto(view[: limit - size]):
        digest.update(view[:count])
        written = 0
        while written < count:
            written += new.write(view[written:count])
        size += count
    return PREFIX + digest.hexdigest(), size
