"""Requests per second of the served app: eight requests with eight adapters at once, beside one at
a time.

    .venv/bin/python benchmarks/serving_app.py

The app runs in this process, on SmolLM2 in float32 with random adapters; requests go through all
of it but the network, with one thread of torch, as on one CPU of a cluster. Prints a table; only
the ratio says anything about another machine.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from on_smollm import ask, write_manifest  # isort: skip - first, because it sets the environment
from adapterdock.serving.app.build_app import build_app
from adapterdock.serving.app.limits import Limits
from adapterdock.serving.app.settings import Settings
from fastapi.testclient import TestClient
from shape import BASE_NAME, write_adapters

ROWS = 8
TOKENS = 16
ROUNDS = 3
WAIT = 0.02
"""Seconds that a row waits for others; also where there are none."""
PROMPT = "The capital of England is"


def declared(folder: Path) -> Path:
    """The manifest: as many adapters as a batch has rows."""
    adapters = write_adapters(folder / "adapters", ROWS)
    named = {f"a{number}": path for number, path in enumerate(adapters)}
    return write_manifest(folder, BASE_NAME, named, base={"dtype": "float32"})


def answered(client: TestClient, number: int) -> None:
    ask(client, "/v1/completions", TOKENS, model=f"a{number}", prompt=PROMPT)


def main() -> None:
    seconds: dict[str, list[float]] = {"mixed": [], "one at a time": []}
    with tempfile.TemporaryDirectory() as place:
        limits = Limits(wait_seconds=WAIT)
        settings = Settings(declared(Path(place)), limits=limits, threads=1)
        with TestClient(build_app(settings)) as client, ThreadPoolExecutor(ROWS) as pool:
            for one in (range(ROWS), range(2)):  # the first batch gathers its factors
                list(pool.map(lambda number: answered(client, number), one))
            for _ in range(ROUNDS):
                start = time.perf_counter()
                list(pool.map(lambda number: answered(client, number), range(ROWS)))
                seconds["mixed"].append(time.perf_counter() - start)
                start = time.perf_counter()
                for number in range(ROWS):
                    answered(client, number)
                seconds["one at a time"].append(time.perf_counter() - start)
    rates = {name: ROWS / median(times) for name, times in seconds.items()}
    for name, rate in rates.items():
        print(f"{name:16}{rate:8.2f} requests per second")
    print(f"{'ratio':16}{rates['mixed'] / rates['one at a time']:8.2f}x")


if __name__ == "__main__":
    main()
