"""How slow a transfer may be: a lowest rate over a window, and a time for the complete file."""

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
    """A transfer is slower than it may be. ``final``: its time is over, so a retry does not
    help."""

    def __init__(self, found: str, expected: str, hint: str, *, final: bool) -> None:
        super().__init__(f"{found}, expected {expected}")
        self.found: str = found
        self.expected: str = expected
        self.hint: str = hint
        self.final: bool = final


@dataclass(frozen=True)
class Limits:
    """``rate`` bytes a second at least (0: no limit), measured over ``stall`` seconds; ``file``
    seconds for one file (``None``: by its size, 0: no limit)."""

    rate: float = MIN_RATE
    stall: float = STALL_SECONDS
    file: float | None = None
    silence: float = SILENCE_SECONDS
    """Seconds that a connection may keep silent; never less than a configured ``stall``."""

    @classmethod
    def from_environment(cls, where: Where = Where()) -> Limits:  # noqa: B008 - frozen
        """As the user's variables say. Raises :class:`SourceError` where one is not a number."""
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
    """Watches one transfer of ``size`` bytes, over all its connections. Only the time spent
    waiting for the server counts, not the time to process the bytes."""

    def __init__(self, limits: Limits, size: int) -> None:
        self.limits: Limits = limits
        self._time: float = limits.time_for(size)
        self._waited: float = 0.0
        self._arrived: int = 0
        self._window: tuple[float, int] = (0.0, 0)

    def start_window(self) -> None:
        """Measure again from here, as for a new connection."""
        self._window = (self._waited, self._arrived)

    @property
    def in_window(self) -> tuple[float, int]:
        """Seconds and bytes since the window started."""
        since, before = self._window
        return self._waited - since, self._arrived - before

    def add(self, seconds: float, count: int) -> None:
        """``count`` bytes arrived after ``seconds`` of waiting. Raises :class:`SlowError`."""
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
        seconds, count = self.in_window
        if seconds < self.limits.stall:
            return
        if count < self.limits.rate * seconds:
            raise self.too_slow()
        self.start_window()

    def too_slow(self) -> SlowError:
        """The error for the present window."""
        seconds, count = self.in_window
        return SlowError(
            f"{count / seconds:,.0f} bytes/s over {seconds:,.0f} s",
            f"at least {self.limits.rate:,.0f} bytes/s over {self.limits.stall:,.0f} s",
            f"Run again. For a connection that is this slow, lower {RATE_VARIABLE} (bytes a "
            f"second; 0: no limit) or raise {STALL_VARIABLE}.",
            final=False,
        )


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
            f"Invalid value of {name}",
            where,
            found=repr(text[:50]),
            expected=f"a number, {least:g} or more",
        )
    return value
