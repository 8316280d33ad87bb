"""Do the factors have the rank that the config sets, and a shape that factors can have?"""

from __future__ import annotations

from collections.abc import Iterator

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.facts import SitePlan
from ..files.wording import listed
from ..methods.lora_variants import BLOCKS
from .candidate import Subject

_NOT_GATHERED = (
    "The weights were not gathered when they were saved (DeepSpeed ZeRO-3 leaves empty tensors). "
    "Save the adapter again with stage3_gather_16bit_weights_on_model_save: true, or gather the "
    "checkpoint with its zero_to_fp32.py."
)


def check(subject: Subject) -> Iterator[Finding]:
    """One finding for each (rank by config, rank by tensors), and one for each invalid shape."""
    if not subject.method.ranked:
        return
    ranks: dict[tuple[int, int], list[str]] = {}
    shapes: dict[tuple[int, ...], list[str]] = {}
    tensors = subject.tensors
    for site in subject.own_sites:
        for role, key in site.tensors.items():
            shape = tensors[key].shape
            if role not in ("A", "B", "embedding_A", "embedding_B"):
                continue
            if len(shape) < 2 or 0 in shape:
                shapes.setdefault(shape, []).append(key)
            elif (rank := _rank(subject, site, role, shape)) != site.rank:
                ranks.setdefault((site.rank, rank), []).append(site.module)
    for shape, keys in shapes.items():
        yield codes.SHAPE_INVALID.finding(
            f"Invalid shape of {listed(keys, 'factor')}",
            found=shape,
            expected="two dimensions or more, none of them 0",
            hint=_NOT_GATHERED if shape == (0,) else None,
        )
    for (wanted, found), modules in ranks.items():
        at = listed(list(dict.fromkeys(modules)), "module")
        yield codes.RANK_MISMATCH.finding(
            f"The rank is {found} in the file but {wanted} by the config at {at}",
            found=f"rank {found}",
            expected=f"rank {wanted} (r and rank_pattern)",
        )


def _rank(subject: Subject, site: SitePlan, role: str, shape: tuple[int, ...]) -> int:
    first, second, *_ = shape
    if role.endswith("A"):
        return first
    # a grouped convolution's lora_B has the rank divided by its groups as second dimension
    second *= site.settings.get(BLOCKS, {}).get(role, 1)  # of BD-LoRA only the blocks are stored
    module = subject.layout.modules.get(site.module) if subject.layout else None
    if module is not None:
        return second * module.groups
    if len(shape) > 2 and site.rank % second == 0:
        return site.rank
    return second
