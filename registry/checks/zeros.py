"""Which tensors of an adapter are all zero, where its fit depends on it.

Only the factors of targets that the model never calls are read: a few small range reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import replace

from ...manifests.bounds import IDLE_BYTES, IDLE_TENSORS
from ..files.facts import AdapterFacts, AdapterPlan, Conversion, Header, Joined, Layout, TensorInfo
from ..files.header import DTYPE_BITS
from ..files.reading import Reading, StoredTensor
from ..methods.idle import deciding, uncalled

IsZero = Callable[[str], bool]
"""``is_zero(name)``: whether all values of the tensor are zero. Raises where it cannot be read."""


def with_zeros(
    facts: AdapterFacts, plan: AdapterPlan | None, layout: Layout | None, is_zero: IsZero
) -> AdapterFacts:
    """``facts`` with the zeros among the tensors that decide; unchanged where none decide, or where
    they are more than :data:`IDLE_BYTES` or :data:`IDLE_TENSORS`."""
    if plan is None or layout is None:
        return facts
    asked = dict.fromkeys(
        key for site in uncalled(plan, layout) for keys in deciding(site) for key in sorted(keys)
    )
    sources = {key: _sources(key, plan.conversion) for key in asked}
    needed = {name for names in sources.values() for name in names}
    infos = facts.header.tensors
    if not needed or not infos.keys() >= needed or len(needed) > IDLE_TENSORS:
        return facts
    if sum(infos[name].nbytes for name in needed) > IDLE_BYTES:
        return facts
    zero = {name for name in sorted(needed) if is_zero(name)}
    return replace(
        facts, zeros=frozenset(k for k, names in sources.items() if zero.issuperset(names))
    )


def _sources(key: str, conversion: Conversion | None) -> Set[str]:
    """The file's tensors that make up a tensor of the plan."""
    if conversion is None:
        return {key}
    source = conversion.sources[key]
    return frozenset(p.key for p in source.pieces) if isinstance(source, Joined) else {source}


def zeros_in_files(
    reading: Reading, headers: Mapping[str, Header], read: Callable[[str, int, int], bytes]
) -> IsZero:
    """``is_zero`` for the tensors of ``reading``; ``read(file, start, length)`` reads a range of
    one of its files, which have these ``headers``."""

    def is_zero(name: str) -> bool:
        part = reading.parts.get(name) or StoredTensor(next(iter(headers)), name)
        header = headers[part.file]
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
