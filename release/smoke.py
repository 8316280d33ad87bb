"""What a new user does first, with an installed adapterdock and without torch.

``python release/smoke.py VERSION`` runs in a bare environment. It writes a base and two adapters
that fit it, a few kilobytes together, and takes them through init, validate, lock and pull. It
uses the standard library only, and no file of the checkout.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

HIDDEN, LAYERS, VOCABULARY, RANK = 16, 2, 32, 2


def main(version: str) -> None:
    for name in ("torch", "transformers", "numpy"):
        assert importlib.util.find_spec(name) is None, f"{name} is installed: this is not bare"
    import adapterdock

    assert adapterdock.__version__ == version, adapterdock.__version__
    assert "site-packages" in adapterdock.__file__, adapterdock.__file__
    with tempfile.TemporaryDirectory() as place:
        os.environ["ADAPTERDOCK_CACHE"] = str(Path(place, "cache"))
        os.environ["NO_COLOR"] = "1"
        folder = Path(place, "desk")
        folder.mkdir()
        os.chdir(folder)
        _first_day(version)
    print(f"adapterdock {version} on Python {sys.version.split()[0]}: works without torch")


def _first_day(version: str) -> None:
    import adapterdock

    write_base(Path("base"))
    for name in ("tone", "billing"):
        write_adapter(Path(name))
    _says(0, "--version", shows=version)
    _says(0, "init", "--model", "./base", "team.yaml", shows="team.yaml")
    _says(0, "validate", "team.yaml")
    _says(0, "lock", "team.yaml", shows="2 adapters and the base pinned")
    _says(0, "lock", "--check", "team.yaml")
    _says(0, "pull", "--frozen", "--offline", "team.yaml")
    _says(0, "show", "team.yaml", shows="billing")
    _says(0, "explain", "AD171", shows="AD171")
    assert sorted(adapterdock.pull("team.yaml", offline=True).adapters) == ["billing", "tone"]
    # what does not fit, and what needs torch, is refused with a code
    write_adapter(Path("other", "tone"), hidden=HIDDEN + 1)
    _says(0, "init", "--model", "./base", "other/team.yaml")
    _says(1, "validate", "other/team.yaml", shows="error AD3")
    _says(None, "run", "team.yaml", "-p", "hello", shows="AD903")


def _says(status: int | None, *arguments: str, shows: str = "") -> None:
    """Runs the installed command: its exit status (``None``: not 0), and what it must print."""
    command = [sys.executable, "-m", "adapterdock", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    said = done.stdout + done.stderr
    expected = done.returncode != 0 if status is None else done.returncode == status
    assert expected, f"{arguments}: exit {done.returncode}\n{said}"
    assert shows in said, f"{arguments}: no {shows!r} in\n{said}"
    assert "Traceback" not in said, said


def write_base(folder: Path) -> None:
    """A Llama with two small layers; every value is 0."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.self_attn.{x}_proj.weight": (HIDDEN, HIDDEN) for x in "qkvo"}
        shapes |= {f"{at}.mlp.{x}_proj.weight": (2 * HIDDEN, HIDDEN) for x in ("gate", "up")}
        shapes[f"{at}.mlp.down_proj.weight"] = (HIDDEN, 2 * HIDDEN)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{at}.{norm}.weight"] = (HIDDEN,)
    _write(folder, "config.json", config, "model.safetensors", shapes)


def write_adapter(folder: Path, hidden: int = HIDDEN) -> None:
    """A LoRA on the queries of every layer, as PEFT saves it."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "./base",
        "r": RANK,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(LAYERS):
        at = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        shapes[f"{at}.lora_A.weight"] = (RANK, hidden)
        shapes[f"{at}.lora_B.weight"] = (HIDDEN, RANK)
    _write(folder, "adapter_config.json", config, "adapter_model.safetensors", shapes)


def _write(
    folder: Path,
    name: str,
    config: Mapping[str, object],
    weights: str,
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(config), encoding="utf-8")
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + bytes(end)
    (folder / weights).write_bytes(content)


if __name__ == "__main__":
    main(sys.argv[1])
