"""While a page is printed: a clock, a user and random numbers that are the same everywhere.

A registry records who did something and when, and its id and keys are random. With this, what the
pages show of them is the same on every machine, each time.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo
from typing import Any

_START = datetime(2026, 11, 30, 9, 0)
_counts: defaultdict[object, Iterator[int]] = defaultdict(itertools.count)


class Clock(datetime):
    """It is a minute later each time that somebody looks."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (_START + timedelta(minutes=next(_counts["clock"]))).replace(tzinfo=tz)


def _bytes(what: object) -> bytes:
    return hashlib.sha256(f"{what} {next(_counts[what])}".encode()).digest()


_real_token_hex = secrets.token_hex
_SHOWN = ("adapterdock.registry.records.", "adapterdock.registry.catalogue.")


def _token_hex(nbytes: int | None = None) -> str:
    """Names of temporary files stay random: threads make them in no order, and nobody sees them."""
    if not sys._getframe(1).f_globals["__name__"].startswith(_SHOWN):
        return _real_token_hex(nbytes)
    size = nbytes or 32
    return _bytes(size).hex()[: 2 * size]


def hold_still() -> None:
    """From now on, in this process."""
    import securesystemslib.signer  # noqa: F401 - it keeps the real class
    from adapterdock.registry.records import journal
    from cryptography.hazmat.primitives.asymmetric import ed25519

    real: Any = ed25519.Ed25519PrivateKey

    class Keys:
        from_private_bytes = staticmethod(real.from_private_bytes)

        @staticmethod
        def generate() -> Any:
            return real.from_private_bytes(_bytes("key"))

    os.environ["LOGNAME"] = "ada"
    vars(secrets)["token_hex"] = _token_hex
    vars(journal)["datetime"] = Clock
    vars(ed25519)["Ed25519PrivateKey"] = Keys
