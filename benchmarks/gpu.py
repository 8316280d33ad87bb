"""The same on a GPU: checks that its answers are the CPU's, and that attaching is one copy.

    python benchmarks/gpu.py

Prints what was checked and a table of medians; exits with 1 if a check failed, and with 2 on a
machine without CUDA. `--device cpu` rehearses everything that does not need a GPU, `--small` on a
model of two layers. No test and no other benchmark needs this one.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import adapterdock
import shape
import torch
import transformers
from gpu_checks import CHECKS, Bench, fresh, tokens
from safetensors.torch import load_file
from table import Row, markdown
from timing import Times, timed

ROUNDS = 5
ADAPTERS = 8


def check_all(bench: Bench) -> list[str]:
    """Run every check, print a line for each, and return the names of those that failed."""
    failed: list[str] = []
    for name, check in CHECKS.items():
        try:
            said = check(bench)
        except Exception as error:
            failed.append(name)
            place = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {str(error)[:300]} (line {place.lineno})"
            print(f"FAILED  {name}: {said}")
        else:
            print(f"{'ok' if said is not None else '-':<7} {name}: {said or 'needs a GPU'}")
        bench.clear()
    return failed


def times_of(bench: Bench) -> Times:
    """Attaching, switching and decoding, each library in turn."""
    from peft import PeftModel

    times: Times = defaultdict(list)
    device, adapters = bench.device, bench.adapters
    done: Callable[[], None] = bench.synchronize

    def run(name: str, act: Callable[[], object]) -> None:
        done()
        timed(times, name, lambda: (act(), done()))

    for turn in range(ROUNDS):
        ours = adapterdock.attach(fresh(bench), bench.manifest)
        theirs: PeftModel | None = None
        under = fresh(bench)
        for number, path in enumerate(adapters, start=1):
            name, file = f"a{number}", path / "adapter_model.safetensors"
            if turn:
                run("load_file", partial(load_file, file, device=str(device)))
            run(f"ours {number}", partial(ours.load_adapter, str(path), name))
            if theirs is None:
                theirs = PeftModel.from_pretrained(under, path, adapter_name=name)
            else:
                run(f"peft {number}", partial(theirs.load_adapter, path, name))
        for number in (1, 2, 3):
            run("switch ours", partial(ours.set_adapter, f"a{number}"))
            run("switch peft", partial(theirs.set_adapter, f"a{number}"))
    names = [f"a{row % ADAPTERS + 1}" for row in range(8)]
    token = tokens(bench, 8, 1)

    def step(model: Any, more: dict[str, Any]) -> None:
        model(input_ids=token, **more)
        done()

    with torch.no_grad():
        for turn in range(4 * ROUNDS):
            kept = times if turn else defaultdict(list)
            for name, model, more in (
                ("base", ours.base_model, {}),
                ("ours", ours, {"adapter": "a1"}),
                ("ours rows", ours, {"adapter_names": names}),
                ("peft", theirs, {}),
                ("peft rows", theirs, {"adapter_names": names}),
            ):
                done()
                timed(
                    kept, f"step {name}", lambda m=model, k=more: (m(input_ids=token, **k), done())
                )
    return times


def rows_of(times: Times, size: int) -> list[Row]:
    ms = {name: 1000 * median(values) for name, values in times.items()}
    file = ms["load_file"]
    rows = [Row(f"`load_file` to the device, {size / 1e6:.1f} MB", f"{file:.2f} ms", "", "")]
    for number in (1, 2, ADAPTERS):
        beside = f"{ms[f'ours {number}'] / file:.2f}x load_file"
        if f"peft {number}" in ms:
            beside += f"; PEFT {ms[f'peft {number}'] / ms[f'ours {number}']:.0f}x as long"
        rows.append(
            Row(f"attach adapter number {number}", f"{ms[f'ours {number}']:.2f} ms", beside, "")
        )
    rows.append(
        Row(
            "switch the active adapter",
            f"{1000 * ms['switch ours']:.1f} us",
            f"PEFT {ms['switch peft'] / ms['switch ours']:.0f}x as long",
            "under 50 us",
        )
    )
    for name, what in (
        ("ours", "one adapter: ours"),
        ("peft", "one adapter: PEFT"),
        ("ours rows", "8 adapters: ours"),
        ("peft rows", "8 adapters: PEFT"),
    ):
        beside = f"{ms[f'step {name}'] / ms['step base']:.2f}x base"
        rows.append(Row(f"one token, 8 rows, {what}", f"{ms[f'step {name}']:.2f} ms", beside, ""))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda:0", help="cpu: a rehearsal, without a GPU")
    parser.add_argument("--small", action="store_true", help="a model of two layers")
    parser.add_argument("--checks-only", action="store_true", help="no timings")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("benchmarks/gpu.py needs a GPU: this torch sees no CUDA device", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")  # other libraries' notes to their own developers
    logging.getLogger("torchao").setLevel(logging.ERROR)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if options.small:
        shape.CONFIG |= {"num_hidden_layers": 2, "vocab_size": 1024}
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(device, Path(temporary), ADAPTERS)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU (a rehearsal)"
        print(f"{name}, torch {torch.__version__}\n")
        failed = check_all(bench)
        if not options.checks_only:
            print()
            print(markdown(rows_of(times_of(bench), bench.data_bytes(bench.adapters[0]))))
    if failed:
        print(
            f"\n{len(failed)} of {len(CHECKS)} checks failed: {', '.join(failed)}", file=sys.stderr
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
