"""The numbers under which vLLM knows adapters, made from their digests."""

from __future__ import annotations

from ...manifests.findings import serving as codes
from ...manifests.findings.errors import AttachError

_BITS = 30
_LOWEST = 1 << _BITS
"""vLLM counts the adapters that it loads itself from 1, so both never meet."""


def engine_id(digest: str) -> int:
    """A positive number of 31 bits, the same in every process.

    Args:
        digest: ``sha256:HEX``.

    Returns:
        From 2**30 up to, and without, 2**31.
    """
    bits = int(digest.rpartition(":")[2], 16) % _LOWEST
    return _LOWEST + bits


class EngineIds:
    """Every number that was used since the server was started. The engine may keep an adapter for
    as long as it runs, so a number is never free again."""

    def __init__(self) -> None:
        self._digests: dict[int, tuple[str, str]] = {}

    def take(self, name: str, digest: str) -> int:
        """The number for a digest. Raises :class:`AttachError` where another digest has it."""
        number = engine_id(digest)
        other, used = self._digests.setdefault(number, (name, digest))
        if used != digest:
            raise AttachError(
                codes.ENGINE_ID_TAKEN.finding(
                    f"Adapter {name!r} would have number {number} in the engine, which belongs to "
                    f"{other!r}",
                    found=digest,
                    expected=used,
                )
            )
        return number
