"""What :mod:`gpu` checks, by name: each takes the bench and says what it saw, ``None`` where only
a GPU could show it, and raises where something is wrong."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import adapterdock
import shape
import torch
from copies import host_to_device
from safetensors.torch import load_file, save_file

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
NEAR = {F32: 2e-3, F16: 0.03, BF16: 0.2}
"""How far logits may lie from the CPU's in float32: other kernels, and rounding."""


@dataclass
class Bench:
    """The device, a folder with ``base`` (float32) and adapters, and the CPU's answers."""

    device: torch.device
    folder: Path
    count: int
    adapters: list[Path] = field(init=False)
    answers: dict[str, torch.Tensor] = field(init=False)
    manifest: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.manifest = {"version": 1, "base": {"aliases": [shape.BASE_NAME]}}
        self.adapters = shape.write_adapters(self.folder / "adapters", self.count)
        base = shape.build_model()
        base.save_pretrained(self.folder / "base")
        model = adapterdock.attach(base, self.manifest)
        model.load_adapter(str(self.adapters[0]), "a1")
        model.load_adapter(str(self.adapters[1]), "a2")
        with torch.no_grad():
            ids = _ids(2, 16)
            self.answers = {
                "base": base(ids).logits,
                "a1": model(ids, adapter="a1").logits,
                "a2": model(ids, adapter="a2").logits,
            }
        least = (self.answers["a1"] - self.answers["base"]).abs().max().item()
        assert least > 3 * max(NEAR.values()), f"the adapters change logits by only {least:.2g}"

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def main(self) -> int | str:
        """How a device map names the device."""
        return (self.device.index or 0) if self.on_gpu else "cpu"

    def synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def clear(self) -> None:
        """Give back what a check has left."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    def data_bytes(self, adapter: Path) -> int:
        """The bytes of an adapter's tensors."""
        tensors = load_file(adapter / "adapter_model.safetensors")
        return sum(tensor.nbytes for tensor in tensors.values())

    def load(self, dtype: str = "float32", device_map: Any = None, **base: Any) -> Any:
        """The base as a manifest with this ``base`` loads it, with adapters a1 and a2."""
        declared = {
            "model": str(self.folder / "base"),
            "aliases": [shape.BASE_NAME],
            "dtype": dtype,
            "device_map": {"": self.main} if device_map is None else device_map,
            **base,
        }
        sources = {f"a{n + 1}": {"source": str(self.adapters[n])} for n in range(2)}
        return adapterdock.load({"version": 1, "base": declared, "adapters": sources})


def fresh(bench: Bench, dtype: torch.dtype = F32) -> Any:
    """The base, made anew on the device."""
    return shape.build_model().to(bench.device, dtype)


def tokens(bench: Bench, rows: int, length: int) -> torch.Tensor:
    return _ids(rows, length).to(bench.device)


def _ids(rows: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, shape.CONFIG["vocab_size"], (rows, length), generator=generator)


def answer(bench: Bench, model: Any, **more: Any) -> torch.Tensor:
    """The logits for the bench's ids, on the CPU in float32."""
    with torch.no_grad():
        return model(tokens(bench, 2, 16), **more).logits.float().cpu()


def is_near(bench: Bench, found: torch.Tensor, name: str, dtype: torch.dtype = F32) -> float:
    """How far an answer lies from the CPU's; raises where it is too far."""
    far = (found - bench.answers[name]).abs().max().item()
    if not far <= NEAR[dtype]:
        raise AssertionError(f"{name}: {far:.2g} from the CPU's float32, at most {NEAR[dtype]}")
    return far


def same(found: torch.Tensor, wanted: torch.Tensor, what: str) -> None:
    if not torch.equal(found, wanted):
        far = (found.float() - wanted.float()).abs().max().item()
        raise AssertionError(f"{what}: {far:.2g} apart, bit for bit expected")


def attached(bench: Bench, dtype: torch.dtype = F32) -> Any:
    model = adapterdock.attach(fresh(bench, dtype), bench.manifest)
    for number in (1, 2):
        model.load_adapter(str(bench.adapters[number - 1]), f"a{number}")
    return model


def one_copy(bench: Bench) -> str | None:
    """Attaching copies the file's tensors to the device once, in their own dtype or in another,
    whatever dtypes the modules have, and however many adapters are there already."""
    if not bench.on_gpu:
        return None
    size = bench.data_bytes(bench.adapters[0])
    host_to_device(lambda: None)  # the profiler's own beginnings
    for dtype in (BF16, F32, None):
        base = fresh(bench, dtype or BF16)
        if dtype is None:  # a base of two dtypes
            base.model.layers[1].float()
        model = adapterdock.attach(base, bench.manifest)
        model.load_adapter(str(bench.adapters[0]), "first")
        for name in ("second", "third"):
            copies = host_to_device(
                lambda n=name, m=model: m.load_adapter(str(bench.adapters[1]), n)
            )
            if copies != [size]:
                raise AssertionError(
                    f"{len(copies)} copies of {copies[:8]} bytes, expected one of {size}"
                )
    return f"1 host-to-device copy of {size:,} bytes; onto bfloat16, float32 and mixed modules"


def logits(bench: Bench) -> str:
    model = attached(bench)
    base = is_near(bench, answer(bench, model.base_model), "base")
    far = max(is_near(bench, answer(bench, model, adapter=n), n) for n in ("a1", "a2"))
    return f"float32 within {max(base, far):.1g} of the CPU's"


def halves(bench: Bench) -> str:
    said: list[str] = []
    for dtype in (F16, BF16):
        model = attached(bench, dtype)
        found = answer(bench, model, adapter="a1")
        far = is_near(bench, found, "a1", dtype)
        said.append(f"{str(dtype).removeprefix('torch.')} within {far:.1g}")
    return ", ".join(said)


def factors(bench: Bench) -> str:
    """Each factor on its module's device, in its module's dtype or the one declared."""
    base = fresh(bench, BF16)
    base.model.layers[1].float()
    model = adapterdock.attach(base, bench.manifest)
    model.load_adapter(str(bench.adapters[0]), "follows")
    model.load_adapter(str(bench.adapters[1]), "declared", dtype="float16")
    for name, tensor in model.state_dict().items():
        wanted = F16 if ".declared." in name else F32 if "layers.1." in name else BF16
        device = next(base.parameters()).device
        if (tensor.dtype, tensor.device) != (wanted, device):
            raise AssertionError(f"{name} is {tensor.dtype} on {tensor.device}")
    return f"{len(model.state_dict())} tensors on {next(base.parameters()).device}, as wanted"


def float32_norms(bench: Bench) -> str:
    model = bench.load("bfloat16", float32_modules=["*norm*"])
    seen: set[torch.dtype] = set()
    for module in model.base_model.modules():
        if "Norm" in type(module).__name__:
            module.register_forward_hook(lambda m, a, out: seen.add(out.dtype))
            assert module.weight.dtype is F32
    far = is_near(bench, answer(bench, model, adapter="a1"), "a1", BF16)
    assert seen == {BF16}, seen
    return f"norms compute in float32, answer in bfloat16; logits within {far:.1g}"


def device_maps(bench: Bench) -> str:
    """Whole, planned, and with layers on the CPU and on disk: the same answers, and every factor
    where its module computes."""
    layers = shape.CONFIG["num_hidden_layers"]
    main = bench.main
    ends = {"model.embed_tokens": main, "model.norm": main, "lm_head": main}
    ends["model.rotary_emb"] = main

    def split(rest: str) -> dict[str, Any]:
        return ends | {
            f"model.layers.{n}": main if n < layers // 2 else rest for n in range(layers)
        }

    maps = {"{'': 0}": {"": main}, "auto": "auto", "cpu": split("cpu"), "disk": split("disk")}
    for name, parts in maps.items():
        model = bench.load(device_map=parts)
        is_near(bench, answer(bench, model.base_model), "base")
        for adapter in ("a1", "a2"):
            is_near(bench, answer(bench, model, adapter=adapter), adapter)
        devices = {d for info in model.adapters.values() for d in info.devices}
        if {d.type for d in devices} != {bench.device.type}:
            raise AssertionError(f"{name}: factors on {devices}")
        model.delete_adapter(["a1", "a2"])
        is_near(bench, answer(bench, model), "base")
        del model
        bench.clear()
    return f"{', '.join(maps)}: factors where their modules compute, answers the CPU's"


def generating(bench: Bench) -> str:
    model = attached(bench)
    how = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    prompt = tokens(bench, 2, 8)
    alone = [model.generate(prompt, adapter=name, **how) for name in ("a1", "a2")]
    rows = model.generate(prompt, adapter_names=["a1", "a2"], **how)
    same(rows[0], alone[0][0], "row 0")
    same(rows[1], alone[1][1], "row 1")
    return f"{rows.shape[1]} tokens a row; each row of a mixed batch is its own single run's"


def mixed(bench: Bench) -> str:
    model = attached(bench)
    found = answer(bench, model, adapter_names=["a2", "__base__"])
    far = [(found[0] - bench.answers["a2"][0]), (found[1] - bench.answers["base"][1])]
    worst = max(part.abs().max().item() for part in far)
    assert worst <= NEAR[F32], worst
    return f"a2 and the base in one batch, within {worst:.1g}"


def switching(bench: Bench) -> str:
    model = attached(bench)
    base, first = answer(bench, model.base_model), answer(bench, model, adapter="a1")
    for name in ("a1", "a2", None, "a1"):
        model.set_adapter(name)
        found = answer(bench, model)
        is_near(bench, found, name or "base")
    same(found, first, "a1 again")
    model.delete_adapter(["a1", "a2"])
    same(answer(bench, model), base, "the base after deleting")
    return "a1, a2, none, a1: each its own answer, the same each time"


def merging(bench: Bench) -> str:
    for dtype in (F32, BF16, F16):
        model = attached(bench, dtype)
        base = model.base_model
        before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
        model.merge_adapter(["a1"])
        is_near(bench, answer(bench, model), "a1", dtype)
        model.unmerge_adapter()
        for name, tensor in base.state_dict().items():
            same(tensor, before[name], f"{name} in {dtype}")
        del model, base, before
        bench.clear()
    return "merged answers the adapter's; unmerged bit for bit, in three dtypes"


def compiled(bench: Bench) -> str:
    """Switching and swapping within the rank: one graph."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    model = attached(bench)
    wanted = {name: answer(bench, model, adapter=name) for name in ("a1", "a2")}
    options = {} if bench.on_gpu else {"backend": "eager"}
    model.compile(max_rank=2 * shape.RANK, **options)
    for name in ("a1", "a2", "a1"):
        far = (answer(bench, model, adapter=name) - wanted[name]).abs().max().item()
        assert far <= NEAR[F32], (name, far)
    graphs = counters["stats"]["unique_graphs"]
    other = _of_another_rank(bench)
    model.load_adapter(str(other), "a1", hotswap=True)
    swapped = answer(bench, model, adapter="a1")
    far = (swapped - wanted["a2"]).abs().max().item()
    assert far <= NEAR[F32], far
    again = counters["stats"]["unique_graphs"]
    torch._dynamo.reset()
    if graphs != again:
        raise AssertionError(f"{graphs} graphs, and {again} after a hot swap")
    return f"{graphs} graph for two adapters and a hot swap from rank {shape.RANK} to another"


def _of_another_rank(bench: Bench) -> Path:
    """a2 with half of its rank's worth of zeros beside it: the same answer at a larger rank."""
    source, to = bench.adapters[1], bench.folder / "wider"
    if to.exists():
        return to
    tensors = load_file(source / "adapter_model.safetensors")
    wide: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        along = 0 if ".lora_A." in key else 1
        zeros = torch.zeros_like(tensor.narrow(along, 0, shape.RANK // 2))
        wide[key] = torch.cat([tensor, zeros], along)
    config = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    rank = shape.RANK + shape.RANK // 2
    config |= {"r": rank, "lora_alpha": config["lora_alpha"] * rank // shape.RANK}
    to.mkdir()
    save_file(wide, to / "adapter_model.safetensors", metadata={"format": "pt"})
    (to / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return to


CHECKS: Mapping[str, Callable[[Bench], str | None]] = {
    "one copy per adapter": one_copy,
    "logits": logits,
    "float16 and bfloat16": halves,
    "dtypes and devices of factors": factors,
    "float32 norms": float32_norms,
    "device maps": device_maps,
    "generate": generating,
    "mixed batch": mixed,
    "switch": switching,
    "merge and unmerge": merging,
    "hot swap under torch.compile": compiled,
}
