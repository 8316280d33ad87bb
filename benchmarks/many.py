"""How long a catalogue takes: ``adapterdock validate FOLDER`` with 1,000 manifests, one process.

Each manifest has an adapter of the benchmark's shape (420 tensors), all are on one base. Files are
sparse: validating reads headers only. Also runs by itself: ``python benchmarks/many.py``, and with
``--profile`` prints where the time goes.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from shape import ADAPTER_CONFIG, BASE_NAME, CONFIG, RANK, SIZES
from table import Row
from timing import Times, timed

MANIFESTS = 1_000
ROUNDS = 3
CORES = 2


def many_rounds(times: Times, folder: Path) -> None:
    """Validate the catalogue, each time in a new process on two cores."""
    print(f"{MANIFESTS:,} manifests ...", file=sys.stderr)
    write_catalogue(folder)
    command = [str(Path(sys.executable).parent / "adapterdock"), "validate", str(folder)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(ROUNDS):
        timed(
            times,
            "validate many",
            lambda: subprocess.run(
                command,
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                preexec_fn=_on_two_cores,
            ),
        )


def rows_of_many(times: Times) -> list[Row]:
    """The table's row."""
    taken = median(times["validate many"])
    return [
        Row(
            f"`adapterdock validate` of {MANIFESTS:,} manifests with one adapter each, one process "
            f"on {CORES} cores",
            f"{taken:.1f} s",
            f"{1000 * taken / MANIFESTS:.1f} ms each",
            "under 10 s",
        )
    ]


def write_catalogue(folder: Path) -> None:
    """A base, and folders with a manifest and an adapter each."""
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **CONFIG}
    _write_sparse(folder / "base" / "model.safetensors", _base_tensors(), "F32", 4)
    (folder / "base" / "config.json").write_text(json.dumps(config))
    adapter = {
        f"base_model.model.model.layers.{layer}.{name}.lora_{factor}.weight": shape
        for layer in range(CONFIG["num_hidden_layers"])
        for name, (inputs, outputs) in SIZES.items()
        for factor, shape in (("A", (RANK, inputs)), ("B", (outputs, RANK)))
    }
    for number in range(MANIFESTS):
        place = folder / f"team-{number % 20:02d}" / f"adapter-{number:04d}"
        _write_sparse(place / "adapter" / "adapter_model.safetensors", adapter, "BF16", 2)
        (place / "adapter" / "adapter_config.json").write_text(json.dumps(ADAPTER_CONFIG))
        (place / "adapters.yaml").write_text(
            f"version: 1\nbase:\n  model: ../../base\n  aliases: [{BASE_NAME}]\n"
            f"adapters:\n  a{number}:\n    source: ./adapter\nactive: a{number}\n"
        )


def _base_tensors() -> dict[str, tuple[int, ...]]:
    hidden = CONFIG["hidden_size"]
    tensors: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (CONFIG["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        tensors |= {
            f"{prefix}.{n}.weight": (outside, inside) for n, (inside, outside) in SIZES.items()
        }
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}.{norm}.weight"] = (hidden,)
    return tensors


def _write_sparse(
    path: Path, tensors: Mapping[str, tuple[int, ...]], dtype: str, width: int
) -> None:
    """A safetensors file whose values were never written, and read as zeros."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        start = end
        end += width * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)


def _on_two_cores() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def _profile(folder: Path) -> None:
    import cProfile
    import pstats

    from adapterdock.manifests.find import find_manifests
    from adapterdock.registry.access.shared_reads import Reads
    from adapterdock.registry.validate import validate

    write_catalogue(folder)
    reads = Reads()
    profile = cProfile.Profile()
    profile.enable()
    for manifest in find_manifests([folder]).manifests:  # on this thread: profilers see one
        validate(manifest, reads=reads)
    profile.disable()
    pstats.Stats(profile).sort_stats("cumtime").print_stats(40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    times: Times = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        if options.profile:
            _profile(Path(temporary))
            return
        many_rounds(times, Path(temporary))
    print("| what | median | beside | goal |\n|---|---|---|---|")
    for row in rows_of_many(times):
        print(f"| {row.what} | {row.value} | {row.ratio} | {row.goal} |")


if __name__ == "__main__":
    main()
