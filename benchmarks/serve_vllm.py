"""What adapterdock costs a vLLM server: starts and requests beside plain vLLM's `--lora-modules`.

    make test-serving    # once: it makes vLLM's environment
    .venv/bin/python benchmarks/serve_vllm.py

Two starts, with the same 50 adapters and room for 4 in memory. Then one of ours, which comes from a
registry, is promoted there twice; the server looks once a second. Prints a table; only the ratios
say anything about another machine.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import adapterdock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from on_smollm import smollm, write_manifest  # noqa: E402
from promoted import BASE_NAME, NAME, SOURCE, VERSIONS, Promoted  # noqa: E402
from support.real_vllm import VllmServer, wait_for  # noqa: E402

ADAPTERS = 50
"""One of them in the registry, the others in folders."""
ASKED = 8
NEXT = 3
PROMOTIONS = 2
OPTIONS = ("--max-lora-rank", "8", "--max-loras", "2", "--max-cpu-loras", "4")


def write_adapters(folder: Path) -> list[str]:
    """Adapters with different bytes and the same weights."""
    names = [f"pirate-{number}" for number in range(ADAPTERS - 1)]
    for name in names:
        to = shutil.copytree(ROOT / "manifests" / "quickstart" / "pirate", folder / name)
        config = json.loads((to / "adapter_config.json").read_text())
        (to / "adapter_config.json").write_text(json.dumps({**config, "revision": name}))
    return names


def locked(folder: Path, names: list[str], promoted: Promoted) -> Path:
    adapters = {NAME: SOURCE, **{name: f"./{name}" for name in names}}
    manifest = write_manifest(folder, BASE_NAME, adapters, registries=promoted.registries)
    adapterdock.lock(manifest)
    return manifest


def ask(server: VllmServer, name: str) -> float:
    start = time.perf_counter()
    server.ask(name, tokens=4)
    return time.perf_counter() - start


def requests(server: VllmServer, names: list[str]) -> tuple[float, float]:
    """Seconds of the first request of an adapter that is not in memory, and of the next ones."""
    server.ask("base", tokens=4)  # warms up
    first: list[float] = []
    after: list[float] = []
    for name in names[:ASKED]:
        first.append(ask(server, name))
        after += [ask(server, name) for _ in range(NEXT)]
    return median(first), median(after)


def promotion(server: VllmServer, promoted: Promoted) -> float:
    """Seconds from a promotion in the registry to the first answer of the new version."""
    old = server.ask(NAME, tokens=4)
    start = time.perf_counter()
    promoted.promote()
    wait_for(lambda: server.ask(NAME, tokens=4) != old, pause=0)
    return time.perf_counter() - start


def main() -> None:
    base = smollm()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        names = write_adapters(folder)
        promoted = Promoted(folder, base)
        first = VERSIONS[promoted.now]
        manifest = locked(folder, names, promoted)
        rows: dict[str, list[float]] = {"start-up, 50 adapters": [], "first request": []}
        rows["next requests"] = []
        modules = [
            "--lora-modules",
            f"{NAME}={first}",
            *(f"{name}={folder / name}" for name in names),
        ]
        promotions: list[float] = []
        for ours in (True, False):
            start = time.perf_counter()
            server = VllmServer(
                folder,
                base,
                *OPTIONS,
                *([] if ours else modules),
                plugin=ours,
                **({"ADAPTERDOCK_MANIFEST": str(manifest)} if ours else {}),
            )
            try:
                server.wait_ready("/v1/adapterdock/status" if ours else "/v1/models")
                ready = time.perf_counter() - start
                for row, seconds in zip(rows, (ready, *requests(server, names)), strict=True):
                    rows[row].append(seconds)
                if ours:
                    promotions = [promotion(server, promoted) for _ in range(PROMOTIONS)]
            finally:
                server.stop()
        print(f"{'':24}{'adapterdock':>14}{'vLLM':>10}{'ratio':>8}")
        for row, (ours, plain) in rows.items():
            print(f"{row:24}{ours:12.2f} s{plain:8.2f} s{ours / plain:7.2f}x")
        print(f"{'promotion to answer':24}{median(promotions):12.2f} s")


if __name__ == "__main__":
    main()
