"""Read a safetensors header, and nothing else of the file, strictly.

Format: 8 bytes little-endian length N, N bytes of JSON object, then the data
(https://github.com/huggingface/safetensors, "Format"). Everything that a header can prove about
its file is proved here: a truncated, padded or overlapping file never reaches a weight read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

from ...manifests.bounds import HEADER_BYTES, HEADER_TENSORS, TENSOR_DIMENSIONS
from ...manifests.findings import fit as codes
from ...manifests.findings.code import Code
from ...manifests.findings.errors import SourceError
from ...manifests.findings.finding import Finding, Where
from .facts import Header, TensorInfo

ReadRange = Callable[[int, int], bytes]
"""``read(start, length)``: that range of the file, exactly."""

FIRST_READ = 32 * 1024
"""Bytes of the one speculative first range: most adapters' whole header, in one request."""

DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Every dtype of safetensors 0.8, with the bits of one element."""

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
LFS_POINTER = b"version https://git-lfs"
"""What a file begins with that Git LFS has not fetched."""
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
_LIMIT = 1 << 63


def read_header(
    read: ReadRange,
    size: int,
    where: Where = Where(),  # noqa: B008 - frozen
    file: str = "adapter_model.safetensors",
    known: Header | None = None,
) -> Header:
    """The header of a file of ``size`` bytes, by at most two range reads.

    Reads at most 32 KiB and the header, which is not parsed again where it is the ``known`` one.
    Raises :class:`SourceError` with every reason that was
    found why this is no whole safetensors file; what ``read`` raises passes through.
    """
    first = read(0, min(size, FIRST_READ))
    length = _header_length(first, size, where, file)
    if 8 + length > len(first):
        first += read(len(first), 8 + length - len(first))
    if known is not None and is_header_of(known, first, size):
        return known
    return parse_header(first, size, where, file)


def is_header_of(header: Header, data: bytes | memoryview, size: int) -> bool:
    """Whether the file of ``size`` bytes that begins with ``data`` has this header."""
    return header.size == size and header.digest == _digest(data[: header.data_start])


def _digest(head: bytes | memoryview) -> str:
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
    """The header in ``data``, the beginning of a file of ``size`` bytes (all of its header, and
    possibly more). Raises :class:`SourceError` as :func:`read_header` does."""
    length = _header_length(data, size, where, file)
    raw = data[8 : 8 + length]
    if len(raw) < length:
        _refuse(
            codes.FILE_TRUNCATED,
            f"{file}: the file ends inside its header",
            where,
            found=f"{len(raw)} of {length} bytes",
        )
    if raw.count(b'":') > 4 * HEADER_TENSORS:
        # before anything is built of it: a tensor has a name and three fields
        _refuse(
            codes.HEADER_MALFORMED,
            f"{file}: the header names more tensors than any model has",
            where,
            expected=f"at most {HEADER_TENSORS} tensors",
        )
    entries = _parse_json(raw, where, file)
    metadata = _metadata(entries.pop("__metadata__", {}), where, file)
    problems: list[Finding] = []
    tensors = _tensors(entries, where, file, problems)
    if problems:
        raise SourceError(*problems)
    end = _check_contiguous(tensors, where, file)
    data_start = 8 + length
    if data_start + end != size:
        what = "is truncated" if size < data_start + end else "has bytes after its last tensor"
        _refuse(
            codes.FILE_TRUNCATED,
            f"{file} {what}",
            where,
            found=f"{size} bytes",
            expected=f"{data_start + end} bytes, by its own header",
        )
    return Header(tensors, metadata, data_start, size, _digest(data[:data_start]))


def _header_length(data: bytes, size: int, where: Where, file: str) -> int:
    # a header of 1152 bytes begins like a pickle: what follows the length tells them apart
    if data.startswith(_PICKLES) and data[8:9] != b"{":
        _refuse(
            codes.HEADER_MALFORMED,
            f"{file} is a pickle, which can run code when it is opened",
            where,
            expected="a safetensors file",
            hint="convert it: save the adapter again with PEFT's default (safetensors)",
        )
    if data.startswith(LFS_POINTER):
        _refuse(
            codes.HEADER_MALFORMED,
            f"{file} is a Git LFS pointer, not the file itself",
            where,
            expected="a safetensors file",
            hint="fetch the real file with `git lfs pull`",
        )
    if size < 8 or len(data) < 8:
        _refuse(
            codes.FILE_TRUNCATED,
            f"{file} is too small to be a safetensors file",
            where,
            found=f"{min(size, len(data))} bytes",
            expected="at least 8 bytes and a header",
        )
    length = int.from_bytes(data[:8], "little")
    if length > HEADER_BYTES:
        _refuse(
            codes.HEADER_MALFORMED,
            f"{file}: the header says that it is longer than any header may be",
            where,
            found=f"{length} bytes",
            expected=f"at most {HEADER_BYTES} bytes; is this a safetensors file?",
        )
    if 8 + length > size:
        _refuse(
            codes.FILE_TRUNCATED,
            f"{file} ends inside its header",
            where,
            found=f"{size} bytes",
            expected=f"at least {8 + length} bytes",
        )
    return length


def _parse_json(raw: bytes, where: Where, file: str) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8")
    except UnicodeError as error:
        _refuse(codes.HEADER_MALFORMED, f"{file}: the header is not UTF-8", where, found=error)
    if not text.startswith("{"):
        _refuse(
            codes.HEADER_MALFORMED,
            f"{file}: the header is no JSON object",
            where,
            found=repr(text[:20]),
            expected="'{' first",
        )
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_whole if "-0" in text else None,  # json reads -0 as a plain 0
        )
        if "\\u" in text:  # an escaped lone surrogate is no text (a UnicodeError, a ValueError)
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        _refuse(codes.HEADER_MALFORMED, f"{file}: the header is nested too deeply", where)
    except ValueError as error:
        _refuse(codes.HEADER_MALFORMED, f"{file}: the header is not valid JSON", where, found=error)
    return cast("dict[str, Any]", value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice!r} stands twice")
    return entries


def _whole(digits: str) -> int:
    if digits.startswith("-"):
        raise ValueError(f"{digits} is no whole number")
    return int(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _metadata(value: object, where: Where, file: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        _refuse(
            codes.HEADER_MALFORMED,
            f"{file}: __metadata__ is not a map of text to text",
            where,
            found=repr(value)[:80],
        )
    return cast("dict[str, str]", value)


def _tensors(
    entries: Mapping[str, Any], where: Where, file: str, problems: list[Finding]
) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for name, entry in entries.items():
        info = _entry(entry)
        if isinstance(info, TensorInfo):
            tensors[name] = info
        elif len(problems) < 20:  # a broken writer breaks them all: twenty tell it
            problems.append(
                codes.HEADER_TENSOR.finding(f"{file}: tensor {name[:200]!r} {info}", where)
            )
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
    if not _whole_numbers(shape) or len(shape) > TENSOR_DIMENSIONS:
        return f"has a shape that is no list of whole numbers: {str(shape)[:80]}"
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return f"has offsets that are no [start, end]: {str(offsets)[:80]}"
    start, end = offsets
    for length in shape:
        bits *= length
    if bits != 8 * (end - start):
        return (
            f"takes {end - start} bytes by its offsets, "
            f"but {dtype} {list(shape)} takes {bits / 8:g}"
        )
    return TensorInfo(dtype, tuple(shape), start, end)


def _whole_numbers(value: object) -> bool:
    if type(value) is not list:
        return False
    for item in cast("list[object]", value):
        if type(item) is not int or not 0 <= item < _LIMIT:
            return False
    return True


def _check_contiguous(tensors: Mapping[str, TensorInfo], where: Where, file: str) -> int:
    """The end of the data part (bytes), where the tensors fill it without hole or overlap."""
    at = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != at:
            what = "overlaps the one before it" if info.start < at else "leaves a hole before it"
            _refuse(
                codes.HEADER_TENSOR,
                f"{file}: tensor {name[:200]!r} {what}",
                where,
                found=f"it begins at byte {info.start} of the data",
                expected=f"byte {at}",
            )
        at = info.end
    return at


def _refuse(
    code: Code,
    message: str,
    where: Where,
    *,
    found: object = None,
    expected: object = None,
    hint: str | None = None,
) -> NoReturn:
    raise SourceError(code.finding(message, where, found=found, expected=expected, hint=hint))
