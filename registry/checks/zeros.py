"""Which tensors of an adapter are all zero, where its fit depends on it.

Only the factors of targets that the model never calls are read: a few small range reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

from ...manifests.bounds import IDLE_BYTES, IDLE_TENSORS
from ..files.facts import (
    AdapterFacts,
    AdapterPlan,
    Conversion,
    Joined,
    Layout,
    StoredTensor,
    TensorInfo,
)
from ..files.header import DTYPE_BITS
from ..methods.idle import deciding, uncalled

IsZero = Callable[[str], bool | None]
"""``is_zero(name)``: whether all values of the file's tensor are zero; ``None`` where it cannot be
read, and no other needs to be asked for."""


def zeros_of(
    tensors: Mapping[str, TensorInfo], plan: AdapterPlan, layout: Layout, is_zero: IsZero
) -> frozenset[str]:
    """Those of the plan's tensors that are all zero, by ``is_zero``: of those that decide. None are
    asked for where they are more than :data:`IDLE_BYTES` or :data:`IDLE_TENSORS`."""
    asked = dict.fromkeys(
        key for site in uncalled(plan, layout) for keys in deciding(site) for key in sorted(keys)
    )
    sources = {key: sources_of(key, plan.conversion) for key in asked}
    needed = {name for names in sources.values() for name in names}
    if not tensors.keys() >= needed or len(needed) > IDLE_TENSORS:
        return frozenset()
    if sum(tensors[name].nbytes for name in needed) > IDLE_BYTES:
        return frozenset()
    zero: set[str] = set()
    for name in sorted(needed):
        if (answer := is_zero(name)) is None:
            return frozenset()
        if answer:
            zero.add(name)
    return frozenset(key for key, names in sources.items() if zero.issuperset(names))


def sources_of(key: str, conversion: Conversion | None) -> Set[str]:
    """The file's tensors that make up a tensor of the plan."""
    if conversion is None:
        return {key}
    source = conversion.sources[key]
    return frozenset(p.key for p in source.pieces) if isinstance(source, Joined) else {source}


def zeros_in_files(facts: AdapterFacts, read: Callable[[str, int, int], bytes]) -> IsZero:
    """``is_zero`` for the tensors of an adapter; ``read(file, start, length)`` reads a range of one
    of its files."""

    def is_zero(name: str) -> bool:
        part = facts.parts.get(name) or StoredTensor(next(iter(facts.headers)), name)
        header = facts.headers[part.file]
        info = header.tensors[part.name]
        return all_zero(read(part.file, header.data_start + info.start, info.nbytes), info)

    return is_zero


def all_zero(raw: bytes, info: TensorInfo) -> bool:
    """Whether these little-endian values are all zero, of either sign."""
    if not any(raw):
        return True
    width = max(1, DTYPE_BITS[info.dtype] // 8)
    signs = raw[width - 1 :: width]
    return raw.count(0x80) == signs.count(0x80) == len(raw) - raw.count(0)
