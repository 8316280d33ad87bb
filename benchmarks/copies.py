"""What crosses from the host to a GPU while something runs, as torch's profiler saw it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def host_to_device(act: Callable[[], object]) -> list[int]:
    """Run ``act``; the bytes of each copy from the host to the device (CUPTI's ``Memcpy HtoD``)."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        act()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return copies_in(events)


def copies_in(events: list[dict[str, object]]) -> list[int]:
    """The sizes (bytes) of the host-to-device copies in a trace."""
    found: list[int] = []
    for event in events:
        arguments = event.get("args")
        if "HtoD" in str(event.get("name", "")) and isinstance(arguments, dict):
            size = arguments.get("bytes")
            if isinstance(size, int | float):
                found.append(int(size))
    return found
