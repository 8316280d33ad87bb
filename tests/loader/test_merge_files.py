"""Merging from disk to disk gives a plain model with the live model's answers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.merge import checkpoint_writer as checkpoint
from adapterdock.loader.merge import on_disk
from adapterdock.loader.merge_files import merge_to_folder
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    AttachError,
    IntegrityError,
    RoutingError,
    UsageError,
)
from adapterdock.manifests.findings.finding import Severity
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support import peft_adapters
from support.near import ROUNDINGS, close, differs
from support.peft_adapters import Saved, ids, logits, peft_saves
from support.shelf import Shelf, files_of, manifest_of, sharded, write_manifest
from support.terminal import environment
from support.tiny_bases import fresh


def plain(folder: Path, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, **options).eval()


def tensors_in(folder: Path) -> dict[str, torch.Tensor]:
    return {n: t for f in sorted(folder.glob("*.safetensors")) for n, t in load_file(f).items()}


def codes(caught: pytest.ExceptionInfo[AdapterdockError]) -> list[str]:
    return [finding.code for finding in caught.value.findings]


@pytest.fixture
def mixed(shelf: Shelf, tmp_path: Path) -> Path:
    """A manifest whose composition ``mix`` is a weighted sum of two ranks."""
    return manifest_of(
        shelf,
        tmp_path / "project",
        compositions={"mix": {"of": {"one": 0.5, "two": -1.5}}, "odd": _ties()},
        active="one",
    )


def _ties() -> dict[str, Any]:
    return {"combine": "ties", "of": {"one": 1.0, "two": 1.0}, "density": 0.5}


# -- the model ---------------------------------------------------------------------------------


def test_the_merged_model_is_plain_and_answers_as_in_peft(
    shelf: Shelf, mixed: Path, tmp_path: Path
) -> None:
    done = merge_to_folder(mixed, tmp_path / "out", selection="mix")
    assert done.weights == {"one": 0.5, "two": -1.5}
    assert done.files == {p.name: p.stat().st_size for p in (tmp_path / "out").iterdir()}
    model = plain(tmp_path / "out")
    assert type(model).__name__ == "LlamaForCausalLM"
    assert type(model).__module__.startswith("transformers.")
    assert list(model.state_dict()) == list(shelf.model().state_dict())
    assert close(logits(model), shelf.sum(one=0.5, two=-1.5))
    own, written = files_of(shelf.base), files_of(tmp_path / "out")
    assert own.keys() == written.keys()
    assert all(own[name] == written[name] for name in own if name != "model.safetensors")


def test_the_active_adapter_is_merged_by_default(shelf: Shelf, tmp_path: Path) -> None:
    manifest = manifest_of(shelf, tmp_path / "project", active=["one", "two"])
    merge_to_folder(manifest, tmp_path / "out")
    assert close(logits(plain(tmp_path / "out")), logits(adapterdock.load(manifest)))


def test_the_merged_model_loads_and_exports_without_adapterdock(
    mixed: Path, tmp_path: Path
) -> None:
    merge_to_folder(mixed, tmp_path / "out")
    code = (
        "import sys; sys.modules['adapterdock'] = None\n"
        "import torch; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(tmp_path / 'out')!r}).eval()\n"
        f"AutoTokenizer.from_pretrained({str(tmp_path / 'out')!r})\n"
        "ids = torch.arange(14).view(2, 7)\n"
        "inputs = {'input_ids': ids, 'use_cache': False}\n"
        "out = torch.export.export(model, (), inputs).module()(**inputs).logits\n"
        "known = model(**inputs).logits\n"
        "steps = (out - known).abs().max() / known.abs().max() / torch.finfo(out.dtype).eps\n"
        f"assert steps < {ROUNDINGS}, steps\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


KINDS: dict[str, tuple[str, list[str]]] = {
    "llama head": ("llama", ["q_proj", "lm_head"]),
    "tied embedding": ("llama tied", ["embed_tokens"]),
    "tied head": ("llama tied", ["lm_head"]),
    "tied by default, Conv1D": ("gpt2", ["wte", "c_attn"]),
    "renamed head": ("gpt_neox", ["query_key_value", "embed_out"]),
    "tied with its bias": ("bert masked", ["word_embeddings"]),
    "classifier": ("bert classifier", ["query", "classifier"]),
    "four tied": ("bart", ["lm_head"]),
    "always tied, untouched": ("t5", ["q"]),
    "fused experts, untouched": ("mixtral", ["q_proj"]),
    "renamed modules": ("vit", ["query", "q_proj"]),
    "inner config": ("gemma3", ["embed_tokens"]),
    "speech head": ("whisper", ["proj_out"]),
}


def inputs_for(kind: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    if kind == "vit":
        return {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator)}
    if kind == "whisper":
        sound = torch.randn(2, 8, 40, generator=generator)
        return {"input_features": sound, "decoder_input_ids": ids(length=4)}
    if kind in ("t5", "bart"):
        return {"input_ids": ids(), "decoder_input_ids": ids(length=4)}
    return {"input_ids": ids()}


def kind_on_disk(
    kind: str, targets: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, Saved, Path, dict[str, torch.Tensor]]:
    """A base of this kind and PEFT's adapter for it, saved, with a manifest about them."""
    inputs = inputs_for(kind)
    monkeypatch.setattr(peft_adapters, "inputs_of", lambda _: inputs)
    base = fresh(kind)
    base.save_pretrained(folder / "base")
    saved = peft_saves(
        base, folder / "it", target_modules=targets, save={"save_embedding_layers": False}
    )
    manifest = write_manifest(
        folder,
        base={"model": folder / "base"},
        adapters={"it": {"source": saved}},
        active="it",
    )
    return base, saved, manifest, inputs


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_base_loads_again_with_pefts_answer(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, targets = KINDS[name]
    base, saved, manifest, inputs = kind_on_disk(kind, targets, tmp_path, monkeypatch)
    accept = [
        f.code for f in adapterdock.validate(manifest).findings if f.severity is Severity.UNCHECKED
    ]
    merge_to_folder(manifest, tmp_path / "out", accept=accept, safe=True)
    again, info = type(base).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert differs(saved.answer, logits(base, inputs))
    assert close(logits(again.eval(), inputs), saved.answer)
    old, new = tensors_in(tmp_path / "base"), tensors_in(tmp_path / "out")
    assert old.keys() <= new.keys(), "every tensor is back under the checkpoint's own name"
    assert all(new[n].shape == t.shape and new[n].dtype is t.dtype for n, t in old.items())


def test_the_config_changes_only_if_tied_weights_are_separated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, manifest, _ = kind_on_disk("llama tied", ["embed_tokens"], tmp_path, monkeypatch)
    merge_to_folder(manifest, tmp_path / "out")
    old, new = (json.loads((tmp_path / f / "config.json").read_text()) for f in ("base", "out"))
    assert new.pop("tie_word_embeddings") is False and old.pop("tie_word_embeddings") is True
    assert old == new
    added = tensors_in(tmp_path / "out").keys() - tensors_in(tmp_path / "base").keys()
    assert added == {"lm_head.weight"}


def test_weights_that_the_architecture_always_ties_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, manifest, _ = kind_on_disk("t5", ["lm_head", "q"], tmp_path, monkeypatch)
    with pytest.raises(AttachError) as caught:
        merge_to_folder(manifest, tmp_path / "out")
    assert codes(caught) == ["AD760"]
    assert not (tmp_path / "out").exists()


def test_replacements_and_biases_are_merged_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = fresh("bert classifier")
    base.save_pretrained(tmp_path / "base")
    saved = peft_saves(
        base, tmp_path / "it", target_modules=["query"], task_type="SEQ_CLS", bias="all"
    )
    manifest = write_manifest(
        tmp_path, base={"model": tmp_path / "base"}, adapters={"it": {"source": saved}}, active="it"
    )
    merge_to_folder(manifest, tmp_path / "out")
    again = type(base).from_pretrained(tmp_path / "out").eval()
    assert close(logits(again), saved.answer)


def test_a_checkpoint_without_the_model_prefix_keeps_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As GPT-2's own on the Hub: ``h.0.attn`` where the model says ``transformer.h.0.attn``."""
    base, saved, manifest, inputs = kind_on_disk("gpt2", ["wte", "c_attn"], tmp_path, monkeypatch)
    path = tmp_path / "base" / "model.safetensors"
    bare = {n.removeprefix("transformer."): t for n, t in load_file(path).items()}
    save_file(bare, path, {"format": "pt"})
    merge_to_folder(manifest, tmp_path / "out")
    new = tensors_in(tmp_path / "out")
    assert new.keys() - bare.keys() == {"lm_head.weight"}
    assert close(logits(type(base).from_pretrained(tmp_path / "out").eval(), inputs), saved.answer)


# -- precision ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_base_is_merged_in_float32_and_rounded_once(
    dtype: torch.dtype, shelf: Shelf, tmp_path: Path
) -> None:
    half = shelf.model().to(dtype)
    half.save_pretrained(tmp_path / "base")
    manifest = manifest_of(shelf, tmp_path, base={"model": tmp_path / "base"}, active="one")
    merge_to_folder(manifest, tmp_path / "out")
    old, new = tensors_in(tmp_path / "base"), tensors_in(tmp_path / "out")
    adapter = load_file(shelf.one.file)
    touched = 0
    for name, before in old.items():
        factors = f"base_model.model.{name.removesuffix('.weight')}.lora_{{}}.weight"
        a, b = (adapter.get(factors.format(x)) for x in "AB")
        if a is None or b is None:
            assert torch.equal(new[name], before)
            continue
        touched += 1
        exact = (before.double() + 2.0 * (b.double() @ a.double())).to(dtype)
        assert new[name].dtype is dtype
        spacing = torch.finfo(dtype).eps * exact.abs().float()
        wrong = (new[name] != exact).float().mean()
        assert wrong < 0.01 and bool(((new[name] - exact).abs().float() <= spacing).all())
    assert touched == 14


def test_another_dtype_is_written_into_the_weights_and_the_config(
    shelf: Shelf, mixed: Path, tmp_path: Path
) -> None:
    merge_to_folder(mixed, tmp_path / "float32")
    merge_to_folder(mixed, tmp_path / "out", dtype="float16")
    exact, half = tensors_in(tmp_path / "float32"), tensors_in(tmp_path / "out")
    assert all(torch.equal(half[n], t.half()) for n, t in exact.items())
    assert plain(tmp_path / "out").dtype is torch.float16
    assert "float16" in (tmp_path / "out" / "config.json").read_text()


def test_safe_refuses_infinite_values_and_writes_nothing(shelf: Shelf, tmp_path: Path) -> None:
    manifest = manifest_of(shelf, tmp_path / "project", compositions={"loud": {"of": {"one": 1e6}}})
    out = tmp_path / "out"
    with pytest.raises(AttachError) as caught:
        merge_to_folder(manifest, out, selection="loud", dtype="float16", safe=True)
    assert set(codes(caught)) == {"AD759"} and len(codes(caught)) == 14
    assert sorted(p.name for p in tmp_path.iterdir()) == ["project"]
    merge_to_folder(manifest, out, selection="loud", dtype="float16")


# -- files -------------------------------------------------------------------------------------


def test_the_bases_own_files_are_kept_or_repacked(shelf: Shelf, tmp_path: Path) -> None:
    base = sharded(shelf.base, tmp_path / "base")
    manifest = manifest_of(shelf, tmp_path, base={"model": base}, active="one")
    merge_to_folder(manifest, tmp_path / "same")
    assert files_of(base).keys() == files_of(tmp_path / "same").keys()
    merge_to_folder(manifest, tmp_path / "packed", max_shard_size=12_000)
    parts = sorted((tmp_path / "packed").glob("*.safetensors"))
    assert 2 < len(parts) < len(list(base.glob("*.safetensors")))
    assert parts[0].name == f"model-00001-of-{len(parts):05d}.safetensors"
    assert all(sum(t.nbytes for t in load_file(p).values()) <= 12_000 for p in parts)
    index = json.loads((tmp_path / "packed" / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {n: p.name for p in parts for n in load_file(p)}
    assert index["metadata"]["total_size"] == sum(
        t.nbytes for t in tensors_in(tmp_path / "packed").values()
    )
    merge_to_folder(manifest, tmp_path / "one", max_shard_size=10**9)
    assert "model.safetensors" in files_of(tmp_path / "one")
    assert "model.safetensors.index.json" not in files_of(tmp_path / "one")
    for name in ("same", "packed", "one"):
        assert close(logits(plain(tmp_path / name)), shelf.one.answer)


def test_the_same_inputs_give_the_same_bytes_for_any_number_of_threads(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large product is summed up in another order on two threads; a small one is not, so the
    number is asked as well."""
    merge_to_folder(mixed, tmp_path / "out", selection="mix")
    real, seen = checkpoint.Item.value, set[int]()

    def asked(self: Any, old: torch.Tensor) -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return real(self, old)

    monkeypatch.setattr(checkpoint.Item, "value", asked)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        merge_to_folder(mixed, tmp_path / "again", selection="mix")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == {1}
    assert files_of(tmp_path / "out") == files_of(tmp_path / "again")


def test_only_the_header_records_what_was_merged(mixed: Path, tmp_path: Path) -> None:
    merge_to_folder(mixed, tmp_path / "out", selection="mix")
    adapterdock.lock(mixed)
    lock = mixed.with_suffix(".lock").read_text()
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata.keys() == {"format", "adapterdock.merged"} and metadata["format"] == "pt"
    record = json.loads(metadata["adapterdock.merged"])
    assert record["adapters"]["one"]["weight"] == 0.5
    assert record["adapters"]["two"]["digest"] in lock and record["base"].startswith("sha256:")
    for name, data in files_of(tmp_path / "out").items():
        assert name.endswith(".safetensors") or b"adapterdock" not in data


def test_a_folder_is_replaced_only_if_it_is_ours(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    merge_to_folder(mixed, out)
    first = files_of(out)
    merge_to_folder(mixed, out, selection="two")
    assert files_of(out) != first
    (out / "notes.txt").write_text("mine")
    before = files_of(out)
    with pytest.raises(UsageError) as caught:
        merge_to_folder(mixed, out)
    assert codes(caught) == ["AD930"] and "notes.txt" in str(caught.value)
    assert files_of(out) == before
    for taken in (tmp_path / "project", mixed):
        with pytest.raises(UsageError) as caught:
            merge_to_folder(mixed, taken)
        assert codes(caught) == ["AD930"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "project"]


def test_a_plain_model_is_not_replaced(shelf: Shelf, mixed: Path, tmp_path: Path) -> None:
    plain(shelf.base).save_pretrained(tmp_path / "mine")
    with pytest.raises(UsageError) as caught:
        merge_to_folder(mixed, tmp_path / "mine")
    assert codes(caught) == ["AD930"]


def test_a_failed_merge_keeps_the_old_folder(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge_to_folder(mixed, tmp_path / "out")
    before, real, count = files_of(tmp_path / "out"), checkpoint.Item.value, 0
    failure: BaseException = MemoryError()

    def failing(self: Any, old: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        if count > 1:
            raise failure
        return real(self, old)

    monkeypatch.setattr(checkpoint.Item, "value", failing)
    expected: list[tuple[BaseException, type[BaseException], str | None]] = [
        (MemoryError("no more"), AttachError, "AD765"),
        (OSError(28, "No space left on device"), UsageError, "AD909"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ]
    for raised, kind, code in expected:
        failure, count = raised, 0
        with pytest.raises(kind) as caught:
            merge_to_folder(mixed, tmp_path / "out", selection="two")
        assert code is None or codes(caught) == [code]  # type: ignore[arg-type]
        assert files_of(tmp_path / "out") == before
        assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "project"]


def test_a_base_that_changes_while_it_is_merged_is_noticed(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = manifest_of(shelf, tmp_path / "project", active="one")
    real = on_disk.CheckpointWriter.take

    def tampered(self: Any, file: str, header: Any, old: Any, progress: Any) -> None:
        other = tmp_path / "other.safetensors"
        data = bytearray(old.path.read_bytes())
        data[-1] ^= 1
        other.write_bytes(bytes(data))
        real(self, file, header, replace(old, path=other), progress)

    monkeypatch.setattr(on_disk.CheckpointWriter, "take", tampered)
    with pytest.raises(IntegrityError):
        merge_to_folder(manifest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- refused -----------------------------------------------------------------------------------


def test_adapters_that_cannot_be_merged_are_refused_before_writing(
    shelf: Shelf, mixed: Path, tmp_path: Path
) -> None:
    def refused(manifest: Path, kind: type[AdapterdockError], **options: Any) -> list[str]:
        with pytest.raises(kind) as caught:
            merge_to_folder(manifest, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()
        return codes(caught)

    assert refused(mixed, RoutingError, selection="odd") == ["AD708"] * 2  # of two ranks
    idle = manifest_of(shelf, tmp_path / "idle")
    assert refused(idle, RoutingError) == ["AD761"]
    bare = write_manifest(tmp_path / "bare", base={}, adapters={"one": {"source": shelf.one}})
    assert refused(bare, UsageError, selection="one") == ["AD904"]
    quantised = manifest_of(
        shelf,
        tmp_path / "quantised",
        base={"model": shelf.base, "quantization": {"quant_method": "torchao"}},
        active="one",
    )
    assert refused(quantised, AttachError) == ["AD766"]
    ruled = manifest_of(
        shelf,
        tmp_path / "ruled",
        rules={"exclusive": [["one", "two"]]},
        compositions={"mix": {"of": {"one": 1.0, "two": 1.0}}},
    )
    with pytest.raises(AdapterdockError):
        merge_to_folder(ruled, tmp_path / "out", selection="mix")
    assert not (tmp_path / "out").exists()


def test_a_quantised_checkpoint_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    import shutil

    base = shutil.copytree(shelf.base, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8"}
    (base / "config.json").write_text(json.dumps(config))
    manifest = manifest_of(shelf, tmp_path, base={"model": base}, active="one")
    with pytest.raises(AttachError) as caught:
        merge_to_folder(manifest, tmp_path / "out")
    assert codes(caught) == ["AD766"]


def test_a_weight_stored_in_another_form_is_refused(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a projection that transformers joins of several when it loads."""
    from adapterdock.loader.base.meta_model import Skeleton

    find = Skeleton.find
    monkeypatch.setattr(
        Skeleton, "find", lambda self, live: None if "layers.1.mlp" in live else find(self, live)
    )
    with pytest.raises(AttachError) as caught:
        merge_to_folder(mixed, tmp_path / "out")
    assert codes(caught) == ["AD764"] * 3
    assert not (tmp_path / "out").exists()


# -- memory ------------------------------------------------------------------------------------

_MEASURE = """
import sys
from pathlib import Path
from adapterdock.loader.merge_files import merge_to_folder

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

small, large, out = map(Path, sys.argv[1:])
merge_to_folder(small, out / "merged-small", safe=True)  # everything is imported now
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
idle = status("VmRSS")
merge_to_folder(large, out / "merged", safe=True)
print(status("VmHWM") - idle)
"""
"""What merging takes beyond what a process needs that has imported the same and merged a tiny base:
torch alone is 250 MB or 550 MB, by its build. Not ``ru_maxrss``, which a child begins with its
parent's."""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["it", "dora", "ties"])
def test_the_peak_of_memory_does_not_depend_on_the_size_of_the_base(
    what: str, shelf: Shelf, tmp_path: Path
) -> None:
    """1.2 GB in 6 files of some 200 MB: under twice a file, the adapters, and the largest tensor in
    float32 (402 MB)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=49152,
                hidden_size=2048,
                intermediate_size=8192,
                num_hidden_layers=9,
                num_attention_heads=16,
                num_key_value_heads=8,
                tie_word_embeddings=True,
                dtype="bfloat16",
            )
        )
    model.config.architectures = ["LlamaForCausalLM"]
    base = tmp_path / "base"
    model.config.save_pretrained(base)
    state = {n: t for n, t in model.state_dict().items() if n != "lm_head.weight"}
    torch.manual_seed(0)
    noise = torch.randn(1 << 22).mul_(0.02).to(torch.bfloat16)
    shard: dict[str, torch.Tensor] = {}
    weight_map: dict[str, str] = {}
    number = 1

    def flush() -> None:
        nonlocal number
        name = f"model-{number}.safetensors"
        save_file(shard, base / name, {"format": "pt"})
        weight_map.update(dict.fromkeys(shard, name))
        shard.clear()
        number += 1

    for name, meta in state.items():
        size = meta.numel()
        values = noise.repeat(-(-size // len(noise)))[:size].view(meta.shape)
        if shard and sum(t.nbytes for t in shard.values()) + values.nbytes > 230_000_000:
            flush()
        shard[name] = values.clone()
    flush()
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    files = sorted(base.glob("*.safetensors"))
    whole, largest = sum(p.stat().st_size for p in files), max(p.stat().st_size for p in files)
    assert len(files) >= 6 and whole > 1_200_000_000

    adapter: dict[str, torch.Tensor] = {}
    for name, meta in state.items():
        if name.endswith("_proj.weight"):
            key = f"base_model.model.{name.removesuffix('.weight')}.lora_"
            adapter[f"{key}A.weight"] = torch.randn(16, meta.shape[1]) * 0.01
            adapter[f"{key}B.weight"] = torch.randn(meta.shape[0], 16) * 0.01
    embedding = "base_model.model.model.embed_tokens.lora_embedding_"
    adapter[f"{embedding}A"] = torch.randn(16, 49152) * 0.01
    adapter[f"{embedding}B"] = torch.randn(2048, 16) * 0.01
    (tmp_path / "it").mkdir()
    save_file(adapter, tmp_path / "it" / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": 16,
        "lora_alpha": 16,
        "target_modules": [
            "embed_tokens",
            *sorted({n.split(".")[-2] for n in state if "_proj" in n}),
        ],
    }
    (tmp_path / "it" / "adapter_config.json").write_text(json.dumps(config))
    names = ["it"]
    if what == "ties":
        names.append("other")
        (tmp_path / "other").mkdir()
        other = {n: t.flip(0) * 0.5 for n, t in adapter.items()}
        save_file(other, tmp_path / "other" / "adapter_model.safetensors")
        (tmp_path / "other" / "adapter_config.json").write_text(json.dumps(config))
    if what == "dora":
        for name in list(adapter):
            module, _, factor = name.rpartition(".lora_")
            if factor in ("B.weight", "embedding_B"):
                adapter[f"{module}.lora_magnitude_vector"] = torch.ones(len(adapter[name]))
        save_file(adapter, tmp_path / "it" / "adapter_model.safetensors")
        config = json.dumps({**config, "use_dora": True})
        (tmp_path / "it" / "adapter_config.json").write_text(config)
    ties = {"combine": "ties", "of": dict.fromkeys(names, 0.5), "density": 0.3}
    manifest = write_manifest(
        tmp_path,
        base={"model": base},
        adapters={name: {"source": tmp_path / name} for name in names},
        compositions={"mix": ties} if what == "ties" else {},
        active="mix" if what == "ties" else "it",
    )
    small = manifest_of(shelf, tmp_path / "small", active="one")
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(small), str(manifest), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**environment(), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    taken = int(done.stdout.split()[-1])
    brought = sum((tmp_path / n / "adapter_model.safetensors").stat().st_size for n in names)
    widened = 4 * max(meta.numel() for meta in state.values())
    assert taken < 2 * largest + brought + widened, f"{taken / 1e6:.0f} MB of {whole / 1e6:.0f}"
    written = sum(p.stat().st_size for p in (tmp_path / "merged").glob("*.safetensors"))
    assert written > whole + 49152 * 2048 * 2, "the head has its own weight"
