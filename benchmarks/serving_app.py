"""Requests per second of the served app: eight requests with eight adapters at once, beside one at
a time.

    .venv/bin/python benchmarks/serving_app.py

The app runs in this process, on SmolLM2 in float32 with random adapters; requests go through all
of it but the network, with one thread of torch, as on one CPU of a cluster. Prints a table; only
the ratio says anything about another machine.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from adapterdock.serving.app.build_app import Settings, build_app  # noqa: E402
from adapterdock.serving.app.limits import Limits  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402
from shape import BASE_NAME, write_adapters  # noqa: E402
from support.real_models import CACHE, prepare_base  # noqa: E402

ROWS = 8
TOKENS = 16
ROUNDS = 3
WAIT = 0.02
"""Seconds that a row waits for others; also where there are none."""
PROMPT = "The capital of England is"


def write_manifest(folder: Path) -> Path:
    """SmolLM2 with as many adapters as a batch has rows."""
    adapters = write_adapters(folder / "adapters", ROWS)
    data = {
        "version": 1,
        "base": {"model": str(prepare_base(CACHE)), "aliases": [BASE_NAME], "dtype": "float32"},
        "adapters": {f"a{n}": {"source": str(path)} for n, path in enumerate(adapters)},
    }
    path = folder / "adapters.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def ask(client: TestClient, number: int) -> None:
    """One greedy answer of an adapter, of at most TOKENS tokens."""
    body: dict[str, Any] = {"model": f"a{number}", "prompt": PROMPT, "max_tokens": TOKENS}
    answer = client.post("/v1/completions", json={**body, "temperature": 0})
    assert answer.status_code == 200, answer.text


def main() -> None:
    seconds: dict[str, list[float]] = {"mixed": [], "one at a time": []}
    with tempfile.TemporaryDirectory() as place:
        limits = Limits(wait_seconds=WAIT)
        settings = Settings(write_manifest(Path(place)), limits=limits, threads=1)
        with TestClient(build_app(settings)) as client, ThreadPoolExecutor(ROWS) as pool:
            for one in (range(ROWS), range(2)):  # the first batch gathers its factors
                list(pool.map(lambda number: ask(client, number), one))
            for _ in range(ROUNDS):
                start = time.perf_counter()
                list(pool.map(lambda number: ask(client, number), range(ROWS)))
                seconds["mixed"].append(time.perf_counter() - start)
                start = time.perf_counter()
                for number in range(ROWS):
                    ask(client, number)
                seconds["one at a time"].append(time.perf_counter() - start)
    rates = {name: ROWS / median(times) for name, times in seconds.items()}
    for name, rate in rates.items():
        print(f"{name:16}{rate:8.2f} requests per second")
    print(f"{'ratio':16}{rates['mixed'] / rates['one at a time']:8.2f}x")


if __name__ == "__main__":
    main()
