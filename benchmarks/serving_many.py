"""Requests per second of the served app with 1,000 adapters and room for 50, beside all of them in
memory.

    .venv/bin/python benchmarks/serving_many.py

Two apps run in this process, on SmolLM2 in float32 with the same random adapters; one has a
residency budget. Eight clients ask both the same questions, in alternating rounds, with one thread
of torch. Needs 3 GB of memory and 0.6 GB of disk, and takes a quarter of an hour. Prints a table;
only the ratio says anything about another machine.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from on_smollm import ask, write_manifest  # isort: skip - first, because it sets the environment
import adapterdock
from adapterdock.loader.adapter.adapter import Adapter, Built
from adapterdock.loader.base.live_base import LiveBase
from adapterdock.serving.app.build_app import build_app
from adapterdock.serving.app.settings import Settings
from fastapi.testclient import TestClient
from shape import BASE_NAME, write_small

ADAPTERS = 1000
ROOM = 50
CLIENTS = 8
TOKENS = 16
REQUESTS = 160
"""Of one round."""
ROUNDS = 3
EXPONENT = 1.0
"""Of Zipf's law: the adapter in place k is asked for as often as 1/k says. 1 is the law itself; a
larger one would ask more often for what is in memory anyway."""
PROMPT = "The capital of England is"


def locked(folder: Path) -> Path:
    """The manifest with all adapters, and its lock."""
    adapters = write_small(folder / "adapters", ADAPTERS)
    named = {f"a{number}": path for number, path in enumerate(adapters)}
    path = write_manifest(folder, BASE_NAME, named, base={"dtype": "float32"})
    adapterdock.lock(path)
    return path


def traffic() -> Iterator[list[int]]:
    """The adapters that each round asks for; the same in every run."""
    weights = [1 / place**EXPONENT for place in range(1, ADAPTERS + 1)]
    numbers = random.Random(0)
    while True:
        yield numbers.choices(range(ADAPTERS), weights, k=REQUESTS)


class Server:
    """One app. It counts how often an adapter is read again."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.reads = 0
        self.seconds: list[float] = []
        app: Any = client.app
        for adapter in app.state.service.engine.host.adapters.by_name.values():
            self._count(adapter)

    def _count(self, adapter: Adapter) -> None:
        assert adapter.reload is not None
        read: Callable[[LiveBase], Built] = adapter.reload

        def counted(live: LiveBase) -> Built:
            self.reads += 1
            return read(live)

        adapter.reload = counted

    def ask(self, number: int) -> None:
        ask(self.client, "/v1/completions", TOKENS, model=f"a{number}", prompt=PROMPT)

    def run(self, numbers: list[int]) -> None:
        """Ask for these adapters, by CLIENTS clients; each asks again when it has its answer."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            start = time.perf_counter()
            list(pool.map(self.ask, numbers))
            self.seconds.append(time.perf_counter() - start)


@contextmanager
def served(manifest: Path, residency: str | None) -> Generator[Server]:
    settings = Settings(manifest, residency=residency, threads=1, period=None)
    with TestClient(build_app(settings)) as client:
        yield Server(client)


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["ADAPTERDOCK_CACHE"] = str(folder / "cache")
        manifest = locked(folder)
        with served(manifest, None) as resident:
            app: Any = resident.client.app
            size = next(iter(app.state.service.engine.host.adapters.by_name.values())).nbytes
            with served(manifest, f"{ROOM * size}B") as limited:
                servers = (limited, resident)
                rounds = traffic()
                warm = next(rounds)  # fills the room, and is not counted
                for server in servers:
                    server.run(warm)
                    server.seconds.clear()
                limited.reads = 0
                for number in range(ROUNDS):
                    numbers = next(rounds)
                    for server in servers if number % 2 == 0 else reversed(servers):
                        server.run(numbers)
    rates = [REQUESTS / median(server.seconds) for server in servers]
    share = 100 * limited.reads / (ROUNDS * REQUESTS)
    print(f"{f'room for {ROOM}':16}{rates[0]:8.2f} requests per second")
    print(f"{'all in memory':16}{rates[1]:8.2f} requests per second")
    print(f"{'ratio':16}{rates[0] / rates[1]:8.2f}x; {share:.0f} % of the requests read an adapter")


if __name__ == "__main__":
    main()
