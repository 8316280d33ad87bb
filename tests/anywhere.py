"""``make test-anywhere``: the tests of numbers and memory, as other machines would run them.

Each run is told which of torch's kernels to take (``ATEN_CPU_CAPABILITY``; MKL's own by
``MKL_CBWR``) and how many threads, and one has two busy processes beside it. Which build of torch
is tested is the interpreter's: ``make test-anywhere VENV=.venv-default TORCH_BUILD=default`` tests
the build that pip takes by itself.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("tests/loader", "tests/upstream", "tests/test_field.py", "tests/test_real_models.py")

MACHINES: Mapping[str, Mapping[str, str]] = {
    "plain kernels": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"},
    "this machine's": {},
}


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Other work on the machine, for as long as this lasts."""
    spin = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(spin) for _ in range(processes)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def run(arguments: list[str], settings: Mapping[str, str], beside: int = 0) -> tuple[int, str]:
    """Pytest's exit status and the line with its counts."""
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=short", *arguments]
    with busy(beside):
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        print(*[line for line in lines if line.startswith(("FAILED", "ERROR", "E  "))], sep="\n")
    told = [line for line in lines if re.search(r"\d+ (passed|failed|errors?)\b", line)]
    return done.returncode, told[-1].strip("= ") if told else "no result was printed"


def main() -> int:
    import torch

    tests = sys.argv[1:] or list(TESTS)
    workers = ["-n", "logical", "--dist", "loadfile"]
    kernels = torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, {kernels}")
    failed = 0
    for machine, settings in MACHINES.items():
        for threads in (1, 4):
            of_threads = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
            began = time.monotonic()
            status, told = run([*tests, *workers], {**settings, **of_threads})
            failed += bool(status)
            taken = time.monotonic() - began
            print(f"{machine}, {threads} threads: {told} ({taken:.0f} s)", flush=True)
    status, told = run(tests, {"OMP_NUM_THREADS": "1"}, beside=2)
    print(f"this machine's, two busy processes beside it: {told}", flush=True)
    return 1 if failed or status else 0


if __name__ == "__main__":
    sys.exit(main())
