"""A few values of every tensor of a base: which ones, their digests, their text form.

The sample of a tensor is one contiguous run of up to eight values in row-major order, in its middle
(:func:`run`): one remote range read of at most 64 bytes. In a mixture of experts that is stored
expert by expert, only the first, middle and last expert of the first, middle and last layer are
sampled (:func:`chosen`).

Digest, version 1: ``v1:sha256:`` and the SHA-256 of ``adapterdock weights v1\\n`` followed, for
every sampled tensor in the order of its UTF-8 name, by the name, a NUL byte, the number of
values as one byte, and the values as little-endian float32, rounded to the digest's precision.
The precision is not part of it, so that a base whose values are all exact in bfloat16 has the same
digest for float32 and bfloat16.

Text, version 1: ``samples/1:`` and base64 of bzip2 (whose output, unlike zlib's, is the same on
every machine) of a JSON line ``[[[name, dtype, n], ...], [...]]`` (backbone and heads, sorted)
followed by the raw values in the same order.
"""

from __future__ import annotations

import base64
import bz2
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...manifests.language.schema import WeightDigests
from ..files.digests import versioned_digest
from ..files.precision import WIDTHS, Precision, packed, rounded, widen

MOST = 8
"""Values per tensor."""

_PREFIX = "samples/1:"
_LIMIT = 64 << 20
_EXPERT = re.compile(r"(.*?\.)(\d+)(\..*?experts)\.(\d+)\..*")
_PRECISION_OF: Mapping[str, Precision] = {"BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True)
class Sample:
    """Up to eight little-endian values of one tensor, in its own safetensors ``dtype``."""

    dtype: str
    data: bytes

    def bits(self, precision: Precision = "float32") -> tuple[int, ...]:
        """The values as float32 bit patterns, rounded to ``precision``."""
        return rounded(widen(self.dtype, self.data), precision)

    @property
    def precision(self) -> Precision:
        return _PRECISION_OF.get(self.dtype, "float32")


@dataclass(frozen=True)
class Samples:
    """The sample table of a base: the backbone's tensors and the heads', by canonical name."""

    backbone: Mapping[str, Sample]
    heads: Mapping[str, Sample] = field(default_factory=dict)

    @property
    def all(self) -> Mapping[str, Sample]:
        return {**self.backbone, **self.heads}

    @property
    def precision(self) -> Precision | None:
        """The narrowest dtype among them, ``None`` for a mix of bfloat16 and float16, neither of
        which can hold the other's values. float8 is exact in both and does not count."""
        found = {sample.precision for sample in self.all.values()}
        if "bfloat16" in found:
            return None if "float16" in found else "bfloat16"
        return "float16" if "float16" in found else "float32"

    def __str__(self) -> str:
        tables = [sorted(group.items()) for group in (self.backbone, self.heads)]
        rows = [
            [[name, s.dtype, len(s.data) // WIDTHS[s.dtype]] for name, s in table]
            for table in tables
        ]
        head = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
        data = b"".join(sample.data for table in tables for _, sample in table)
        return _PREFIX + base64.b64encode(bz2.compress(head + b"\n" + data)).decode("ascii")

    @classmethod
    def parse(cls, text: str) -> Samples:
        """The inverse of ``str``. Raises ``ValueError`` for other text."""
        if not text.startswith(_PREFIX):
            raise ValueError(f"A sample table starts with {_PREFIX}")
        try:
            inflate = bz2.BZ2Decompressor()
            raw = base64.b64decode(text[len(_PREFIX) :], validate=True)
            content = inflate.decompress(raw, max_length=_LIMIT)
            if not inflate.eof or inflate.unused_data:
                raise ValueError("it is truncated, too long, or too large")
            head, _, data = content.partition(b"\n")
            rows: Any = json.loads(head)
            groups: list[dict[str, Sample]] = []
            at = 0
            for row in rows:
                group: dict[str, Sample] = {}
                for name, dtype, count in row:
                    size = WIDTHS[dtype] * count
                    if not isinstance(name, str) or not 0 <= count <= MOST or name in group:
                        raise ValueError(f"row {name!r}")
                    group[name] = Sample(dtype, data[at : at + size])
                    at += size
                groups.append(group)
            backbone, heads = groups
        except (ValueError, KeyError, TypeError, OSError, EOFError, RecursionError) as error:
            raise ValueError(f"The sample table is damaged: {error}") from error
        if at != len(data):
            raise ValueError("The sample table is damaged: it has too few or too many values")
        return cls(backbone, heads)


def run(shape: Iterable[int]) -> tuple[int, int]:
    """The sample of a tensor of ``shape``: (index of the first value, number of values)."""
    size = math.prod(shape)
    count = min(MOST, size)
    return (size - count) // 2, count


def chosen(names: Iterable[str]) -> list[str]:
    """Those of a checkpoint's tensors that are sampled, sorted; see the module's docstring."""
    plain: list[str] = []
    experts: dict[str, dict[tuple[str, int], dict[int, list[str]]]] = {}
    for name in names:
        found = _EXPERT.fullmatch(name)
        if found is None:
            plain.append(name)
            continue
        before, layer, middle, expert = found.group(1), found.group(2), found.group(3), found[4]
        layers = experts.setdefault(before + "*" + middle, {})
        layers.setdefault((before, int(layer)), {}).setdefault(int(expert), []).append(name)
    for layers in experts.values():
        for layer in _ends_and_middle(layers):
            for expert in _ends_and_middle(layers[layer]):
                plain += layers[layer][expert]
    return sorted(plain)


def _ends_and_middle(keys: Iterable[Any]) -> list[Any]:
    ordered = sorted(keys)
    return [ordered[i] for i in sorted({0, len(ordered) // 2, len(ordered) - 1})]


def weight_digests(samples: Mapping[str, Sample]) -> WeightDigests | None:
    """The three digests of a table, or ``None`` for an empty one."""
    if not samples:
        return None
    widened = [
        (name.encode(), widen(sample.dtype, sample.data)) for name, sample in samples.items()
    ]
    widened.sort()
    return WeightDigests(
        float32=_digest(widened, "float32"),
        bfloat16=_digest(widened, "bfloat16"),
        float16=_digest(widened, "float16"),
    )


def _digest(widened: list[tuple[bytes, tuple[int, ...]]], precision: Precision) -> str:
    content = bytearray()
    for name, values in widened:
        content += name + b"\0" + bytes((len(values),)) + packed(rounded(values, precision))
    return versioned_digest("weights", content)


@dataclass(frozen=True)
class Agreement:
    """How two sample tables compare, tensor by tensor, at the precision of the second."""

    same: tuple[str, ...]
    different: tuple[str, ...]
    absent: tuple[str, ...]
    """Declared, but not found: not readable, or not in the base."""


def agreement(declared: Mapping[str, Sample], found: Mapping[str, Sample]) -> Agreement:
    """Compare each found tensor with the declared one, rounded to the found one's precision."""
    same: list[str] = []
    different: list[str] = []
    for name in sorted(declared.keys() & found.keys()):
        (same if _matches(declared[name], found[name]) else different).append(name)
    return Agreement(tuple(same), tuple(different), tuple(sorted(declared.keys() - found.keys())))


def _matches(declared: Sample, found: Sample) -> bool:
    values = found.bits()
    if len(values) != len(declared.bits()):
        return False
    if declared.bits(found.precision) == values:
        return True
    if found.precision != "float32":
        return False
    # a bfloat16 or float16 copy that was loaded, or saved again, in float32
    narrower: tuple[Precision, ...] = ("bfloat16", "float16")
    return any(found.bits(p) == values == declared.bits(p) for p in narrower)
