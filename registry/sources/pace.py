"""How slow a transfer may be: a least rate over a window, and a time for the whole file."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from ...manifests.bounds import FILE_RATE, FILE_SECONDS, MIN_RATE, SILENCE_SECONDS, STALL_SECONDS
from ...manifests.findings import sources as codes
from ...manifests.findings.finding import Where
from .failures import source_error

RATE_VARIABLE = "ADAPTERDOCK_MIN_RATE"
STALL_VARIABLE = "ADAPTERDOCK_STALL_SECONDS"
FILE_VARIABLE = "ADAPTERDOCK_FILE_SECONDS"


class SlowError(Exception):
    """A transfer that is slower than it may be. ``final``: its time is over, so beginning again
    is no help."""

    def __init__(self, found: str, expected: str, hint: str, *, final: bool) -> None:
        super().__init__(f"{found}, expected {expected}")
        self.found: str = found
        self.expected: str = expected
        self.hint: str = hint
        self.final: bool = final


@dataclass(frozen=True)
class Limits:
    """``rate`` bytes a second (0: no least one), measured over ``stall`` seconds; ``file`` seconds
    for one file (``None``: by its size, 0: without end)."""

    rate: float = MIN_RATE
    stall: float = STALL_SECONDS
    file: float | None = None
    silence: float = SILENCE_SECONDS
    """Seconds that a connection may keep silent; never less than a stall that was set."""

    @classmethod
    def from_environment(cls, where: Where = Where()) -> Limits:  # noqa: B008 - frozen
        """As the user's variables say. Raises :class:`SourceError` for one that is no number."""
        rate = _number(RATE_VARIABLE, 0, where)
        stall = _number(STALL_VARIABLE, 0.1, where)
        return cls(
            MIN_RATE if rate is None else rate,
            STALL_SECONDS if stall is None else stall,
            _number(FILE_VARIABLE, 0, where),
            max(SILENCE_SECONDS, stall or 0),
        )

    @property
    def least(self) -> float:
        """Bytes that a transfer must bring in each window."""
        return self.rate * self.stall

    def time_for(self, size: int) -> float:
        """Seconds that a transfer of ``size`` bytes may take."""
        if self.file is None:
            return FILE_SECONDS + size / FILE_RATE
        return self.file or math.inf


class Pace:
    """Watches one transfer of ``size`` bytes, over all its connections. Only the time that is spent
    waiting for the other side counts, not what is done with the bytes."""

    def __init__(self, limits: Limits, size: int) -> None:
        self.limits: Limits = limits
        self._time: float = limits.time_for(size)
        self._waited: float = 0.0
        self._arrived: int = 0
        self._window: tuple[float, int] = (0.0, 0)

    def begin(self) -> None:
        """A new connection has a window of its own."""
        self._window = (self._waited, self._arrived)

    def add(self, seconds: float, count: int) -> None:
        """``seconds`` were waited, and then ``count`` bytes came. Raises :class:`SlowError`."""
        self._waited += seconds
        self._arrived += count
        if self._waited > self._time:
            raise SlowError(
                f"{self._arrived:,} bytes in {self._waited:,.0f} s",
                f"the file within {self._time:,.0f} s",
                f"Run again on a faster connection, or set {FILE_VARIABLE} (seconds for one file; "
                "0: no limit).",
                final=True,
            )
        since, before = self._window
        if self._waited - since < self.limits.stall:
            return
        seconds, count = self._waited - since, self._arrived - before
        if count < self.limits.rate * seconds:
            raise self.too_slow(seconds, count)
        self.begin()

    def too_slow(self, seconds: float, count: int) -> SlowError:
        """The error for ``count`` bytes in ``seconds``."""
        return SlowError(
            f"{count / seconds:,.0f} bytes/s over {seconds:,.0f} s",
            f"at least {self.limits.rate:,.0f} bytes/s over {self.limits.stall:,.0f} s",
            f"Run again. For a connection that is this slow, lower {RATE_VARIABLE} (bytes a "
            f"second; 0: no limit) or raise {STALL_VARIABLE}.",
            final=False,
        )

    @property
    def since_begin(self) -> tuple[float, int]:
        """Seconds and bytes since the window began."""
        since, before = self._window
        return self._waited - since, self._arrived - before


def _number(name: str, least: float, where: Where) -> float | None:
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value < math.inf:
        raise source_error(
            codes.BAD_SETTING,
            f"{name} cannot be used",
            where,
            found=repr(text[:50]),
            expected=f"a number, {least:g} or more",
        )
    return value
