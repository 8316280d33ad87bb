"""The values of stored tensors, looked at once: are they finite, and are all of them zero?

From the bytes, without numpy or torch. In every floating-point dtype, a value that is not finite
has certain bits set; which, is in :data:`_SPECIAL` (IEEE 754, and OCP's 8-bit formats as in
``torch.float8_e4m3fn`` and its relatives: https://docs.pytorch.org/docs/stable/tensor_attributes.html).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...manifests.findings import registry as codes
from ...manifests.findings.finding import Finding, Where
from ..checks.zeros import all_zero, sources_of
from ..files.facts import AdapterFacts, AdapterPlan, Header, StoredTensor, TensorInfo
from ..methods.idle import is_idle

CHUNK = 4 << 20
"""Bytes that are looked at together; a multiple of every dtype's width."""

_Bits = tuple[tuple[int, int, int], ...]
_F32: _Bits = ((3, 0x7F, 0x7F), (2, 0x80, 0x80))
_SPECIAL: Mapping[str, tuple[int, _Bits]] = {
    "F64": (8, ((7, 0x7F, 0x7F), (6, 0xF0, 0xF0))),
    "F32": (4, _F32),
    "C64": (4, _F32),
    "F16": (2, ((1, 0x7C, 0x7C),)),
    "BF16": (2, ((1, 0x7F, 0x7F), (0, 0x80, 0x80))),
    "F8_E5M2": (1, ((0, 0x7C, 0x7C),)),
    "F8_E4M3": (1, ((0, 0x7F, 0x7F),)),
    "F8_E5M2FNUZ": (1, ((0, 0xFF, 0x80),)),
    "F8_E4M3FNUZ": (1, ((0, 0xFF, 0x80),)),
    "F8_E8M0": (1, ((0, 0xFF, 0xFF),)),
}
"""By dtype: its bytes, and which byte of a special value has which bits (byte, mask, bits). Every
value of the other dtypes is finite."""


@dataclass(frozen=True)
class Looked:
    """What the tensors of an adapter hold; names are those in the files."""

    special: tuple[str, ...] = ()
    """Tensors with NaN or infinite values."""
    zero: frozenset[tuple[str, str]] = frozenset()
    """File and name of tensors whose values are all zero."""


def look(headers: Mapping[str, Header], place: Callable[[str], Path]) -> Looked:
    """Read every tensor once. ``place(file)`` is where a file is. Raises ``OSError``."""
    special: list[str] = []
    zero: set[tuple[str, str]] = set()
    for file, header in headers.items():
        with place(file).open("rb") as stream:
            for name, info in sorted(header.tensors.items(), key=lambda item: item[1].start):
                stream.seek(header.data_start + info.start)
                is_special, is_zero = _look(_chunks(stream.read, info.nbytes), info)
                if is_special:
                    special.append(name)
                if is_zero:
                    zero.add((file, name))
    return Looked(tuple(special), frozenset(zero))


def changes_nothing(facts: AdapterFacts, plan: AdapterPlan, looked: Looked) -> bool:
    """Whether the adapter, with these values, leaves its base as it is."""
    stored = {(file, name) for file, header in facts.headers.items() for name in header.tensors}
    if looked.zero >= stored:
        return True
    others = (plan.saved, plan.biases, plan.embeddings, plan.tuned, plan.prompt, plan.peft)
    if not plan.sites or any(others):
        return False
    keys = {key for site in plan.sites for key in site.tensors.values()}
    only = next(iter(facts.headers), "")
    parts = {
        key: {
            facts.parts.get(name) or StoredTensor(only, name)
            for name in sources_of(key, plan.conversion)
        }
        for key in keys
    }
    zeros = {
        key
        for key, found in parts.items()
        if found and all((part.file, part.name) in looked.zero for part in found)
    }
    return all(is_idle(site, zeros) for site in plan.sites)


def check_values(
    facts: AdapterFacts, plan: AdapterPlan, looked: Looked, where: Where
) -> list[Finding]:
    """Findings where values are not finite, or change nothing."""
    if looked.special:
        count = len(looked.special)
        return [
            codes.BAD_WEIGHTS.finding(
                f"{count} {'tensor has' if count == 1 else 'tensors have'} NaN or infinite values",
                where,
                found=", ".join(looked.special[:3]),
                expected="finite values",
            )
        ]
    if changes_nothing(facts, plan, looked):
        return [
            codes.BAD_WEIGHTS.finding(
                "This adapter changes nothing: its factors are zero", where, found="zeros"
            )
        ]
    return []


def _look(chunks: Iterable[bytes], info: TensorInfo) -> tuple[bool, bool]:
    special, zero = False, True
    for raw in chunks:
        special = special or has_special(raw, info.dtype)
        zero = zero and (raw.count(0) == len(raw) or all_zero(raw, info))
    return special, zero


def _chunks(read: Callable[[int], bytes], left: int) -> Iterable[bytes]:
    while left > 0:
        raw = read(min(CHUNK, left))
        if not raw:
            raise OSError("the file is shorter than its header says")
        left -= len(raw)
        yield raw


def has_special(raw: bytes, dtype: str) -> bool:
    """Whether one of these little-endian values is NaN or infinite."""
    if dtype not in _SPECIAL:
        return False
    width, bits = _SPECIAL[dtype]
    found = -1
    for at, mask, wanted in bits:
        marks = raw[at::width].translate(_marking(mask, wanted))
        if 1 not in marks:
            return False
        found &= int.from_bytes(marks, "little")
    return found != 0


@cache
def _marking(mask: int, wanted: int) -> bytes:
    """A table that makes a byte with these bits 1, and every other 0."""
    return bytes(byte & mask == wanted for byte in range(256))
