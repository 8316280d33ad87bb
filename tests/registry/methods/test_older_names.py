"""Names and factors of older transformers are placed without torch, from the header alone."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapterdock.loader.weights.repacked import repacked
from adapterdock.registry.base.architectures import layout_of
from adapterdock.registry.checks.check_adapter import check_adapter
from adapterdock.registry.files.conversion import ConversionError, Rule
from adapterdock.registry.files.facts import (
    AdapterFacts,
    Conversion,
    Header,
    Joined,
    Layout,
    ModuleKind,
    ModuleShape,
    TensorInfo,
)
from adapterdock.registry.methods.older_factors import Pair, PairPart, fuse, split
from adapterdock.registry.methods.older_names import OlderNames, expert_of, targets_of
from adapterdock.registry.methods.suffixes import endings_of
from support.tiny_bases import MAKERS, base_facts_of, tiny

GATE, UP = "mlp.experts.*.gate_proj.weight", "mlp.experts.*.up_proj.weight"
EXPERTS = Rule.parse(
    {
        "match": rf"(?P<g0>{GATE.replace('*', '.*')})|(?P<g1>{UP.replace('*', '.*')})",
        "from": [GATE, UP],
        "to": ["mlp.experts.gate_up_proj"],
        "do": [["MergeModulelist", 0], ["Concatenate", 1]],
    }
)


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_names_on_disk_reach_every_live_parameter(kind: str, tmp_path: Path) -> None:
    """Applied to one name at a time, as for an adapter: each reaches a parameter of its own."""
    model = tiny(kind)
    model.save_pretrained(tmp_path)
    facts = base_facts_of(tmp_path)
    layout = layout_of(facts.config, facts.tensors)
    assert layout is not None
    names = OlderNames(layout)
    reached: dict[str, list[str]] = {}
    for name in facts.tensors:
        if names.has(name):
            reached.setdefault(name, []).append(name)
            continue
        place = names.place(name)
        if place is None:
            continue
        targets = [place.name] if place.rule is None else targets_of(place.name, place.rule)
        for target in targets:
            reached.setdefault(target, []).append(name)
            assert names.has(target)
            assert place.rule is not None or len(reached[target]) == 1
    live = {name for name, _ in model.named_parameters() if "." in name}
    assert live - layout.tied.keys() - set(layout.tied.values()) <= reached.keys()


def test_an_expert_is_identified_by_its_number() -> None:
    assert expert_of(GATE, "model.layers.7.mlp.experts.12.gate_proj.weight") == 12
    assert expert_of(r"\.experts.*.w1.weight", "layers.0.mlp.experts.3.w1.weight") == 3
    assert expert_of("attn.qkv.weight", "blocks.0.attn.qkv.weight") is None


@pytest.mark.parametrize("seed", range(20))
def test_endings_select_exactly_the_wanted_names(seed: int) -> None:
    rng = random.Random(seed)
    known = {
        ".".join(rng.choices(["a", "b", "q_proj", "0", "1"], k=rng.randint(1, 4)))
        for _ in range(40)
    }
    wanted = sorted(rng.sample(sorted(known), k=rng.randint(1, len(known))))
    found = endings_of(wanted, known)
    for name in known:
        chosen = any(name == end or name.endswith(f".{end}") for end in found)
        # no ending separates a name from a wanted name that it ends in
        if name in wanted or not any(name.endswith(f".{one}") for one in wanted):
            assert chosen == (name in wanted)


# -- factors -----------------------------------------------------------------------------------


def made(tensors: dict[str, torch.Tensor], joined: dict[str, Joined]) -> dict[str, torch.Tensor]:
    """The tensors that the loader makes of them, through the bytes."""
    infos: dict[str, TensorInfo] = {}
    at = 0
    for name, one in joined.items():
        shape = one.view
        size = torch.Size(shape).numel() * 4
        infos[name] = TensorInfo("F32", shape, at, at + size)
        at += size
    buffer = repacked(tensors.__getitem__, Conversion({}, Header(infos), {**joined}))
    return {
        name: buffer.data[info.start : info.end].view(torch.float32).view(info.shape)
        for name, info in infos.items()
    }


@pytest.mark.parametrize("seed", range(30))
def test_joined_factors_are_the_deltas_of_their_parts(seed: int) -> None:
    """For any experts, ranks and scales: each part's own product, and zeros elsewhere."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    experts, rows, columns = rng.randint(1, 4), rng.randint(1, 5), rng.randint(1, 5)
    parts: list[PairPart] = [(source, e) for source in (GATE, UP) for e in range(experts)]
    chosen = rng.sample(parts, k=rng.randint(1, len(parts)))
    tensors: dict[str, torch.Tensor] = {}
    pairs: dict[PairPart, Pair] = {}
    scales = rng.choice([[2.0], [2.0, 0.5, -1.0]])
    for n, part in enumerate(chosen):
        rank = rng.randint(1, 3)
        tensors[f"{n}.A"], tensors[f"{n}.B"] = torch.randn(rank, columns), torch.randn(rows, rank)
        shapes = (rank, columns), (rows, rank)
        pairs[part] = Pair(f"{n}.A", f"{n}.B", *shapes, rng.choice(scales))
    fused = fuse(EXPERTS, (experts, 2 * rows, columns), pairs)
    factors = made(tensors, {"A": fused.a, "B": fused.b})
    a = factors["A"].reshape(fused.a_shape).reshape(experts, -1, columns)
    b = factors["B"].reshape(fused.b_shape).reshape(2 * rows, -1, experts).permute(2, 0, 1)
    wanted = torch.zeros(experts, 2 * rows, columns)
    for (source, expert), pair in pairs.items():
        assert expert is not None
        first = 0 if source == GATE else rows
        delta = pair.scale * tensors[pair.b] @ tensors[pair.a]
        wanted[expert, first : first + rows] = delta
    torch.testing.assert_close(fused.scale * (b @ a), wanted)


def test_joined_values_are_copied_bit_for_bit() -> None:
    tensors = {"A": torch.randn(2, 3), "B": torch.randn(4, 2)}
    pair = Pair("A", "B", (2, 3), (4, 2), 3.0)
    fused = fuse(EXPERTS, (2, 8, 3), {(UP, 1): pair})
    factors = made(tensors, {"A": fused.a, "B": fused.b})
    assert torch.equal(factors["A"][1], tensors["A"])
    assert torch.equal(factors["B"][4:, :, 1], tensors["B"])
    assert not factors["A"][0].any() and not factors["B"][:4].any()
    assert fused.rank == 2 and fused.scale == 3.0


def test_a_split_weight_gives_each_target_its_rows() -> None:
    rule = Rule.parse(
        {"match": "(?P<g0>qkv)", "from": ["qkv"], "to": ["q", "k"], "do": [["Chunk", 0]]}
    )
    assert split(rule, [(4, 2), (2, 2)], 6) == [slice(0, 4), slice(4, 6)]
    with pytest.raises(ConversionError, match="7 rows"):
        split(rule, [(4, 2), (2, 2)], 7)


@pytest.mark.parametrize(
    "operations",
    [
        [["Chunk", 0], ["PermuteForRope"]],
        [["Interleave", 0], ["Chunk", 0]],
    ],
)
def test_weights_with_reordered_rows_are_not_split(operations: list[list[object]]) -> None:
    rule = replace(EXPERTS, to=("q", "k"), operations=tuple(operations))
    with pytest.raises(ConversionError, match="rows are re-ordered"):
        split(rule, [(4, 2), (2, 2)], 6)


@pytest.mark.parametrize(
    "operations",
    [
        [["ErnieFuseAndSplitTextVisionExperts", 0, 1]],
        [["Interleave", 1]],
        [["Transpose", 1, 2, True]],
        [["MergeModulelist", 0]],
    ],
)
def test_weights_with_reordered_values_are_not_joined(operations: list[list[object]]) -> None:
    rule = replace(EXPERTS, operations=tuple(operations))
    pair = Pair("A", "B", (2, 3), (4, 2), 3.0)
    with pytest.raises(ConversionError, match="values are re-ordered"):
        fuse(rule, (2, 8, 3), {(GATE, 0): pair})


# -- plans -------------------------------------------------------------------------------------

MOE = Layout(
    {
        "model": ModuleShape(ModuleKind.OTHER),
        "model.layers": ModuleShape(ModuleKind.OTHER),
        "model.layers.0": ModuleShape(ModuleKind.OTHER),
        "model.layers.0.mlp": ModuleShape(ModuleKind.OTHER),
        "model.layers.0.mlp.gate": ModuleShape(ModuleKind.OTHER, parameters={"weight": (2, 6)}),
        "model.layers.0.mlp.experts": ModuleShape(
            ModuleKind.OTHER, parameters={"gate_up_proj": (2, 8, 6), "down_proj": (2, 6, 4)}
        ),
        "model.layers.0.q_proj": ModuleShape(ModuleKind.LINEAR, 6, 6, {"weight": (6, 6)}),
    },
    prefix="model",
    conversions=lambda: (
        EXPERTS,
        Rule.parse(
            {
                "match": r"(?P<g0>mlp.experts..*\.down_proj.weight)",
                "from": ["mlp.experts.*.down_proj.weight"],
                "to": ["mlp.experts.down_proj"],
                "do": [["MergeModulelist", 0]],
            }
        ),
    ),
)


def facts_of(config: dict[str, object], *modules: tuple[str, int, int]) -> AdapterFacts:
    tensors: dict[str, TensorInfo] = {}
    for name, inner, outer in modules:
        tensors[f"base_model.model.{name}.lora_A.weight"] = TensorInfo("F32", (2, inner))
        tensors[f"base_model.model.{name}.lora_B.weight"] = TensorInfo("F32", (outer, 2))
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "x", **config}
    return AdapterFacts("a", None, said, Header(tensors))


def expert(n: int, name: str) -> tuple[str, int, int]:
    inner, outer = (4, 6) if name == "down_proj" else (6, 4)
    return f"model.layers.0.mlp.experts.{n}.{name}", inner, outer


def test_factors_of_single_experts_are_planned_as_parameters() -> None:
    names = ("gate_proj", "up_proj", "down_proj")
    every = [expert(n, name) for n in range(2) for name in names]
    facts = facts_of(
        {"target_modules": [*names, "q_proj"]}, *every, ("model.layers.0.q_proj", 6, 6)
    )
    findings, plan = check_adapter(facts, None, layout=MOE)
    assert not [f for f in findings if f.severity.value == "error"], findings
    assert plan is not None and plan.conversion is not None
    sites = {(s.module, s.settings.get("parameter")): s for s in plan.sites}
    joined = sites["model.layers.0.mlp.experts", "gate_up_proj"]
    assert (joined.rank, joined.alpha, joined.scale) == (4, 8, 2.0)
    down = sites["model.layers.0.mlp.experts", "down_proj"]
    assert (down.rank, down.scale) == (2, 2.0)
    assert sites["model.layers.0.q_proj", None].rank == 2
    header = plan.conversion.header
    assert header.tensors[joined.tensors["A"]].shape == (8, 6)
    assert header.tensors[joined.tensors["B"]].shape == (8, 8)
    config = plan.conversion.config
    assert config["target_modules"] == ["q_proj"]
    assert config["target_parameters"] == ["gate_up_proj", "down_proj"]
    said = [f.message for f in findings if f.code == "AD305"]
    assert len(said) == 1 and said[0].startswith("The adapter has names of transformers < ")


def test_a_file_of_a_split_module_alone_is_planned_and_named_in_the_finding() -> None:
    cut = {"match": r"(?P<g0>qkv)", "from": ["qkv"], "to": ["q", "k"], "do": [["Chunk", 0]]}
    linear = ModuleShape(ModuleKind.LINEAR, 6, 6, {"weight": (6, 6)})
    split_today = Layout(
        {"attn.q": linear, "attn.k": linear},
        conversions=lambda: [Rule.parse(cut)],
    )
    facts = facts_of({"target_modules": ["qkv"]}, ("attn.qkv", 6, 12))
    findings, plan = check_adapter(facts, None, layout=split_today)
    assert not [f for f in findings if f.severity.value == "error"], findings
    assert plan is not None and sorted(plan.modules) == ["attn.k", "attn.q"]
    (said,) = [f.message for f in findings if f.code == "AD305"]
    assert said.endswith("attn.qkv is in attn.q.weight today")


def test_a_router_that_was_a_linear_layer_is_planned_as_a_parameter() -> None:
    facts = facts_of({"target_modules": ["gate"]}, ("model.layers.0.mlp.gate", 6, 2))
    findings, plan = check_adapter(facts, None, layout=MOE)
    assert not [f for f in findings if f.severity.value == "error"], findings
    assert plan is not None and plan.sites[0].settings["parameter"] == "weight"
    assert plan.conversion is not None
    assert plan.conversion.config["target_parameters"] == ["gate.weight"]


def test_another_module_that_is_not_a_router_is_a_misfit() -> None:
    alone = {n: m for n, m in MOE.modules.items() if not n.endswith("experts")}
    facts = facts_of({"target_modules": ["gate"]}, ("model.layers.0.mlp.gate", 6, 2))
    findings, _ = check_adapter(facts, None, layout=replace(MOE, modules=alone))
    assert "AD344" in {f.code for f in findings}


def test_a_name_that_leads_to_two_modules_is_ambiguous() -> None:
    linear = ModuleShape(ModuleKind.LINEAR, 6, 6, {"weight": (6, 6)})
    rules = [[r"(?P<g0>^old\.)", "new."], [r"(?P<g0>^model\.old\.)", "model.other."]]
    both = Layout(
        {"new.q": linear, "model.other.q": linear},
        prefix="model",
        conversions=lambda: [Rule.parse(one) for one in rules],
    )
    facts = facts_of({"target_modules": ["q"]}, ("model.old.q", 6, 6))
    findings, plan = check_adapter(facts, None, layout=both)
    assert [f.code for f in findings if f.severity.value == "error"] == ["AD306"]
    assert plan is None
    alone = replace(both, modules={"model.other.q": linear})
    findings, plan = check_adapter(facts, None, layout=alone)
    assert [f.code for f in findings if f.severity.value == "error"] == []
    assert plan is not None and plan.modules == ("model.other.q",)


def test_without_rules_nothing_is_renamed() -> None:
    facts = facts_of({"target_modules": ["gate_proj"]}, expert(0, "gate_proj"))
    findings, plan = check_adapter(facts, None, layout=replace(MOE, conversions=None))
    assert "AD342" in {f.code for f in findings}
    assert plan is None or plan.conversion is None


def test_offsets_of_joined_tensors_are_contiguous() -> None:
    every = [expert(n, name) for n in range(2) for name in ("gate_proj", "up_proj")]
    facts = facts_of({"target_modules": ["gate_proj", "up_proj"]}, *every)
    _, plan = check_adapter(facts, None, layout=MOE)
    assert plan is not None and plan.conversion is not None
    at = 0
    for info in plan.conversion.header.tensors.values():
        assert info.start == at and info.nbytes == 4 * info.shape[0] * info.shape[1]
        at = info.end


def test_planning_needs_no_torch() -> None:
    code = (
        "import sys, adapterdock.registry.checks.check_adapter\n"
        "import adapterdock.registry.methods.older\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
