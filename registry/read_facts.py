"""Reads what is known of an adapter or a base from its opened folder: config and headers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..manifests.bounds import CONFIG_BYTES, INDEX_BYTES, TOKENIZER_BYTES
from ..manifests.findings import artefacts as codes
from ..manifests.findings import fit as fit_codes
from ..manifests.findings import lock as lock_codes
from ..manifests.findings.errors import IntegrityError, SourceError
from ..manifests.findings.finding import Finding, Where
from .base.architectures import layout_of
from .base.reported_sizes import reported_sizes
from .base.tokenizer import tokenizer_facts
from .files import foreign
from .files.adapter import read_adapter, weights_of
from .files.digests import sha256_bytes
from .files.facts import AdapterFacts, BaseFacts, FileFact, Header, TensorInfo, TokenizerFacts
from .files.header import LFS_POINTER, read_header
from .files.known_headers import KnownHeaders
from .files.names import (
    ADAPTER_CONFIG,
    ADAPTER_INDEX,
    ADAPTER_WEIGHTS,
    BASE_CONFIG,
    BASE_INDEX,
    BASE_WEIGHTS,
    BESIDE_A_BASE,
    PICKLES,
    TOKENIZER_FILES,
)
from .files.pool import each
from .methods.config_file import parse_adapter_config
from .sources.folder import Folder, damaged_hint

READERS = 8


def gather_adapter(
    name: str, folder: Folder, where: Where, known: KnownHeaders | None = None
) -> AdapterFacts:
    """The facts of the adapter in ``folder``: its config and its header, nothing more. A ``known``
    header is not parsed again.

    Raises :class:`SourceError` for a folder without an adapter or with a pickled one, and
    :class:`FitError` for a config or header that cannot be read.
    """
    files = folder.files()
    if ADAPTER_CONFIG not in files:
        raise SourceError(_no_adapter(folder, files, where))
    raw, config_file = _read_small(folder, files[ADAPTER_CONFIG], CONFIG_BYTES, where)
    config = parse_adapter_config(raw, where)
    if (other := foreign.by_config(config)) is not None:
        raise SourceError(_foreign(folder, other, where))
    weights = weights_of(config, files)
    if not weights:
        raise SourceError(_no_adapter(folder, files, where))
    headers = _read_headers(folder, files, list(weights), where, known)
    reading = read_adapter(config, headers, where)
    beside = [ADAPTER_INDEX] if ADAPTER_WEIGHTS not in weights and ADAPTER_INDEX in files else []
    consumed = (config_file, *(files[path] for path in (*beside, *weights)))
    return AdapterFacts(
        name,
        folder.source,
        reading.config,
        reading.header,
        consumed,
        folder.revision,
        reading.origin,
        headers,
        reading.parts,
    )


def gather_tokenizer(folder: Folder, where: Where) -> TokenizerFacts | None:
    """The facts of the tokenizer beside an adapter, if there is one."""
    return tokenizer_of(read_tokenizer_files(folder, where), folder, where)


def tokenizer_of(files: Mapping[str, bytes], folder: Folder, where: Where) -> TokenizerFacts | None:
    """The facts of a tokenizer from its files. Raises :class:`SourceError` for files that cannot be
    read as what their names say."""
    try:
        return tokenizer_facts(files)
    except ValueError as error:
        raise SourceError(
            codes.TOKENIZER_DAMAGED.finding(
                f"The tokenizer in {folder.source} cannot be read", where, found=error
            )
        ) from error


def read_tokenizer_files(folder: Folder, where: Where) -> dict[str, bytes]:
    """The tokenizer's files in ``folder``, by path."""
    files = folder.files()
    return {
        path: _read_small(folder, files[path], TOKENIZER_BYTES, where)[0]
        for path in TOKENIZER_FILES
        if path in files
    }


def gather_base(folder: Folder, where: Where, *, remote_code: bool = False) -> BaseFacts:
    """The facts of the base in ``folder``: its config and the header of every shard,
    and of a quantised one what describes its packed weights.

    ``remote_code`` adds the repository's Python files to the files that are pinned. Raises
    :class:`SourceError` for a folder without a base in safetensors.
    """
    files = folder.files()
    if BASE_CONFIG not in files:
        raise SourceError(_no_base(folder, files, where))
    if ADAPTER_CONFIG in files:
        raise SourceError(
            codes.BASE_HOLDS_ADAPTER.finding(f"{folder.source} holds {ADAPTER_CONFIG} too", where)
        )
    raw, config_file = _read_small(folder, files[BASE_CONFIG], CONFIG_BYTES, where)
    config = _json_object(raw, BASE_CONFIG, where)
    small = {BASE_CONFIG: config_file}
    index: Mapping[str, str] = {}
    if BASE_WEIGHTS in files:
        shards = [BASE_WEIGHTS]
    elif BASE_INDEX in files:
        raw_index, small[BASE_INDEX] = _read_small(folder, files[BASE_INDEX], INDEX_BYTES, where)
        index = _weight_map(raw_index, where)
        shards = sorted(set(index.values()))
    else:
        raise SourceError(_no_base(folder, files, where))
    absent = [s for s in shards if s not in files]
    if absent:
        raise SourceError(
            codes.BASE_DAMAGED.finding(
                f"{len(absent)} of {len(shards)} shards of the base are missing",
                where,
                found=f"{absent[0]} is missing",
                expected=f"every shard that {BASE_INDEX} names",
            )
        )
    headers = _read_headers(folder, files, shards, where)
    shard_of = {name: shard for shard, header in headers.items() for name in header.tensors}
    wrong = [name for name, shard in index.items() if shard_of.get(name) != shard]
    if wrong:
        raise SourceError(
            codes.BASE_DAMAGED.finding(
                f"{len(wrong)} tensors of the base are not where {BASE_INDEX} says",
                where,
                found=f"{wrong[0]} in {shard_of.get(wrong[0], 'no shard')}",
                expected=f"{wrong[0]} in {index[wrong[0]]}",
            )
        )
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    for shard, header in headers.items():
        twice = sorted(tensors.keys() & header.tensors.keys())
        if twice:
            raise SourceError(
                codes.BASE_DAMAGED.finding(
                    f"{len(twice)} tensors of the base are in two shards",
                    where,
                    found=f"{twice[0]} in {shard} and in one before it",
                    expected="each tensor in one shard",
                )
            )
        tensors.update(header.tensors)
        metadata.update(header.metadata)

    def content(name: str) -> bytes:
        shard, info = shard_of[name], tensors[name]
        return folder.read(shard, headers[shard].data_start + info.start, info.nbytes)

    reported = reported_sizes(tensors, metadata, lambda names: each(content, names, READERS))
    beside = [p for p in files if p in BESIDE_A_BASE or p in TOKENIZER_FILES]
    if remote_code:
        beside += [p for p in files if p.endswith(".py")]
    consumed = {p: files[p] for p in (*beside, *shards)} | small
    return BaseFacts(
        source=folder.source,
        config=config,
        tensors=tensors,
        layout=layout_of(config, tensors, reported),
        headers=headers,
        files=tuple(consumed[p] for p in sorted(consumed)),
        revision=folder.revision,
        reported_sizes=reported,
    )


def reader_of(folder: Folder) -> Callable[[str, int, int], bytes]:
    """``read(file, start, length)`` over the base's shards."""
    return lambda file, start, length: folder.read(file, start, length)


def _read_headers(
    folder: Folder,
    files: Mapping[str, FileFact],
    shards: list[str],
    where: Where,
    known: KnownHeaders | None = None,
) -> dict[str, Header]:
    def one(shard: str) -> Header:
        header = read_header(
            lambda start, length: folder.read(shard, start, length),
            files[shard].size,
            where=where,
            file=shard,
            find=None if known is None else known.find,
        )
        if known is not None:
            known.keep(header)
        return header

    if len(shards) == 1:
        return {shards[0]: one(shards[0])}
    return dict(zip(shards, each(one, shards, READERS), strict=True))


def _read_small(folder: Folder, fact: FileFact, limit: int, where: Where) -> tuple[bytes, FileFact]:
    """The bytes of a small file, and its fact with their digest."""
    if fact.size > limit:
        raise SourceError(
            codes.FILE_TOO_LARGE.finding(
                f"{fact.path} is too large",
                where,
                found=f"{fact.size} bytes",
                expected=f"at most {limit} bytes",
            )
        )
    raw = folder.read(fact.path)
    digest = sha256_bytes(raw)
    if fact.sha256 not in (None, digest):
        raise IntegrityError(
            lock_codes.CHANGED_UNDER_LOCK.finding(
                f"{fact.path} in {folder.source} is not the one that was "
                + ("published" if folder.source.is_registry else "pinned"),
                where,
                found=digest,
                expected=fact.sha256,
                hint=damaged_hint(folder.source),
            )
        )
    return raw, replace(fact, sha256=digest)


def _json_object(raw: bytes, file: str, where: Where) -> dict[str, Any]:
    if raw.startswith(LFS_POINTER):
        raise SourceError(
            codes.BASE_DAMAGED.finding(
                f"{file} is a Git LFS pointer, not the file itself",
                where,
                expected="a JSON object",
                hint="Fetch the real file with `git lfs pull`.",
            )
        )
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            codes.BASE_DAMAGED.finding(f"{file} is not JSON", where, found=error)
        ) from error
    if not isinstance(data, dict):
        raise SourceError(
            codes.BASE_DAMAGED.finding(
                f"{file} is not a JSON object", where, found=type(data).__name__
            )
        )
    return data


def _weight_map(raw: bytes, where: Where) -> Mapping[str, str]:
    weight_map = _json_object(raw, BASE_INDEX, where).get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(v, str) for v in weight_map.values())
    ):
        raise SourceError(
            codes.BASE_DAMAGED.finding(
                f"{BASE_INDEX} has no weight_map of tensor names to files", where
            )
        )
    return weight_map


def _no_adapter(folder: Folder, files: Mapping[str, FileFact], where: Where) -> Finding:
    """Why this folder does not hold an adapter that can be read, and what it is instead."""
    pickles = sorted(p for p in files if p.endswith(PICKLES) and p.startswith("adapter_"))
    if ADAPTER_CONFIG in files and pickles:
        return codes.PICKLE_REFUSED.finding(
            f"{folder.source} has its weights in {pickles[0]} only",
            where,
            found=pickles[0],
            expected=ADAPTER_WEIGHTS,
        )
    deeper = sorted(p.rpartition("/")[0] for p in files if p.endswith(f"/{ADAPTER_CONFIG}"))
    other = None if deeper else foreign.by_files(files) or _by_header(folder, files, where)
    if other is not None:
        return _foreign(folder, other, where)
    hint = None
    if deeper:
        last = max(deeper, key=_number)
        hint = f"Use {folder.source}/{last}, which holds an adapter."
    missing = [f for f in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if f not in files]
    return codes.NOT_AN_ADAPTER.finding(
        f"{folder.source} has no {' and no '.join(missing)}",
        where,
        found=", ".join(sorted(files)[:8]) or "an empty folder",
        expected=f"{ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}",
        hint=hint,
    )


def _by_header(
    folder: Folder, files: Mapping[str, FileFact], where: Where
) -> foreign.Foreign | None:
    """The format of the first safetensors file, where its name is not PEFT's."""
    paths = sorted(p for p in files if p.endswith(".safetensors") and "/" not in p)
    if not paths:
        return None
    try:
        header = _read_headers(folder, files, paths[:1], where)[paths[0]]
    except SourceError:
        return None  # the missing files of the adapter are the better explanation
    other = foreign.by_tensors(header.tensors)
    if other is not None and other.what == foreign.RENAMED.what and paths[0] == ADAPTER_WEIGHTS:
        return None  # only its config is missing
    return other


def _foreign(folder: Folder, other: foreign.Foreign, where: Where) -> Finding:
    return fit_codes.FOREIGN_FORMAT.finding(
        f"{folder.source} is {other.what}",
        where,
        found=other.seen,
        expected=f"{ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}, as PEFT writes them",
        hint=other.hint,
    )


def _number(folder: str) -> tuple[int, str]:
    """``checkpoint-1000`` comes after ``checkpoint-500``; a folder without a number before both."""
    tail = folder.rpartition("-")[2]
    return (int(tail) if tail.isdecimal() and len(tail) < 19 else -1, folder)


def _no_base(folder: Folder, files: Mapping[str, FileFact], where: Where) -> Finding:
    pickles = sorted(p for p in files if p.endswith(PICKLES))
    if BASE_CONFIG in files and pickles:
        return codes.PICKLE_REFUSED.finding(
            f"{folder.source} has its weights in {pickles[0]} only",
            where,
            found=pickles[0],
            expected=f"{BASE_WEIGHTS} or {BASE_INDEX}",
            hint="Convert it where you trust it: call `from_pretrained`, then `save_pretrained`.",
        )
    return codes.NOT_A_BASE.finding(
        f"{folder.source} holds no base model in safetensors",
        where,
        found=", ".join(sorted(files)[:8]) or "an empty folder",
        expected=f"{BASE_CONFIG} and {BASE_WEIGHTS} (or {BASE_INDEX} and its shards)",
    )
