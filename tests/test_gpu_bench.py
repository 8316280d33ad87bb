"""The benchmark for a GPU, where there is none: it says so, and its rehearsal passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import adapterdock
import pytest
from support.terminal import environment

BENCHMARKS = Path(adapterdock.__path__[0]) / "benchmarks"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=500,
        env={**environment({"CUDA_VISIBLE_DEVICES": ""}), "OMP_NUM_THREADS": "1"},
    )


def test_without_a_gpu_the_script_fails_with_one_line() -> None:
    done = run()
    assert done.returncode == 2
    assert done.stdout == ""
    said = [line for line in done.stderr.splitlines() if "gpu.py" in line]
    assert said == ["benchmarks/gpu.py needs a GPU: this torch sees no CUDA device"]


@pytest.mark.slow
def test_its_rehearsal_on_the_cpu_passes_every_check_that_needs_no_gpu() -> None:
    done = run("--device", "cpu", "--small")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("ok ") for line in lines) == 10
    assert [line for line in lines if "needs a GPU" in line] == [
        "-       one copy per adapter: needs a GPU"
    ]
    assert any(line.startswith("| attach adapter number 8 |") for line in lines)


def test_a_failed_check_is_reported_and_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu
    import gpu_checks

    class Idle:
        def clear(self) -> None: ...

    def broken(_: object) -> str:
        raise AssertionError("2 copies")

    monkeypatch.setattr(gpu, "CHECKS", {"good": lambda _: "fine", "bad": broken})
    assert gpu.check_all(Idle()) == ["bad"]
    assert gpu_checks.CHECKS.keys() >= {"one copy per adapter", "device maps"}


def test_the_copies_of_a_trace_are_counted_by_their_direction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As torch.profiler exports what CUPTI saw."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from copies import copies_in

    def memcpy(name: str, size: int) -> dict[str, object]:
        return {"ph": "X", "cat": "gpu_memcpy", "name": name, "args": {"bytes": size, "stream": 7}}

    trace = [
        {"ph": "M", "name": "process_name", "args": {"name": "python"}},
        {"ph": "X", "cat": "cpu_op", "name": "aten::copy_", "args": {"Input Dims": [[4]]}},
        {"ph": "X", "cat": "cuda_runtime", "name": "cudaMemcpyAsync", "args": {"correlation": 3}},
        memcpy("Memcpy HtoD (Pageable -> Device)", 64),
        memcpy("Memcpy DtoH (Device -> Pageable)", 32),
        memcpy("Memcpy HtoD (Pinned -> Device)", 8),
        memcpy("Memcpy DtoD (Device -> Device)", 16),
    ]
    assert copies_in(trace) == [64, 8]
