"""Contents that arrive in pieces, compared with what their descriptors say."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ...manifests.findings import store as store_codes
from ...manifests.findings.code import Code
from ...manifests.findings.errors import IntegrityError
from ..files.digests import PREFIX
from .manifest import Descriptor


class Checked:
    """Compares a content that comes in pieces with its descriptor. Every method raises
    :class:`IntegrityError` where it differs; ``hint`` says what to do then."""

    def __init__(self, descriptor: Descriptor, *, hint: str | None = None) -> None:
        self._descriptor: Descriptor = descriptor
        self._hint: str | None = hint
        self._hash = hashlib.sha256()
        self.size: int = 0

    def announced(self, size: int) -> None:
        """The content will have ``size`` bytes."""
        if size != self._descriptor.size:
            raise wrong_content(
                store_codes.WRONG_SIZE,
                self._descriptor,
                "has another size than its manifest says",
                f"{size} bytes",
                f"{self._descriptor.size} bytes",
                hint=self._hint,
            )

    def add(self, chunk: bytes) -> None:
        """The next piece."""
        self.size += len(chunk)
        self._hash.update(chunk)
        if self.size > self._descriptor.size:
            self.announced(self.size)

    def finish(self) -> None:
        """There is no other piece."""
        self.announced(self.size)
        digest = PREFIX + self._hash.hexdigest()
        if digest != self._descriptor.digest:
            raise wrong_content(
                store_codes.WRONG_DIGEST,
                self._descriptor,
                "has another digest than its manifest says",
                digest,
                self._descriptor.digest,
                hint=self._hint,
            )


@contextmanager
def removed_on_failure(path: Path) -> Generator[None]:
    """Remove a new file where writing it fails. One that exists already stays."""
    there = os.path.lexists(path)
    try:
        yield
    except BaseException:
        if not there:
            path.unlink(missing_ok=True)
        raise


def wrong_content(
    code: Code,
    descriptor: Descriptor,
    problem: str,
    found: object,
    expected: object,
    *,
    hint: str | None = None,
) -> IntegrityError:
    """The error for a content that is not what its descriptor says."""
    what = descriptor.title or descriptor.digest
    return IntegrityError(
        code.finding(f"{what} {problem}", found=found, expected=expected, hint=hint)
    )
