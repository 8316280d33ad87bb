"""mlx-lm on this machine: what it answers with an adapter's folder, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

_RUN = """
import json, sys
from pathlib import Path
import mlx.core as mx
from mlx_lm.utils import load_adapters, load_model

asked = json.loads(sys.stdin.read())
mx.set_default_device(mx.cpu)
model, config = load_model(Path(asked["model"]))
if asked["adapter"]:
    model = load_adapters(model, asked["adapter"])
rows = []
for prompt in asked["prompts"]:
    last = model(mx.array([prompt]))[0, -1].astype(mx.float32)
    rows.append((last - mx.logsumexp(last)).tolist())
print("ANSWERS" + json.dumps(rows))
"""


def log_probabilities(
    model: Path, adapter: Path | None, prompts: Sequence[Sequence[int]]
) -> torch.Tensor:
    """The logarithms of all next tokens' probabilities after each prompt (prompts, vocabulary)."""
    wanted = {
        "model": str(model),
        "adapter": None if adapter is None else str(adapter),
        "prompts": [[*prompt] for prompt in prompts],
    }
    done = subprocess.run(
        [sys.executable, "-c", _RUN],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS")]
    assert lines, done.stderr[-3000:]
    return torch.tensor(json.loads(lines[0].removeprefix("ANSWERS")))
