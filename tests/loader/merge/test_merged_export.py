"""A merged model has no trace of us: it exports like any other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from adapterdock.loader.merge_files import merge_to_folder
from safetensors.torch import load_file, save_file
from support.merge_cases import CASES, saved_for
from support.near import close, differs
from support.peft_adapters import adapted, attach, ids, logits, tiny_llama
from support.shelf import Shelf, manifest_of
from support.terminal import environment

METHODS = ("ia3", "dora", "oft", "loha", "lokr", "vera", "adalora", "norms")

_EXPORT = """
import sys
sys.modules["adapterdock"] = None
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

folder, out = map(Path, sys.argv[1:])
model = AutoModelForCausalLM.from_pretrained(folder).eval()
ids = load_file(out / "ids.safetensors")["ids"]
inputs = {"input_ids": ids, "use_cache": False}
program = torch.export.export(model, (), inputs)
found = {"plain": model(**inputs).logits, "export": program.module()(**inputs).logits}

import onnx
from onnx.reference import ReferenceEvaluator

torch.onnx.export(program, (), str(out / "model.onnx"), kwargs=inputs, dynamo=True)
written = onnx.load(out / "model.onnx")
onnx.checker.check_model(written)
(name,) = [one.name for one in written.graph.input]
found["onnx"] = torch.from_numpy(ReferenceEvaluator(written).run(None, {name: ids.numpy()})[0])
save_file({k: v.detach().contiguous() for k, v in found.items()}, out / "found.safetensors")
"""


@pytest.mark.slow
def test_a_merged_folder_exports_to_torch_and_to_onnx_where_adapterdock_is_not_installed(
    shelf: Shelf, tmp_path: Path
) -> None:
    base = shelf.model()
    sources = {name: {"source": saved_for(CASES[name], base, tmp_path / name)} for name in METHODS}
    manifest = manifest_of(
        shelf,
        tmp_path / "project",
        adapters={**sources, "one": {"source": shelf.one}},
        compositions={"mix": {"of": {**dict.fromkeys(METHODS, 1.0), "one": 0.5}}},
    )
    merge_to_folder(manifest, tmp_path / "out", selection="mix")
    save_file({"ids": ids()}, tmp_path / "ids.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", _EXPORT, str(tmp_path / "out"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=500,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "found.safetensors")
    assert differs(found["plain"], shelf.plain, 1e-2), "the adapters must matter"
    for way in ("export", "onnx"):
        assert close(found[way], found["plain"]), way


def test_a_model_that_was_merged_in_memory_exports(tmp_path: Path) -> None:
    base = tiny_llama()
    first, *others = METHODS
    model = adapted(base, saved_for(CASES[first], base, tmp_path / first), first)
    for name in others:
        attach(model, saved_for(CASES[name], base, tmp_path / name), name)
    live = logits(model, adapter=list(METHODS))
    merged = model.merge_and_unload(list(METHODS))
    program = torch.export.export(merged, (), {"input_ids": ids(), "use_cache": False})
    answer = program.module()(input_ids=ids(), use_cache=False).logits.detach()
    assert close(answer, live)
