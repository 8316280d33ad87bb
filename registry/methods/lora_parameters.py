"""LoRA on parameters that are no module's weight alone: ``target_parameters``, the experts of a
mixture.

Key grammar: PEFT, ``tuners/lora/layer.py``, ``ParamWrapper``. Each adapted parameter wraps its
module once more, in the order in which the module holds its parameters, so that of two the first
is ``<module>.base_layer.lora_A.weight`` and the last ``<module>.lora_A.weight``.

A is (r * experts, in), expert by expert, and B (out, r * experts), rank by rank. For a parameter of
two dimensions (out, in) they are LoRA's own. Of three, (experts, n, m), PEFT has taken another one
for `in` over time:

===============  ====================================================
PEFT             `in`
===============  ====================================================
0.17, 0.18       n
0.19.0           n, but m where the module says ``is_transposed``
0.19.1 and on    m, but n where the module says ``is_transposed``
===============  ====================================================

Where n and m differ A tells which it is, whoever wrote it. Where they do not only the version does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from ..files.conversion import Shape
from ..files.facts import TARGET, Layout, ModuleKind, ModuleShape, SitePlan, TensorInfo
from .peft_version import PeftVersion

NAME = "LORA_PARAMETER"
"""What a site of such a parameter is called; the adapter itself is a LoRA."""
KINDS: Mapping[ModuleKind, frozenset[str]] = {kind: frozenset({"A", "B"}) for kind in ModuleKind}
ROLE_SETS: tuple[frozenset[str], ...] = (frozenset({"A", "B"}),)
WRAPPER = "base_layer"
IN_FIRST = "in_first"
"""Setting of a site: whether `in` is n, of a module that is not transposed and of one that is; not
there where nothing tells the version."""


def in_first(written: PeftVersion | None) -> tuple[bool, bool] | None:
    """The setting :data:`IN_FIRST` for what this PEFT wrote."""
    if written is None:
        return None
    if written.unreleased and (0, 18, 1) <= written[:3] <= (0, 19, 1):
        return None  # from between two releases
    if not written.at_least(0, 19):
        return True, True
    return (False, True) if written.at_least(0, 19, 1) else (True, False)


def is_ambiguous(shape: Shape) -> bool:
    """Whether the factors' sizes do not tell which side of a parameter is `in`. That of a single
    expert is never turned."""
    return len(shape) == 3 and shape[0] > 1 and shape[1] == shape[2]


def turned_since(parameter: str, layout: Layout) -> bool:
    """Whether older versions of transformers held this parameter of the live model with its sides
    exchanged, and loading turns it: factors do not tell which of the two they were made for."""
    return any(
        "Transpose" in {step[0] for step in rule.operations}
        and any(parameter.endswith(end) for end in rule.to)
        for rule in (layout.conversions() if layout.conversions is not None else ())
    )


def selected(author: str, targets: Sequence[str], names: Sequence[str]) -> list[str]:
    """Those of a module's parameters that ``target_parameters`` selects, in its own order."""
    return [name for name in names if _matches(f"{author}.{name}", targets)]


def names_in(targets: Sequence[str], author: str) -> list[str]:
    """Without a layout: parameters of the module that the targets spell with a part of its path."""
    found = dict.fromkeys(
        name
        for path, _, name in (target.rpartition(".") for target in targets)
        if path and (author == path or author.endswith(f".{path}"))
    )
    return list(found)


def _matches(key: str, targets: Sequence[str]) -> bool:
    return any(key == target or key.endswith(f".{target}") for target in targets)


def assigned(
    names: Sequence[str],
    parts: Mapping[int, Mapping[str, str]],
    tensors: Mapping[str, TensorInfo],
    module: ModuleShape | None,
) -> dict[int, str] | None:
    """Which parameter each depth of wrapping is for (0 is the outermost), or ``None`` where they
    are not as many.

    The first name is the innermost. A header does not keep the order in which a module holds its
    parameters: where another order is the only one that fits, it is the one.
    """
    depths = sorted(parts, reverse=True)
    if depths != list(range(len(names)))[::-1]:
        return None
    orders = itertools.islice(itertools.permutations(names), 120)
    for order in orders:
        pairs = list(zip(depths, order, strict=True))
        if module is None or all(_fits(parts[d], tensors, module, name) for d, name in pairs):
            return dict(pairs)
    return dict(zip(depths, names, strict=True))


def _fits(
    roles: Mapping[str, str],
    tensors: Mapping[str, TensorInfo],
    module: ModuleShape,
    name: str,
) -> bool:
    shape = module.parameters.get(name)
    if shape is None:  # packed, and without sizes
        return True
    found = {role: tensors[key].shape for role, key in roles.items()}
    return any(
        found.get("A", ())[1:] == (inner,) and found.get("B", ())[:1] == (outer,)
        for inner, outer in _sides(shape)
    )


def _sides(shape: Shape) -> Iterator[tuple[int, int]]:
    """(in, out) of a parameter: a header does not tell which way its experts lie."""
    if len(shape) == 2:
        yield shape[1], shape[0]
    elif len(shape) == 3:
        yield shape[2], shape[1]
        if shape[0] > 1:  # of one expert PEFT adds BA as it is
            yield shape[1], shape[2]


def needs_call(site: SitePlan) -> bool:
    """Whether the parameter is read by its own module, not by an attention around it."""
    return TARGET not in site.settings


def shapes(
    site: SitePlan, module: ModuleShape, found: Mapping[str, Shape]
) -> Mapping[str, Shape] | str:
    """A (r * experts, in) and B (out, r * experts), the way round that the file has them if both
    are possible."""
    name = site.settings["parameter"]
    shape = module.parameters.get(name)
    if shape is None:
        return f"no parameter {name!r}"
    sides = list(_sides(shape))
    if not sides:
        return f"{name} has {len(shape)} dimensions, and 2 or 3 can be adapted"
    wide = site.rank * (shape[0] if len(shape) == 3 else 1)
    possible = [{"A": (wide, inner), "B": (outer, wide)} for inner, outer in sides]
    return next((one for one in possible if one == dict(found)), possible[0])
