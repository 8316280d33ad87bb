"""mlx-lm on this machine: what it answers with an adapter's folder, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .llama_cpp import LOCAL_PYTHON

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
if "messages" in asked:
    from mlx_lm import generate
    from mlx_lm.utils import load_tokenizer

    model.set_dtype(mx.float32)
    tokenizer = load_tokenizer(Path(asked["model"]))
    prompt = tokenizer.apply_chat_template(asked["messages"], add_generation_prompt=True)
    print("ANSWERS" + json.dumps(generate(model, tokenizer, prompt, max_tokens=asked["tokens"])))
    sys.exit()
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
    rows = _asked(model, adapter, prompts=[[*prompt] for prompt in prompts])
    return torch.tensor(rows)


def answers(
    model: Path, adapter: Path | None, messages: Sequence[Mapping[str, str]], tokens: int
) -> str:
    """What it answers in float32, greedily, with at most so many tokens."""
    return _asked(model, adapter, messages=[*messages], tokens=tokens)


def _asked(model: Path, adapter: Path | None, **request: Any) -> Any:
    where = {"model": str(model), "adapter": None if adapter is None else str(adapter)}
    done = subprocess.run(
        [LOCAL_PYTHON, "-c", _RUN],
        input=json.dumps({**where, **request}),
        env={**os.environ, "MLX_DISABLE_COMPILE": "1"},  # it would call a C++ compiler
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS")]
    assert lines, done.stderr[-3000:]
    return json.loads(lines[0].removeprefix("ANSWERS"))
