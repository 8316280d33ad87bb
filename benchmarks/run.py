"""`make bench`: adapterdock beside PEFT and transformers, in one process, alternating.

Prints a table of medians and ratios and writes a plot. Absolute times belong to the machine that
printed them; the ratios are what to read. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import adapterdock
import transformers
from change import COMBINATIONS, apply_rounds, compose_rounds, merge_rounds
from decode import ROWS, decode_rounds
from find import find_rounds, rows_of_find
from limits import decode_limit
from many import many_rounds, rows_of_many
from resident import Resident, resident_adapters
from safetensors.torch import load_file
from shape import BASE_NAME, build_model, write_adapters
from table import Row, markdown, plot, put_into
from through_s3 import rows_of_s3, s3_rounds
from timing import Times, timed

ADAPTERS = 32
PEER_ADAPTERS = 8
ROUNDS = 5
PAGE = Path("docs/reference/speed.md")


def attach_round(times: Times, adapters: list[Path]) -> tuple[object, object, object]:
    """Attach one adapter after another with each library, side by side."""
    from peft import PeftModel

    ours = adapterdock.attach(build_model(), {"version": 1, "base": {"aliases": [BASE_NAME]}})
    native = build_model()
    peft: PeftModel | None = None
    under_peft = build_model()
    for number, path in enumerate(adapters, start=1):
        timed(times, "load_file", partial(load_file, path / "adapter_model.safetensors"))
        name = f"a{number}"
        timed(times, f"ours {number}", partial(ours.load_adapter, str(path), name))
        if number > PEER_ADAPTERS:
            continue
        if peft is None:
            start = time.perf_counter()
            peft = PeftModel.from_pretrained(under_peft, path, adapter_name=name)
            times["peft 1"].append(time.perf_counter() - start)
        else:
            timed(times, f"peft {number}", partial(peft.load_adapter, path, name))
        timed(
            times,
            f"transformers {number}",
            partial(native.load_adapter, str(path), adapter_name=name),
        )
    return ours, peft, native


def switch_round(times: Times, ours: object, peft: object, native: object) -> None:
    """Make another adapter the active one."""
    for number in (1, 2, 3, 4, 1):
        name = f"a{number}"
        timed(times, "switch ours", partial(ours.set_adapter, name))
        timed(times, "switch peft", partial(peft.set_adapter, name))
        timed(times, "switch transformers", partial(native.set_adapter, name))


def validate_process(times: Times, folder: Path, adapters: list[Path]) -> None:
    """`adapterdock validate` of a local manifest with 20 adapters, as a whole process."""
    build_model().save_pretrained(folder / "base")
    lines = ["version: 1", f"base: {{model: ./base, aliases: [{BASE_NAME}]}}", "adapters:"]
    lines += [f"  a{n}: {{source: {path}}}" for n, path in enumerate(adapters[:20])]
    manifest = folder / "adapters.yaml"
    manifest.write_text("\n".join(lines) + "\n")
    command = [str(Path(sys.executable).parent / "adapterdock"), "validate", str(manifest)]
    # compiled once, as an installed package is
    peers = [sys.executable, "-c", "import torch, transformers, peft"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(6):
        timed(
            times,
            "validate 20",
            lambda: subprocess.run(command, check=True, capture_output=True, env=environment),
        )
        timed(
            times,
            "import peers",
            lambda: subprocess.run(peers, check=True, capture_output=True, env=environment),
        )
    del times["validate 20"][0], times["import peers"][0]


def misfit_bytes(folder: Path, adapter: Path) -> tuple[int, int]:
    """Bytes read to refuse an adapter for another base, and the bytes of its header."""
    import struct

    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=30,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=256,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "small")
    report = adapterdock.validate(
        {
            "version": 1,
            "base": {"model": str(folder / "small"), "aliases": [BASE_NAME]},
            "adapters": {"misfit": {"source": str(adapter)}},
        }
    )
    assert not report.ok
    with (adapter / "adapter_model.safetensors").open("rb") as stream:
        header = 8 + struct.unpack("<Q", stream.read(8))[0]
    return report.adapters["misfit"]["bytes_read"], header


def rows_of(times: Times, read: int, header: int, limits: Mapping[str, float]) -> list[Row]:
    """The table: each measurement beside its peers and its limit. ``limits`` are of decode steps,
    as multiples of the base's."""
    ms = {name: 1000 * median(values) for name, values in times.items()}
    file = ms["load_file"]
    rows = [Row("`safetensors.load_file` of an adapter (maps it)", f"{file:.1f} ms", "", "")]
    for number in (1, 2, 8, 32):
        ours = ms[f"ours {number}"]
        against, goal = f"{ours / file:.2f}x load_file", ""
        if number <= PEER_ADAPTERS:
            against += f"; PEFT {ms[f'peft {number}'] / ours:.0f}x"
            against += f", transformers {ms[f'transformers {number}'] / ours:.0f}x as long"
        if number <= PEER_ADAPTERS:
            goal = f"PEFT at least {15 if number == PEER_ADAPTERS else 5}x"
        rows.append(Row(f"attach adapter number {number}", f"{ours:.1f} ms", against, goal))
    rows.append(
        Row(
            "32nd attach beside the 2nd",
            "",
            f"{ms['ours 32'] / ms['ours 2']:.2f}x",
            "at most 1.3x",
        )
    )
    rows.append(
        Row(
            "switch the active adapter",
            f"{1000 * ms['switch ours']:.1f} us",
            f"PEFT {ms['switch peft'] / ms['switch ours']:.0f}x, transformers "
            f"{ms['switch transformers'] / ms['switch ours']:.0f}x as long",
            "PEFT at least 500x",
        )
    )
    decodes = (
        ("ours", "one adapter: ours", "at most PEFT; at most 1.15x the limit"),
        ("peft", "one adapter: PEFT", ""),
        ("ours rows", "8 adapters: ours", "at most 0.6x PEFT; at most 1.1x the limit"),
        ("peft rows", "8 adapters: PEFT", ""),
        ("dora rows", "8 DoRA adapters: ours", ""),
        ("ia3 rows", "8 IA3 adapters: ours", ""),
    )
    for name, what, goal in decodes:
        taken = ms[f"decode {name}"] / ms["decode base"]
        against = f"{taken:.2f}x base"
        if name in limits:
            against += (
                f"; {taken / limits[name]:.2f}x the limit by bytes ({limits[name]:.2f}x base)"
            )
        rows.append(
            Row(f"decode step, 8 rows, {what}", f"{ms[f'decode {name}']:.1f} ms", against, goal)
        )
    rows.append(
        Row(
            "`adapterdock validate`, 20 local adapters, whole process",
            f"{ms['validate 20']:.0f} ms",
            f"{ms['validate 20'] / ms['import peers']:.2f}x `import torch, transformers, peft`",
            "at most 0.2x that import",
        )
    )
    rows.append(
        Row(
            "bytes read to refuse a misfit",
            f"{read:,}",
            f"header {header:,} + {max(0, read - header):,}",
            "header + 65,536",
        )
    )
    return rows


def rows_of_change(times: Times, resident: Resident) -> list[Row]:
    """Merging, composing, and what many adapters take."""
    ms = {name: 1000 * median(values) for name, values in times.items()}

    def beside(name: str, peer: str) -> str:
        return f"PEFT {ms[peer] / ms[name]:.1f}x as long"

    rows = [
        Row(
            f"{act} one adapter",
            f"{ms[f'{act} ours']:.0f} ms",
            beside(f"{act} ours", f"{act} peft"),
            "",
        )
        for act in ("merge", "unmerge")
    ]
    rows += [
        Row(
            f"compose two adapters, `{method}`",
            f"{ms[f'compose {method} ours']:.0f} ms",
            beside(f"compose {method} ours", f"compose {method} peft"),
            "",
        )
        for method in COMBINATIONS
    ]
    sums = 1000 * ms["compose sum ours"]
    rows += [
        Row("compose two adapters, `sum` (exact, not made into a third)", f"{sums:.0f} us", "", ""),
        Row(
            "plan another manifest (1 of 8 adapters replaced)", f"{ms['plan ours']:.0f} ms", "", ""
        ),
        Row(
            "apply that plan",
            f"{ms['apply ours']:.0f} ms",
            beside("apply ours", "apply peft"),
            "",
        ),
        Row(
            "memory of 100 adapters beside their bytes",
            f"{resident.grew / 1e6:.0f} MB",
            f"{resident.grew / resident.parameters:.3f}x",
            "at most 1.05x",
        ),
        Row(
            "the same, after they were deleted",
            f"{resident.kept / 1e6:.0f} MB",
            f"{resident.kept / resident.parameters:.3f}x",
            "all returned",
        ),
    ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help=f"put the table into {PAGE}")
    parser.add_argument("--plot", type=Path, default=Path("docs/bench.svg"))
    options = parser.parse_args()
    logging.getLogger("torchao").setLevel(logging.ERROR)  # kernels for GPUs that are not here
    warnings.simplefilter("ignore")  # other libraries' notes to their own developers
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    times: Times = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        adapters = write_adapters(folder / "adapters", ADAPTERS)
        for path in adapters:
            load_file(path / "adapter_model.safetensors")
        for number in range(ROUNDS):
            print(f"round {number + 1} of {ROUNDS} ...", file=sys.stderr)
            ours = peft = native = None  # each round gets the memory of the one before
            gc.collect()
            ours, peft, native = attach_round(times, adapters)
            switch_round(times, ours, peft, native)
        decode_rounds(times, ours, peft)
        file = adapters[0] / "adapter_model.safetensors"
        limits = {
            name: decode_limit(ours.base_model, file, count)
            for name, count in (("ours", 1), ("peft", 1), ("ours rows", ROWS), ("peft rows", ROWS))
        }
        compose_rounds(times, ours, peft)
        merge_rounds(times, ours, peft)
        apply_rounds(times, adapters, peft)
        ours = peft = native = None
        gc.collect()
        resident = resident_adapters(adapters)
        validate_process(times, folder, adapters)
        many_rounds(times, folder / "many")
        find_rounds(times, folder)
        s3_rounds(times, folder / "s3")
        read, header = misfit_bytes(folder, adapters[0])
    rows = [*rows_of(times, read, header, limits), *rows_of_change(times, resident)]
    rows += rows_of_many(times)
    rows += rows_of_find(times)
    rows += rows_of_s3(times)
    text = markdown(rows)
    print(text)
    plot(times, options.plot)
    print(f"plot: {options.plot}")
    if options.page:
        put_into(PAGE, text)


if __name__ == "__main__":
    main()
