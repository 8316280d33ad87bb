"""LoRA on parameters by their names (``target_parameters``), such as the experts of a mixture.

Key grammar: PEFT, ``tuners/lora/layer.py``, ``ParamWrapper``. Each adapted parameter wraps its
module once more, in the order in which the module holds its parameters, so that of two the first
is ``<module>.base_layer.lora_A.weight`` and the last ``<module>.lora_A.weight``.

A is (r * experts, in), expert by expert, and B (out, r * experts), rank by rank. For a parameter
with two dimensions (out, in) they are LoRA's own. With three, (experts, n, m), it depends on the
version of PEFT which of them is `in`:

===============  ====================================================
PEFT             `in`
===============  ====================================================
0.17, 0.18       n
0.19.0           n, but m where the module says ``is_transposed``
0.19.1 and on    m, but n where the module says ``is_transposed``
===============  ====================================================

Where n and m differ, the shape of A shows which it is. Where they are equal, only the version does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from ..files.conversion import Shape
from ..files.facts import TARGET, Layout, ModuleShape, SitePlan, TensorInfo
from .naming import WRAPPER
from .peft_version import PeftVersion

NAME = "LORA_PARAMETER"
"""What a site of such a parameter is called; the adapter itself is a LoRA."""
IN_FIRST = "in_first"
"""Setting of a site: whether `in` is n, for a module that is not transposed and for one that is;
absent where the version is not known."""


def in_first(written: PeftVersion | None) -> tuple[bool, bool] | None:
    """The setting :data:`IN_FIRST` of an adapter that this PEFT wrote."""
    if written is None:
        return None
    if written.unreleased and (0, 18, 1) <= written[:3] <= (0, 19, 1):
        return None  # between two releases
    if not written.at_least(0, 19):
        return True, True
    return (False, True) if written.at_least(0, 19, 1) else (True, False)


def is_ambiguous(shape: Shape) -> bool:
    """Whether the factors' sizes do not show which side of a parameter is `in`. A single expert is
    never transposed."""
    return len(shape) == 3 and shape[0] > 1 and shape[1] == shape[2]


def turned_since(parameter: str, layout: Layout) -> bool:
    """Whether older versions of transformers held this parameter of the live model transposed, and
    loading transposes it: factors do not show for which of the two they were made."""
    return any(
        "Transpose" in {step[0] for step in rule.operations}
        and any(parameter.endswith(end) for end in rule.to)
        for rule in (layout.conversions() if layout.conversions is not None else ())
    )


def selected(author: str, targets: Sequence[str], names: Sequence[str]) -> list[str]:
    """The parameters of a module that ``target_parameters`` selects, in the module's order."""
    return [name for name in names if _matches(f"{author}.{name}", targets)]


def names_in(targets: Sequence[str], author: str) -> list[str]:
    """Without a layout: the module's parameters that the targets name with a part of its path."""
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
    parts: Mapping[str, Mapping[str, str]],
    tensors: Mapping[str, TensorInfo],
    module: ModuleShape | None,
) -> dict[str, str]:
    """{wrapping: parameter} of ``parts``, {wrapping: its factors}; empty where their numbers
    differ.

    The first name is the innermost. A header does not keep the order in which a module holds its
    parameters, so the first order that fits is used.
    """
    wraps = sorted(parts, key=len, reverse=True)
    if wraps != [".".join([WRAPPER] * depth) for depth in reversed(range(len(names)))]:
        return {}
    for order in itertools.islice(itertools.permutations(names), 120):
        found = dict(zip(wraps, order, strict=True))
        if module is None or all(
            _fits(parts[inside], tensors, module, name) for inside, name in found.items()
        ):
            return found
    return dict(zip(wraps, names, strict=True))


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
    """Possible (in, out) of a parameter: a header does not show whether experts are transposed."""
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
    """A (r * experts, in) and B (out, r * experts), as in the file where both sides can be `in`."""
    name = site.settings["parameter"]
    shape = module.parameters.get(name)
    if shape is None:
        return f"has no parameter {name!r}"
    sides = list(_sides(shape))
    if not sides:
        return f"{name} has {len(shape)} dimensions, but must have 2 or 3"
    wide = site.rank * (shape[0] if len(shape) == 3 else 1)
    possible = [{"A": (wide, inner), "B": (outer, wide)} for inner, outer in sides]
    return next((one for one in possible if one == dict(found)), possible[0])
