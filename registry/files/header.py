"""Read a safetensors header strictly, without the rest of the file.

Format: 8 bytes little-endian length N, N bytes of JSON object, then the data
(https://github.com/huggingface/safetensors, "Format"). All that a header can prove about its file
is checked here: weights of a truncated, padded or overlapping file are never read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

from ...manifests.bounds import HEADER_BYTES, HEADER_TENSORS, TENSOR_DIMENSIONS
from ...manifests.findings import fit as codes
from ...manifests.findings.code import Code
from ...manifests.findings.errors import SourceError
from ...manifests.findings.finding import Finding, Where
from .facts import Header, TensorInfo

ReadRange = Callable[[int, int], bytes]
"""``read(start, length)``: that range of the file, exactly."""

FIRST_READ = 32 * 1024
"""Bytes of the speculative first range: the complete header of most adapters, in one request."""

_DTYPES: Mapping[int, tuple[str, ...]] = {
    4: ("F4",),
    6: ("F6_E2M3", "F6_E3M2"),
    8: ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
    16: ("I16", "U16", "F16", "BF16"),
    32: ("I32", "U32", "F32"),
    64: ("C64", "F64", "I64", "U64"),
}
DTYPE_BITS = {dtype: bits for bits, dtypes in _DTYPES.items() for dtype in dtypes}
"""Every dtype of safetensors 0.8, with the bits of one element."""

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
LFS_POINTER = b"version https://git-lfs"
"""The first bytes of a file that Git LFS has not fetched."""
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
_LIMIT = 1 << 63


class _File(NamedTuple):
    """The file that is read, by its name in messages."""

    name: str
    where: Where

    def refuse(self, code: Code, what: str, **details: Any) -> NoReturn:
        raise SourceError(code.finding(f"{self.name} {what}", self.where, **details))


def read_header(
    read: ReadRange,
    size: int,
    where: Where = Where(),  # noqa: B008 - frozen
    file: str = "adapter_model.safetensors",
    known: Header | None = None,
    find: Callable[[bytes, int], Header | None] | None = None,
) -> Header:
    """The header of a file of ``size`` bytes, by at most two range reads.

    Reads at most 32 KiB and the header, which is not parsed again where it is the ``known`` one, or
    where ``find(its bytes, size)`` has it.
    Raises :class:`SourceError` with every reason why this is
    not a complete safetensors file; what ``read`` raises passes through.
    """
    first = read(0, min(size, FIRST_READ))
    length = _header_length(first, size, _File(file, where))
    if 8 + length > len(first):
        first += read(len(first), 8 + length - len(first))
    if known is not None and is_header_of(known, first, size):
        return known
    found = None if find is None else find(first[: 8 + length], size)
    return found or parse_header(first, size, where, file)


def is_header_of(header: Header, data: bytes | memoryview, size: int) -> bool:
    """Whether the file of ``size`` bytes that begins with ``data`` has this header."""
    return header.size == size and header.digest == digest_of(data[: header.data_start])


def digest_of(head: bytes | memoryview) -> str:
    """The sha256 (hex) of the first bytes of a file, all of its header."""
    return hashlib.sha256(head).hexdigest()


def read_local_header(
    path: Path,
    file: str | None = None,
    where: Where = Where(),  # noqa: B008 - frozen
) -> Header:
    """The header of a file on this machine, as :func:`read_header` gives it; ``file`` is its name
    in messages."""
    with path.open("rb") as stream:

        def read(start: int, length: int) -> bytes:
            stream.seek(start)
            return stream.read(length)

        return read_header(read, path.stat().st_size, where, file or path.name)


def parse_header(
    data: bytes,
    size: int,
    where: Where = Where(),  # noqa: B008 - frozen
    file: str = "adapter_model.safetensors",
) -> Header:
    """The header in ``data``, the first bytes of a file of ``size`` bytes (all of its header, and
    possibly more). Raises :class:`SourceError` as :func:`read_header` does."""
    source = _File(file, where)
    length = _header_length(data, size, source)
    raw = data[8 : 8 + length]
    if len(raw) < length:
        found = f"{len(raw)} of {length} bytes"
        source.refuse(codes.FILE_TRUNCATED, "ends inside its header", found=found)
    if raw.count(b'":') > 4 * HEADER_TENSORS:
        # before anything is built from it: a tensor has a name and three fields
        source.refuse(
            codes.HEADER_MALFORMED,
            "names more tensors than any model has",
            expected=f"at most {HEADER_TENSORS} tensors",
        )
    entries = _parse_json(raw, source)
    metadata = _metadata(entries.pop("__metadata__", {}), source)
    tensors = _tensors(entries, source)
    end = _check_contiguous(tensors, source)
    data_start = 8 + length
    if data_start + end != size:
        source.refuse(
            codes.FILE_TRUNCATED,
            "is truncated" if size < data_start + end else "has bytes after its last tensor",
            found=f"{size} bytes",
            expected=f"{data_start + end} bytes, by its own header",
        )
    return Header(tensors, metadata, data_start, size, digest_of(data[:data_start]))


def _header_length(data: bytes, size: int, file: _File) -> int:
    # a header of 1152 bytes starts like a pickle: the byte after the length tells them apart
    if data.startswith(_PICKLES) and data[8:9] != b"{":
        file.refuse(
            codes.HEADER_MALFORMED,
            "is a pickle, which can run code when it is opened",
            expected="a safetensors file",
            hint="Convert it: save the adapter again with PEFT's default (safetensors).",
        )
    if data.startswith(LFS_POINTER):
        file.refuse(
            codes.HEADER_MALFORMED,
            "is a Git LFS pointer, not the file itself",
            expected="a safetensors file",
            hint="Fetch the real file with `git lfs pull`.",
        )
    if size < 8 or len(data) < 8:
        file.refuse(
            codes.FILE_TRUNCATED,
            "is too small to be a safetensors file",
            found=f"{min(size, len(data))} bytes",
            expected="at least 8 bytes and a header",
        )
    length = int.from_bytes(data[:8], "little")
    if length > HEADER_BYTES:
        file.refuse(
            codes.HEADER_MALFORMED,
            "declares a header that is too long",
            found=f"{length} bytes",
            expected=f"at most {HEADER_BYTES} bytes; is this a safetensors file?",
        )
    if 8 + length > size:
        file.refuse(
            codes.FILE_TRUNCATED,
            "ends inside its header",
            found=f"{size} bytes",
            expected=f"at least {8 + length} bytes",
        )
    return length


def _parse_json(raw: bytes, file: _File) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8")
    except UnicodeError as error:
        file.refuse(codes.HEADER_MALFORMED, "has a header that is not UTF-8", found=error)
    if not text.startswith("{"):
        what = "has a header that is not a JSON object"
        found = repr(text[:20])
        file.refuse(codes.HEADER_MALFORMED, what, found=found, expected="'{' first")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_natural if "-0" in text else None,  # json reads -0 as a plain 0
        )
        if "\\u" in text:  # an escaped lone surrogate is not text (a UnicodeError, a ValueError)
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        file.refuse(codes.HEADER_MALFORMED, "has a header that is nested too deeply")
    except ValueError as error:
        file.refuse(codes.HEADER_MALFORMED, "has a header that is not valid JSON", found=error)
    return cast("dict[str, Any]", value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"Duplicate key {twice!r}")
    return entries


def _natural(digits: str) -> int:
    if digits.startswith("-"):
        raise ValueError(f"{digits} is negative")
    return int(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _metadata(value: object, file: _File) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        what = "has a __metadata__ that is not a map of text to text"
        file.refuse(codes.HEADER_MALFORMED, what, found=repr(value)[:80])
    return cast("dict[str, str]", value)


def _tensors(entries: Mapping[str, Any], file: _File) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    problems: list[Finding] = []
    for name, entry in entries.items():
        info = _entry(entry)
        if isinstance(info, TensorInfo):
            tensors[name] = info
        elif len(problems) < 20:  # a faulty writer makes them all wrong: twenty are enough
            message = f"{file.name}: tensor {name[:200]!r} {info}"
            problems.append(codes.HEADER_TENSOR.finding(message, file.where))
    if problems:
        raise SourceError(*problems)
    return tensors


def _entry(entry: object) -> TensorInfo | str:
    """One tensor's row, or what is wrong with it."""
    if not isinstance(entry, dict) or entry.keys() != _ENTRY_KEYS:
        return "is not described by exactly dtype, shape and data_offsets"
    fields: dict[str, Any] = entry
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    bits = DTYPE_BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        return f"has a dtype that safetensors does not know: {str(dtype)[:40]!r}"
    if not _are_natural(shape) or len(shape) > TENSOR_DIMENSIONS:
        return f"has an invalid shape (not a list of whole numbers): {str(shape)[:80]}"
    if not _are_natural(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return f"has invalid offsets (not [start, end]): {str(offsets)[:80]}"
    start, end = offsets
    bits *= math.prod(shape)
    if bits != 8 * (end - start):
        return (
            f"takes {end - start} bytes by its offsets, "
            f"but {dtype} {list(shape)} takes {bits / 8:g}"
        )
    return TensorInfo(dtype, tuple(shape), start, end)


def _are_natural(value: object) -> bool:
    if type(value) is not list:
        return False
    for item in cast("list[object]", value):  # a loop: it runs twice for each tensor
        if type(item) is not int or not 0 <= item < _LIMIT:
            return False
    return True


def _check_contiguous(tensors: Mapping[str, TensorInfo], file: _File) -> int:
    """The end of the data part (bytes), where the tensors fill it without hole or overlap."""
    at = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != at:
            what = "overlaps the one before it" if info.start < at else "leaves a hole before it"
            file.refuse(
                codes.HEADER_TENSOR,
                f"has a tensor {name[:200]!r} that {what}",
                found=f"it starts at byte {info.start} of the data",
                expected=f"byte {at}",
            )
        at = info.end
    return at


def laid_out(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> dict[str, TensorInfo]:
    """Tensors (name, dtype, shape) one after the other: the widest dtypes first, so that all are
    aligned, and otherwise in the order of ``tensors``."""
    found: dict[str, TensorInfo] = {}
    at = 0
    for name, dtype, shape in sorted(tensors, key=lambda tensor: -DTYPE_BITS[tensor[1]]):
        end = at + math.prod(shape) * DTYPE_BITS[dtype] // 8
        found[name] = TensorInfo(dtype, shape, at, end)
        at = end
    return found
