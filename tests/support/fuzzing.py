"""Feeds readers with strange inputs, and says which one broke which."""

from __future__ import annotations

import signal
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from .mutations import mutated
from .registry_readers import Reader

SECONDS = 5.0
"""Of this process, that one input may take; a fine one takes less than a thousandth of it."""


class HangsError(BaseException):
    """Not an ``Exception``, so that no reader takes it for its own."""


@dataclass
class Report:
    """How many inputs each reader got, how many it accepted, and what broke it."""

    asked: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.asked.values())


def fuzz(
    readers: Iterable[Reader],
    inputs: int,
    seed: int,
    told: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Ask the readers ``inputs`` times, in the main thread. ``seed`` decides everything."""
    random, report, known = Random(seed), Report(), set[tuple[str, str]]()
    every = list(readers)
    shares = [reader.share for reader in every]
    for number, reader in enumerate(random.choices(every, shares, k=inputs)):
        raw = mutated(random, reader.examples)
        report.asked[reader.name] += 1
        found = _ask(reader, raw)
        if found is None:
            report.accepted[reader.name] += 1
        elif found:
            lines = found.strip().splitlines()
            place = next((line for line in reversed(lines) if line.startswith("  File")), lines[0])
            if (reader.name, place) not in known:  # each fault once
                known.add((reader.name, place))
                report.broken.append(f"{reader.name}: {lines[-1]}\ninput: {raw[:2000]!r}\n{found}")
        if number % 10_000 == 9_999:
            told(report)
    return report


def _ask(reader: Reader, raw: bytes) -> str | None:
    """``None`` where the reader accepts the input, "" where it refuses it, else what broke."""
    try:
        with _limited():
            reader.read(raw)
    except reader.raises:
        return ""
    except HangsError:
        return f"it hangs\n{traceback.format_exc()}"
    except Exception:
        return traceback.format_exc()
    return None


@contextmanager
def _limited() -> Generator[None]:
    def stop(*_: object) -> None:
        raise HangsError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
