"""Every native method merged from disk to disk, experts that transformers fuses included."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import torch
from adapterdock.loader.base.disk_names import live_tensors, reverter
from adapterdock.loader.base.fused_slices import cut_of, cuts_of, rows_of
from adapterdock.loader.base.meta_model import Skeleton, _FromFiles
from adapterdock.loader.merge import fold as folding
from adapterdock.loader.merge_files import merge_to_folder
from adapterdock.manifests.findings.errors import AttachError
from adapterdock.manifests.findings.finding import Severity
from safetensors.torch import load_file
from support.merge_cases import CASES, EXPERTS, Case, saved_for
from support.moes import tiny_mixtral, tiny_qwen_moe
from support.near import ROUNDINGS, close
from support.peft_adapters import logits, peft_saves
from support.shelf import sharded, write_manifest
from support.tiny_models import tiny_model

ON_DISK = [name for name, case in CASES.items() if "conv" not in case.make.__name__]


def tensors_in(folder: Path) -> dict[str, torch.Tensor]:
    return {n: t for f in sorted(folder.glob("*.safetensors")) for n, t in load_file(f).items()}


def on_disk(base: Any, folder: Path, *, dtype: torch.dtype | None = None, **adapters: Any) -> Path:
    """The base saved, and a manifest with it and these adapters; all of them active."""
    copy.deepcopy(base).to(dtype or base.dtype).save_pretrained(folder / "base")
    return write_manifest(
        folder,
        base={"model": folder / "base"},
        adapters={name: {"source": saved} for name, saved in adapters.items()},
        active=list(adapters),
    )


def merged(manifest: Path, out: Path, **options: Any) -> None:
    """The merge, with what could not be checked of these tiny models accepted."""
    findings = adapterdock.validate(manifest).findings
    accept = [f.code for f in findings if f.severity is Severity.UNCHECKED]
    merge_to_folder(manifest, out, accept=accept, **options)


@pytest.mark.parametrize("name", ON_DISK)
def test_the_written_model_answers_as_peft_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "_PIECE", 100)
    case = CASES[name]
    base = case.make()
    saved = saved_for(case, base, tmp_path / "it")
    merged(on_disk(base, tmp_path, it=saved), tmp_path / "out", safe=True)
    again, info = type(base).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert close(logits(again.eval()), saved.answer)
    old, new = tensors_in(tmp_path / "base"), tensors_in(tmp_path / "out")
    assert old.keys() <= new.keys(), "every tensor is back under the checkpoint's own name"
    assert all(new[n].shape == t.shape and new[n].dtype is t.dtype for n, t in old.items())


def test_several_methods_on_disk_are_their_live_sum(tmp_path: Path) -> None:
    names = ("ia3", "dora", "oft", "loha", "vera", "norms")
    base = CASES["ia3"].make()
    kept = {
        name: saved_for(CASES[name], base, tmp_path / "adapters" / name, seed)
        for seed, name in enumerate(names)
    }
    manifest = on_disk(base, tmp_path, **kept)
    merged(manifest, tmp_path / "out")
    live = adapterdock.load(manifest)
    assert live.active_adapters() == list(names)
    again = type(base).from_pretrained(tmp_path / "out").eval()
    assert close(logits(again), logits(live))


# -- experts -----------------------------------------------------------------------------------

MIXTURES: dict[str, tuple[Callable[..., Any], str]] = {
    "mixtral": (tiny_mixtral, "block_sparse_moe.experts.3.w1.weight"),
    "qwen3_moe": (tiny_qwen_moe, "mlp.experts.3.up_proj.weight"),
}


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_experts_are_written_back_one_by_one(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    make, key = MIXTURES[name]
    base = make()
    saved = peft_saves(base, tmp_path / "it", target_parameters=EXPERTS, target_modules=[])
    merged(on_disk(base, tmp_path, dtype=dtype, it=saved), tmp_path / "out")
    old, new = tensors_in(tmp_path / "base"), tensors_in(tmp_path / "out")
    assert old.keys() == new.keys() and f"model.layers.1.{key}" in new
    for stored, tensor in old.items():
        assert torch.equal(new[stored], tensor) is (".experts." not in stored), stored
    again = type(base).from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    roundings = ROUNDINGS if dtype is torch.float32 else 16
    assert close(logits(again), saved.answer, roundings, computed_in=dtype)
    if dtype is torch.bfloat16:  # each value is the exact one, rounded once
        exact = down_projections(tmp_path / "base", base, saved)
        assert exact and all(torch.equal(new[n], t) for n, t in exact.items())


def down_projections(folder: Path, base: Any, saved: Any) -> dict[str, torch.Tensor]:
    """By hand: every down projection of the experts with PEFT's delta, rounded to bfloat16."""
    found: dict[str, torch.Tensor] = {}
    adapter = load_file(saved.file)
    stored = tensors_in(folder)
    for layer in range(2):
        prefix = f"base_model.model.model.layers.{layer}.mlp.experts.lora_"
        a, b = adapter[f"{prefix}A.weight"], adapter[f"{prefix}B.weight"]
        for expert in range(4):
            ends = (f".{layer}.block_sparse_moe.experts.{expert}.w2.weight",)
            ends += (f".{layer}.mlp.experts.{expert}.down_proj.weight",)
            name = next(n for n in stored if n.endswith(ends))
            delta = b[:, expert::4] @ a[expert * 4 : (expert + 1) * 4]
            found[name] = (stored[name].float() + 2.0 * delta).to(torch.bfloat16)
    return found


def test_experts_in_many_files_and_beside_other_methods(tmp_path: Path) -> None:
    base = tiny_mixtral()
    one = peft_saves(base, tmp_path / "one", target_parameters=EXPERTS, target_modules=["q_proj"])
    two = saved_for(
        Case(
            tiny_mixtral,
            CASES["ia3"].kind,
            {**CASES["ia3"].config, "target_modules": ["k_proj"], "feedforward_modules": []},
        ),
        base,
        tmp_path / "two",
    )
    manifest = on_disk(base, tmp_path, one=one, two=two)
    files = sharded(tmp_path / "base", tmp_path / "sharded")
    manifest.write_text(manifest.read_text().replace(str(tmp_path / "base"), str(files)))
    merged(manifest, tmp_path / "out")
    again = type(base).from_pretrained(tmp_path / "out").eval()
    live = adapterdock.load(manifest)
    assert close(logits(again), logits(live))
    assert {p.name for p in files.iterdir()} == {p.name for p in (tmp_path / "out").iterdir()}


def test_replaced_experts_are_written_back_too(tmp_path: Path) -> None:
    base = tiny_qwen_moe()
    saved = peft_saves(
        base, tmp_path / "it", target_modules=["q_proj"], modules_to_save=["mlp.experts"]
    )
    merged(on_disk(base, tmp_path, it=saved), tmp_path / "out")
    again = type(base).from_pretrained(tmp_path / "out").eval()
    assert close(logits(again), saved.answer)


@pytest.mark.parametrize(
    "name",
    ["phimoe", "qwen2_moe", "deepseek_v2", "deepseek_v3", "olmoe", "jamba", "mixtral", "qwen3_moe"],
)
def test_the_parts_are_those_that_transformers_own_conversion_writes(name: str) -> None:
    model = tiny_model(name)
    live = live_tensors(model)
    revert = reverter(model)
    assert revert is not None
    written = revert({n: t.detach() for n, t in live.items()})
    names = [n for n in live if n.endswith(("experts.gate_up_proj", "experts.down_proj"))]
    assert names
    for one in names:
        cuts = cuts_of(model, live, one)
        assert cuts
        for stored, cut in cuts.items():
            found = cut.stored_from(cut.taken(live[one].detach()))
            assert torch.equal(found, written[stored])
            rows = cut.rows_from(written[stored])
            assert torch.equal(
                rows, torch.cat([rows_of(live[one])[r, cut.columns] for r in cut.runs])
            )


def test_a_part_is_recognised_by_its_strides() -> None:
    live = torch.arange(4 * 6 * 5).view(4, 6, 5)
    views = {
        "an expert": live[2],
        "half of one": live[1, 3:],
        "columns": live[3, :, 1:4],
        "all the halves": live[:, :3],
        "turned": live[0].t(),
        "turned experts": live.transpose(1, 2),
        "some experts": live[1:3],
        "one row": live[2, 3],
        "one row of each": live[:, 5],
        "with a dimension of one": live[1:2],
    }
    for name, view in views.items():
        cut = cut_of(view, (4, 6, 5))
        assert cut is not None, name
        assert torch.equal(cut.stored_from(cut.taken(live)), view), name
        assert torch.equal(cut.rows_from(view), cut.taken(live)), name
    assert cut_of(live[..., ::2], (4, 6, 5)) is None
    assert cut_of(live.flatten()[3:13].view(2, 5), (4, 6, 5)) is None


def test_a_conversion_that_cannot_be_undone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that interleaves rows: its reversal copies."""
    from adapterdock.loader.base import fused_slices as cuts

    base = tiny_mixtral()
    saved = peft_saves(base, tmp_path / "it", target_parameters=EXPERTS, target_modules=[])
    manifest = on_disk(base, tmp_path, it=saved)

    def copying(model: Any) -> Any:
        revert = reverter(model)
        assert revert is not None
        return lambda state: {n: t.clone() for n, t in revert(state).items()}

    monkeypatch.setattr(cuts, "reverter", copying)
    with pytest.raises(AttachError) as caught:
        merged(manifest, tmp_path / "out")
    assert {f.code for f in caught.value.findings} == {"AD764"}
    assert not (tmp_path / "out").exists()


def test_incomplete_parts_of_a_weight_are_refused(tmp_path: Path) -> None:
    from adapterdock.loader.base.fused_slices import _covers

    base = tiny_mixtral()
    live = live_tensors(base)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    cuts = cuts_of(base, live, name)
    assert cuts is not None and len(cuts) == 8
    shape = tuple(live[name].shape)
    assert _covers(cuts.values(), shape)
    assert not _covers(list(cuts.values())[1:], shape)
    assert not _covers([*cuts.values(), next(iter(cuts.values()))], shape)


@pytest.mark.parametrize("dora", [False, True])
def test_a_delta_that_needs_the_complete_weight_is_not_made_in_parts(
    dora: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a projection that transformers turns when it loads."""
    base = tiny_mixtral()
    saved = peft_saves(base, tmp_path / "it", target_modules=["q_proj"], use_dora=dora)
    manifest = on_disk(base, tmp_path, it=saved)
    find = Skeleton.find

    def only_parts(self: Any, live: str) -> Any:
        return None if live.endswith("q_proj.weight") else find(self, live)

    def parts(self: Any, live: str) -> Any:
        place = find(self, live)
        assert place is not None
        return [(place, cut_of(torch.empty(place.info.shape), place.info.shape))]

    monkeypatch.setattr(Skeleton, "find", only_parts)
    monkeypatch.setattr(Skeleton, "find_parts", parts)
    monkeypatch.setattr(Skeleton, "find_shared", only_parts)
    if not dora:
        merged(manifest, tmp_path / "out")
        again = type(base).from_pretrained(tmp_path / "out").eval()
        assert close(logits(again), saved.answer)
        return
    monkeypatch.setattr(
        _FromFiles, "__getitem__", lambda s, n: s._skeleton.read(find(s._skeleton, s._prefix + n))
    )
    with pytest.raises(AttachError, match="needs all of it") as caught:
        merged(manifest, tmp_path / "out")
    assert {f.code for f in caught.value.findings} == {"AD764"}
