"""Prometheus metrics of the app. Names of adapters are labels only once they were checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .rows import Row

_ROWS = (1, 2, 4, 8, 16, 32, 64)
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The metrics of one app, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "adapterdock_requests", "Requests", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "adapterdock_request_seconds",
            "Seconds from a request to the end of its answer",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.rows = Counter(
            "adapterdock_rows",
            "Rows that ended",
            ["adapter", "kind", "end"],
            registry=self.registry,
        )
        self.tokens = Counter(
            "adapterdock_tokens", "Tokens", ["adapter", "of"], registry=self.registry
        )
        self.batch_rows = Histogram(
            "adapterdock_batch_rows", "Rows of a batch", buckets=_ROWS, registry=self.registry
        )
        self.batch_adapters = Histogram(
            "adapterdock_batch_adapters",
            "Adapters of a batch",
            buckets=_ROWS,
            registry=self.registry,
        )
        self.looks = Counter(
            "adapterdock_looks", "Looks at the manifest", ["result"], registry=self.registry
        )

    def watch(self, waiting: Callable[[], int], running: Callable[[], int]) -> None:
        """Report how many rows wait, and how many run, whenever metrics are read."""
        for name, text, read in (
            ("waiting", "Rows that wait for a batch", waiting),
            ("running", "Rows of the running batch", running),
        ):
            gauge = Gauge(f"adapterdock_rows_{name}", text, registry=self.registry)
            gauge.set_function(read)

    def state(self, behind: Callable[[], bool], adapters: Callable[[], int]) -> None:
        """Report whether the manifest says something else than what is served."""
        gauge = Gauge(
            "adapterdock_behind", "1 while the manifest cannot be followed", registry=self.registry
        )
        gauge.set_function(lambda: float(behind()))
        count = Gauge("adapterdock_adapters", "Names that are served", registry=self.registry)
        count.set_function(adapters)

    def batch(self, rows: Sequence[Row]) -> None:
        """Count a batch that is about to run."""
        self.batch_rows.observe(len(rows))
        self.batch_adapters.observe(len({row.adapter for row in rows}))

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)
