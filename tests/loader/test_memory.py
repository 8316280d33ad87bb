"""How much memory a process needs to load a base and to answer with an adapter: little more than
the weights take.

Measured in a process of its own, from where it stands with everything imported. The peak is
``VmHWM``, which counts the pages of mapped files as well as memory of the process's own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.large_bases import large_base, large_lora
from support.shelf import Shelf, manifest_of, write_manifest
from support.terminal import environment

pytestmark = pytest.mark.slow

_MEASURE = """
import json, sys, warnings
from pathlib import Path
import torch
import adapterdock

warnings.simplefilter("ignore")

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

def answering(manifest):
    model = adapterdock.load(Path(manifest))
    loaded = status("VmHWM")
    with torch.no_grad():
        model(torch.tensor([[4, 5, 6]]))  # touches every weight
    return model, loaded

def size(weight):
    plain = type(weight.data) is torch.Tensor
    return weight.nbytes if plain else weight.qdata.nbytes + weight.scale.nbytes

answering(sys.argv[1])  # everything is imported, and every thread started
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
idle = status("VmRSS")
model, loaded = answering(sys.argv[2])
print(json.dumps({
    "loaded": loaded - idle,
    "used": status("VmHWM") - idle,
    "weights": sum(size(weight) for weight in model.base_model.parameters()),
    "adapter": sum(tensor.nbytes for tensor in model.state_dict().values()),
    "dtypes": sorted({str(weight.dtype) for weight in model.base_model.parameters()}),
}))
"""

KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
INT8 = {
    "quant_method": "torchao",
    "quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_version": 2, "_data": {}}},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``float32`` in one file, ``bfloat16`` in files of at most 80 MB."""
    folder = tmp_path_factory.mktemp("large")
    large_base(folder / "float32", torch.float32)
    large_base(folder / "bfloat16", torch.bfloat16, shard=80_000_000)
    assert len(list((folder / "bfloat16").glob("*.safetensors"))) > 3
    for name in KINDS:
        large_lora(folder / f"lora-{name}", folder / name)
    yield folder
    shutil.rmtree(folder)


def measured(shelf: Shelf, bases: Path, folder: Path, stored: str, **base: Any) -> dict[str, Any]:
    small = manifest_of(shelf, folder / "small", base={"model": shelf.base, **base}, active="one")
    manifest = write_manifest(
        folder,
        base={"model": bases / stored, **base},
        adapters={"it": {"source": bases / f"lora-{stored}"}},
        active="it",
    )
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(small), str(manifest)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**environment(), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("stored", "base"),
    [
        ("float32", {"device_map": "auto"}),
        ("bfloat16", {"device_map": {"": "cpu"}, "float32_modules": ["*norm*"]}),
        ("float32", {"dtype": "bfloat16"}),
        ("float32", {"dtype": "float16", "device_map": "auto", "float32_modules": ["*.k_proj"]}),
        ("bfloat16", {"dtype": "float32"}),
    ],
)
def test_the_peak_is_the_bases_bytes_and_at_most_15_percent(
    stored: str, base: dict[str, Any], shelf: Shelf, bases: Path, tmp_path: Path
) -> None:
    """The bytes of its weights as they are in memory, whatever the file's dtype; up to the first
    answer, with an adapter."""
    found = measured(shelf, bases, tmp_path, stored, **base)
    assert found["weights"] > 160_000_000
    half = base.get("dtype", stored) != "float32"
    assert len(found["dtypes"]) == (2 if "float32_modules" in base else 1)
    assert (found["dtypes"] == ["torch.float32"]) is not half
    for moment in ("loaded", "used"):
        share = (found[moment] - found["adapter"]) / found["weights"]
        assert share < 1.15, f"{moment}: {share:.2f} of the base's bytes; {found}"


def test_a_base_quantised_during_loading_is_never_complete_in_memory(
    shelf: Shelf, bases: Path, tmp_path: Path
) -> None:
    """Nor is what quantising leaves behind: on the way there is what stays, and at most half of
    what the file has more (a tensor, the steps between, and what is freed before long)."""
    found = measured(shelf, bases, tmp_path, "float32", dtype="float32", quantization=INT8)
    whole = (bases / "float32" / "model.safetensors").stat().st_size
    assert found["weights"] < 0.41 * whole
    more = whole - found["weights"]
    assert found["loaded"] - found["adapter"] < found["weights"] + more / 2, found
