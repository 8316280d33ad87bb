"""How metrics went from version to version, as points of small plots. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .facts import Version

WIDTH, HEIGHT = 300.0, 96.0
LEFT, RIGHT, TOP, BOTTOM = 8.0, 8.0, 10.0, 10.0
MOST_DOTS = 60
"""With more versions, a plot is a line without dots."""


@dataclass(frozen=True)
class Point:
    """The value of one version. ``marked``: the version is yanked or deprecated."""

    x: float
    y: float
    version: str
    value: str
    marked: bool


@dataclass(frozen=True)
class Plot:
    """One metric. ``line`` are the coordinates of an SVG polyline."""

    metric: str
    points: tuple[Point, ...]
    line: str
    dots: tuple[Point, ...]
    low: str
    high: str

    @property
    def first(self) -> Point:
        return self.points[0]

    @property
    def last(self) -> Point:
        return self.points[-1]

    @property
    def summary(self) -> str:
        """What a person hears who does not see the picture."""
        if len(self.points) == 1:
            return f"{self.metric}: {self.last.value} in {self.last.version}"
        return (
            f"{self.metric} in {len(self.points)} versions: from {self.first.value} in "
            f"{self.first.version} to {self.last.value} in {self.last.version}; lowest {self.low}, "
            f"highest {self.high}"
        )


def plots(versions: Sequence[Version]) -> list[Plot]:
    """A plot for each metric, by its name. ``versions`` come with the newest first."""
    measured = [version for version in reversed(versions) if version.metrics]
    names = sorted({name for version in measured for name in version.metrics})
    return [_plot(name, measured) for name in names]


def number(value: float) -> str:
    """Four digits: ``0.9123``, ``1.2e-05``."""
    return f"{value:.4g}"


def _plot(name: str, versions: Sequence[Version]) -> Plot:
    values = [version.metrics[name] for version in versions if name in version.metrics]
    low, high = min(values), max(values)
    points = tuple(
        Point(
            _across(at, len(versions)),
            _down(version.metrics[name], low, high),
            version.version,
            number(version.metrics[name]),
            bool(version.marks),
        )
        for at, version in enumerate(versions)
        if name in version.metrics
    )
    line = " ".join(f"{point.x:g},{point.y:g}" for point in points)
    dots = points if len(points) <= MOST_DOTS else (points[-1],)
    return Plot(name, points, line, dots, number(low), number(high))


def _across(at: int, count: int) -> float:
    room = WIDTH - LEFT - RIGHT
    return round(LEFT + (room / 2 if count == 1 else room * at / (count - 1)), 2)


def _down(value: float, low: float, high: float) -> float:
    room = HEIGHT - TOP - BOTTOM
    # halves, so that the difference of the largest numbers stays finite
    span = high / 2 - low / 2
    part = 0.5 if span == 0 else (value / 2 - low / 2) / span
    return round(TOP + room * (1 - part), 2)
