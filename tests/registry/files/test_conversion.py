"""Conversions on shapes do what transformers does to tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapterdock.loader.tables.architecture_table import transform
from adapterdock.registry.base.architectures import architecture_table
from adapterdock.registry.files.conversion import OPERATIONS, ConversionError, Rule, convert
from support.table_version import of_the_tables_transformers
from transformers import core_model_loading as loading


def anything(_: str) -> bool:
    return True


def torch_shapes(converter: Any, tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """What transformers' own converter makes of ``tensors``, all of which it gathers."""
    name = ""
    for key in sorted(tensors, key=loading.dot_natural_key):
        name, source = converter.rename_source_key(key)
        converter.add_tensor(name, key, source, lambda t=tensors[key]: t)
    made = converter.convert(
        name, model=None, config=type("Config", (), {"num_attention_heads": 2})
    )
    return {
        key: tuple((one[0] if isinstance(one, list) else one).shape) for key, one in made.items()
    }


EXPERTS = {f"mlp.experts.{n}.{p}.weight": (6, 4) for n in range(4) for p in ("gate", "up")}
CASES: list[tuple[Any, Any, list[Any], dict[str, tuple[int, ...]]]] = [
    (
        ["experts.*.gate.weight", "experts.*.up.weight"],
        "experts.gate_up_proj",
        [loading.MergeModulelist(0), loading.Concatenate(1)],
        EXPERTS,
    ),
    (
        "experts.*.gate.weight",
        "experts.gate_proj",
        [loading.MergeModulelist(0)],
        {k: v for k, v in EXPERTS.items() if "gate" in k},
    ),
    (
        "qkv.weight",
        ["q.weight", "k.weight", "v.weight"],
        [loading.Chunk(0)],
        {"a.qkv.weight": (7, 2)},
    ),
    (
        "kv.weight",
        ["k.weight", "v.weight"],
        [loading.Interleave(0), loading.Chunk(0)],
        {"a.kv.weight": (8, 2)},
    ),
    ("w.weight", "w.weight", [loading.Transpose(0, 1)], {"a.w.weight": (3, 5)}),
    ("q.weight", "q.weight", [loading.PermuteForRope()], {"a.q.weight": (8, 5)}),
    (
        "p.weight",
        "p.weight",
        [loading.Conv3dToLinear(3, (2, 2, 2))],
        {"a.p.weight": (5, 3, 2, 2, 2)},
    ),
    (
        ["experts.*.gate.weight", "experts.*.up.weight"],
        ["text.gate_up_proj", "vision.gate_up_proj"],
        [loading.ErnieFuseAndSplitTextVisionExperts(stack_dim=0, concat_dim=1)],
        EXPERTS,
    ),
]


@of_the_tables_transformers
@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: "+".join(type(o).__name__ for o in case[2])
)
def test_an_operation_gives_transformers_own_shapes(case: Any) -> None:
    sources, targets, operations, shapes = case
    converter = loading.WeightConverter(sources, targets, operations)
    rule = Rule.parse(transform(converter))
    got = convert(shapes, [rule], "", anything)
    assert got == torch_shapes(
        converter, {name: torch.zeros(shape) for name, shape in shapes.items()}
    )


def test_every_operation_of_the_table_is_known() -> None:
    used = {
        step[0]
        for rules in architecture_table()["conversions"].values()
        if not isinstance(rules, str)
        for rule in rules
        if isinstance(rule, dict)
        for step in rule.get("do", ())
    }
    assert used and used <= OPERATIONS.keys()


@of_the_tables_transformers
@pytest.mark.parametrize("key", sorted(architecture_table()["conversions"]))
def test_renamings_give_transformers_own_names(key: str) -> None:
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    table = architecture_table()["conversions"]
    rules = table[table[key]] if isinstance(table[key], str) else table[key]
    originals = get_checkpoint_conversion_mapping(key)
    assert len(rules) == len(originals)
    for data, original in zip(rules, originals, strict=True):
        for name in names_like(original):
            assert Rule.parse(data).rename(name)[0] == original.rename_source_key(name)[0]


def names_like(original: Any) -> list[str]:
    """Names that a rule's sources might match: the patterns with their regex signs filled in."""
    import re

    names: list[str] = []
    for source in original.source_patterns:
        plain = re.sub(r"\\d\+|\*", "3", re.sub(r"\(\?[!<=:].*?\)|[\\^$?]", "", source))
        plain = re.sub(r"\((?:\?P<\w+>)?([^|()]*)[^()]*\)", r"\1", plain).replace(".+", "a.b")
        names += [plain, f"model.{plain}", f"model.layers.3.{plain}.weight", plain.strip(".")]
    return names


def test_a_scoped_rule_leaves_names_outside_its_scope() -> None:
    rule = Rule.parse([r"(?P<g0>^old\.)", "new."], ("model.vision.", "vision."))
    assert rule.rename("model.vision.old.x") == ("model.vision.new.x", "g0")
    assert rule.rename("vision.old.x")[0] == "vision.new.x"
    assert rule.rename("text.old.x") == ("text.old.x", None)


def test_a_guarded_chain_of_renamings_leaves_a_converted_checkpoint() -> None:
    original = loading.GroupWeightRename(
        [r"blocks.(\d+).norm0", r"blocks.(\d+).norm1"],
        [r"blocks.\1.norm1", r"blocks.\1.norm2"],
    )
    old = {f"blocks.0.norm{n}.weight": (2,) for n in (0, 1)}
    new = {f"blocks.0.norm{n}.weight": (2,) for n in (1, 2)}
    for tensors in (old, new):
        rule = Rule.parse(transform(original))
        assert convert(tensors, [rule], "", anything) == new


@of_the_tables_transformers
def test_shapes_that_cannot_be_joined_are_an_error() -> None:
    converter = loading.WeightConverter(
        ["a.weight", "b.weight"], "ab.weight", [loading.Concatenate(0)]
    )
    rule = Rule.parse(transform(converter))
    with pytest.raises(ConversionError, match="concatenate"):
        convert({"a.weight": (2, 3), "b.weight": (2, 4)}, [rule], "", anything)
